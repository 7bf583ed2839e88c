"""A place of its own for each test, on each backend."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import servers

KINDS = ("memory", "sqlite", "redis", "postgresql", "nats")
DURABLE_KINDS = KINDS[1:]


@asynccontextmanager
async def fresh_place(kind: str, folder: Path) -> AsyncIterator[str]:
    """Yield the URL of a backend with nothing stored under it, or skip."""
    name = f"ds{secrets.token_hex(4)}"
    if kind == "memory":
        yield f"memory://{name}"
    elif kind == "sqlite":
        yield f"sqlite:///{folder / name}.db"
    elif kind == "redis":
        yield f"{servers.any_redis_server('8.2').url}?prefix={name}"
    elif kind == "postgresql":
        yield f"{servers.any_postgres_server('18').url}?schema={name}"
    else:
        server = servers.nats_server("2.15")
        yield f"{server.url}?namespace={name}"
        for stream in ("SH", "SHL", "SHC"):
            await server.api(f"STREAM.DELETE.{stream}_{name}")
