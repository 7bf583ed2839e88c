"""Leases: a hash for each, which the server removes when it has run out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from streamhub.errors import LeaseHeldError
from streamhub.types import Holder, Lease
from streamhub_redis.node import Request
from streamhub_redis.parts import parts
from streamhub_redis.scripts import ACQUIRE, HOLDER, RELEASE, RENEW, Script
from streamhub_redis.session import Session


class RedisLeases:
    """The leases under one prefix, by the server's clock."""

    min_ttl_seconds = 0.2
    default_ttl_seconds = 15.0

    def __init__(self, session: Session) -> None:
        self._session = session

    async def acquire(
        self, key: str, *, owner: str, run: str, ttl_seconds: float, above: int = 0, void: int = 0
    ) -> Lease:
        """Take the lease; see ``LeaseManager.acquire``. A failover may undo it: the store does not rely on it."""
        request = self._request(
            ACQUIRE, key, owner.encode(), run.encode(), _milliseconds(ttl_seconds), b"%d" % above, b"%d" % void
        )
        (answer,) = await self._session.tell([request], lane="write")
        if answer[0] == 1:
            return Lease(key, int(answer[1]), owner, run, ttl_seconds)
        raise LeaseHeldError(key, generation=int(answer[1]), run=answer[2].decode(), expires_in=answer[3] / 1000)

    async def renew(self, leases: Sequence[Lease]) -> Sequence[bool]:
        """Begin each lease's time anew; see ``LeaseManager.renew``."""
        self._session.context.check()
        answers: list[Any] = []
        for some in parts(leases):
            requests = [
                self._request(RENEW, lease.key, *_identity(lease), _milliseconds(lease.ttl_seconds)) for lease in some
            ]
            answers += await self._session.tell(requests, lane="write")
        return [answer == 1 for answer in answers]

    async def release(self, lease: Lease) -> None:
        """Give the lease up; see ``LeaseManager.release``."""
        await self._session.tell([self._request(RELEASE, lease.key, *_identity(lease))], lane="write")

    async def holders(self, keys: Sequence[str]) -> Sequence[Holder | None]:
        """Say who holds each lease now; see ``LeaseManager.holders``."""
        self._session.context.check()
        answers: list[Any] = []
        for some in parts(keys):
            answers += await self._session.tell([self._request(HOLDER, key) for key in some], lane="read")
        return [
            None if answer is None else Holder(int(answer[0]), answer[1].decode(), answer[2] / 1000)
            for answer in answers
        ]

    def _request(self, script: Script, key: str, *args: bytes) -> Request:
        name = self._session.names.lease(key)
        return Request(name, script.call((name,), *args), script)


def _identity(lease: Lease) -> tuple[bytes, bytes]:
    return b"%d" % lease.generation, lease.owner.encode()


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % math.ceil(seconds * 1000)
