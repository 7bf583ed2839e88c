"""What the parts of a backend ask of the server, be it one or a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol, TypeAlias

from streamhub.errors import StreamHubError
from streamhub_redis.node import Lane, Node, Request
from streamhub_redis.wire import Wire

Answer: TypeAlias = Any
"""A reply of the server's; a ``StreamHubError`` if it refused the command, or its outcome is unknown."""


class Server(Protocol):
    """One server or a cluster of them."""

    groups_requests: bool
    """True if one call with many requests is one round trip to one server."""

    async def connect(self) -> None:
        """Connect, and load all scripts."""
        ...

    def run(self, requests: Sequence[Request], *, lane: Lane, storing: bool = False) -> Awaitable[list[Answer]]:
        """Run requests, which are independent of each other; answers are in their order. No requests, no round trip.

        With ``storing``, they store and publish: an answer that fewer replicas than asked for have confirmed is a
        ``BackendUnavailableError``, for it happened, but may be undone by a failover.
        """
        ...

    async def masters(self) -> Sequence[Node]:
        """Return every node that holds keys of its own."""
        ...

    async def listener(self) -> Wire:
        """Open a connection that may subscribe; raises ``BackendUnavailableError`` if it cannot."""
        ...

    async def aclose(self) -> None:
        """Close all connections but the listeners."""
        ...


def raise_first(answers: Sequence[Answer]) -> None:
    """Raise the first answer that is an error."""
    for answer in answers:
        if isinstance(answer, StreamHubError):
            raise answer
