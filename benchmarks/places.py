"""Where a measurement keeps its data: something fresh for the embedded backends, fresh keys for a server's."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.servers import nats_cluster, nats_server, postgres_server, redis_server
from streamhub import Hub

EMBEDDED = ("memory", "sqlite")

OWN = (*EMBEDDED, "redis", "postgresql", "nats", "nats-r3")
"""Backends whose data is made for a measurement, and gone after it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A backend's URL, a prefix for keys that nobody else uses, and a directory for a floor's own files."""

    url: str
    prefix: str
    directory: Path

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def shared(self) -> bool:
        """Whether processes share it."""
        return self.scheme != "memory"

    def key(self, name: object) -> str:
        return f"{self.prefix}{name}"

    def with_options(self, **options: object) -> str:
        """Return the URL with more options."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"{self.url}{'&' if '?' in self.url else '?'}{query}"


@contextmanager
def fresh_place(backend: str, directory: Path | None) -> Generator[Place]:
    """Make a place for ``backend``: one of ``OWN``, or a URL, whose data stays (see ``clean``)."""
    token = secrets.token_hex(4)
    folder = Path(tempfile.mkdtemp(prefix="streamhub-bench-", dir=directory))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        url = backend
        if backend == "memory":
            url = f"memory://bench-{token}"
        elif backend == "sqlite":
            url = f"sqlite:///{folder / 'bench.db'}"
        elif backend == "redis":
            url = stack.enter_context(redis_server())
        elif backend == "postgresql":
            url = stack.enter_context(postgres_server())
        elif backend == "nats":
            url = stack.enter_context(nats_server())
        elif backend == "nats-r3":
            url = stack.enter_context(nats_cluster())
        yield Place(url, f"bench:{token}:", folder)


async def clean(place: Place) -> None:
    """Delete the streams of a place that outlives the measurement."""
    async with Hub.from_url(place.url) as hub:
        async for key in hub.keys(place.prefix):
            await hub.delete(key)
