"""Cancel requests: a string for each, which the server removes in time, told by a message."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from streamhub.types import CancelRequest, RunRef
from streamhub_redis.feeds import RedisRequestFeed, follow_requests
from streamhub_redis.node import Request
from streamhub_redis.parts import parts
from streamhub_redis.requests import read_request, write_request
from streamhub_redis.resp import pack
from streamhub_redis.scripts import REQUEST
from streamhub_redis.session import Session


class RedisCancels:
    """The cancel requests under one prefix."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def request(
        self, key: str, run: str, *, reason: str | None, requested_by: str | None, ttl_seconds: float
    ) -> bool:
        """Store a request, then notify; see ``CancelBus.request``."""
        names = self._session.names
        name = names.cancel(key, run)
        text = write_request(CancelRequest(key, run, reason, requested_by))
        command = REQUEST.call((name,), text, b"%d" % math.ceil(ttl_seconds * 1000), names.channel_suffix)
        (answer,) = await self._session.tell([Request(name, command, REQUEST)], lane="write", storing=True)
        return answer == 1

    async def pending(self, runs: Sequence[RunRef]) -> Sequence[CancelRequest | None]:
        """Read stored requests; see ``CancelBus.pending``."""
        self._session.context.check()
        answers: list[bytes | None] = []
        for some in parts([self._session.names.cancel(*ref) for ref in runs]):
            answers += await self._session.tell([Request(name, pack(b"GET", name)) for name in some], lane="write")
        return [
            None if answer is None else read_request(RunRef(*ref), answer)
            for ref, answer in zip(runs, answers, strict=True)
        ]

    def requests(self) -> AbstractAsyncContextManager[RedisRequestFeed]:
        """Open a feed of notifications; see ``CancelBus.requests``."""
        return follow_requests(self._session)
