"""What is used of the driver, which has no types of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
from asyncpg.exceptions import (  # pyright: ignore[reportMissingTypeStubs]
    ClientConfigurationError,
    InterfaceError,
    InternalClientError,
    PostgresError,
)

Rows: TypeAlias = list[Any]
"""What a statement answers: rows, each as a sequence of columns."""

__all__ = [
    "ClientConfigurationError",
    "Driver",
    "InterfaceError",
    "InternalClientError",
    "PostgresError",
    "Rows",
    "Statement",
    "connect",
]


class Statement(Protocol):
    """A prepared statement."""

    async def fetch(self, *arguments: object) -> Rows:
        """Run it: one round trip."""
        ...


class Driver(Protocol):
    """A connection."""

    async def fetch(self, query: str, *arguments: object) -> Rows:
        """Run a statement: two round trips."""
        ...

    async def execute(self, query: str) -> str:
        """Run a script."""
        ...

    async def prepare(self, query: str, *, name: str) -> Statement:
        """Prepare a statement by a name; without one it would be parsed and planned each time."""
        ...

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None:
        """LISTEN."""
        ...

    def add_termination_listener(self, callback: Callable[..., None]) -> None:
        """Be told of the connection's end."""
        ...

    def get_server_pid(self) -> int:
        """Return the process that the other side said it is."""
        ...

    def get_server_version(self) -> tuple[int, ...]:
        """Return the server's version."""
        ...

    def is_closed(self) -> bool:
        """Say whether the connection has ended."""
        ...

    def terminate(self) -> None:
        """End the connection at once."""
        ...

    async def close(self) -> None:
        """End the connection in order."""
        ...


async def connect(url: str, *, seconds: float, settings: dict[str, str], **options: str | int) -> Driver:
    """Connect, within a time, without the driver's own caches and limits."""
    return cast(
        "Driver",
        await cast("Any", asyncpg).connect(
            url,
            timeout=seconds,
            statement_cache_size=0,
            command_timeout=None,
            server_settings=settings,
            **options,
        ),
    )
