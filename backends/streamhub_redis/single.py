"""One server: all requests of a call are one pipeline."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import partial

from streamhub_redis.dialling import dialler
from streamhub_redis.faults import map_errors, refusal
from streamhub_redis.node import Lane, Node, Request
from streamhub_redis.options import RedisOptions
from streamhub_redis.preparing import prepare
from streamhub_redis.server import Answer
from streamhub_redis.target import Target
from streamhub_redis.wire import Wire


class SingleServer:
    """A server, or whichever one Sentinels say is master now."""

    groups_requests = True

    def __init__(self, target: Target, options: RedisOptions) -> None:
        self._where = target.where
        self._node = Node(dialler(target, options), options, where=target.where, explain=partial(refusal, target.where))

    async def connect(self) -> None:
        """Connect, see that the server is fit, and load all scripts."""
        self._node.reopen()
        await prepare(self._node, clustered=False)

    def run(self, requests: Sequence[Request], *, lane: Lane, storing: bool = False) -> Awaitable[list[Answer]]:
        """Run requests, in one pipeline."""
        return self._node.run(requests, lane=lane, storing=storing)

    async def masters(self) -> Sequence[Node]:
        """Return the one node."""
        return [self._node]

    async def listener(self) -> Wire:
        """Open a connection that may subscribe."""
        with map_errors(self._where):
            return await self._node.listener()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._node.aclose()
