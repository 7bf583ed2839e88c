"""What the fault tests on NATS share: hubs on a server, and a proxy that loses the reply to a message."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlencode

from proxy import Connection, Proxy, proxied

from streamhub.conformance import UrlHarness

OPTIONS = {"timeout_seconds": 2.0, "connect_seconds": 2.0, "ping_seconds": 0.5}

_PUBLISHED = re.compile(rb"HPUB (?P<subject>\S+) (?P<reply>\S+) \d+ \d+\r\n")


def harness_on(address: str, **options: object) -> UrlHarness:
    """Return a harness with a namespace of its own; times are short unless ``options`` say otherwise."""
    query = urlencode(OPTIONS | options)
    return UrlHarness(f"{address}?namespace={{unique}}&{query}", capabilities=frozenset({"processes"}))


def through(port: int) -> str:
    """Return the address of a proxy."""
    return f"nats://app:s3cret@127.0.0.1:{port}"


class NatsConnection(Connection):
    """Reads along which messages are published, and what answers them."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        super().__init__(proxy, client, server)
        self._awaited: bytes | None = None

    def ask(self, data: bytes) -> bytes:
        if self._awaited is None and not self.dead:
            for published in _PUBLISHED.finditer(data):
                loss = self._proxy.loss_for([published["subject"]])
                if loss is not None:
                    self._loss, self._awaited = loss, published["reply"]
        return b"" if self.dead else data

    def answer(self, data: bytes) -> bytes:
        if self.dead:
            return b""
        if self._loss is None or self._awaited is None:
            return data
        if self._awaited in data:
            self._loss.happened.set()
            self.cut()
        return b""


@asynccontextmanager
async def before(port: int) -> AsyncGenerator[Proxy]:
    """Run a proxy before a server of this machine."""
    async with proxied("127.0.0.1", port, kind=NatsConnection) as proxy:
        yield proxy
