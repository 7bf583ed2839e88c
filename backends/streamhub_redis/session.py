"""What the three parts of a backend share."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from streamhub.kit import Context
from streamhub_redis.names import Names
from streamhub_redis.node import Lane, Request
from streamhub_redis.notifications import Notifications
from streamhub_redis.options import RedisOptions
from streamhub_redis.server import Answer, Server, raise_first


@dataclass(frozen=True, slots=True)
class Session:
    """A server, what it is called there, and who may use it."""

    server: Server
    names: Names
    options: RedisOptions
    context: Context
    notifications: Notifications

    def ask(self, requests: Sequence[Request], *, lane: Lane, storing: bool = False) -> Awaitable[list[Answer]]:
        """Run requests; see ``Server.run``."""
        self.context.check()
        return self.server.run(requests, lane=lane, storing=storing)

    async def tell(self, requests: Sequence[Request], *, lane: Lane, storing: bool = False) -> list[Answer]:
        """Run requests, and raise the first error among the answers."""
        answers = await self.ask(requests, lane=lane, storing=storing)
        raise_first(answers)
        return answers
