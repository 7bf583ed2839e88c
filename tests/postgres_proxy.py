"""The proxy of tests/proxy.py for PostgreSQL: it knows when a request was answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import proxy
from proxy import Connection, Proxy

# ReadyForQuery, outside a transaction: whatever was asked for is committed, or was refused.
_READY = b"Z\x00\x00\x00\x05I"


class PostgresConnection(Connection):
    """One connection through the proxy."""

    def __init__(self, owner: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        super().__init__(owner, client, server)
        self._answer = b""

    def ask(self, data: bytes) -> bytes:
        if self.dead:
            return b""
        if self._loss is None:
            self._loss = self._proxy.loss_for([data])
        return data

    def answer(self, data: bytes) -> bytes:
        if self.dead:
            return b""
        if self._loss is None:
            return data
        self._answer += data
        if _READY in self._answer:
            self._loss.happened.set()
            self.cut()
        return b""


class PostgresProxy(Proxy):
    """A proxy before a PostgreSQL server. A marker is looked for in all bytes of a request."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port, kind=PostgresConnection)

    def loss_for(self, command: object) -> proxy._Loss | None:
        (data,) = command  # all bytes that came together
        for loss in self._losses:
            if loss.marker in data:
                self._losses.remove(loss)
                return loss
        return None


@contextlib.asynccontextmanager
async def proxied(host: str, port: int) -> AsyncGenerator[PostgresProxy]:
    """Run a proxy before a server, inside the block."""
    running = PostgresProxy(host, port)
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        await running.aclose()
