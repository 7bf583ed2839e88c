"""Cancel requests: a message for each, which the server removes in time and publishes to those who listen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from streamhub.errors import BackendUnavailableError
from streamhub.types import CancelRequest, RunRef
from streamhub_nats.concurrently import concurrently
from streamhub_nats.feeds import NatsRequestFeed, follow_requests
from streamhub_nats.ledger import OvertakenError
from streamhub_nats.requests import read_request, write_request
from streamhub_nats.session import ATTEMPTS, Session
from streamhub_nats.stored import milliseconds


class NatsCancels:
    """The cancel requests of one namespace."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ledger = session.cancels
        self._clock = session.clock(session.cancels)

    async def request(
        self, key: str, run: str, *, reason: str | None, requested_by: str | None, ttl_seconds: float
    ) -> bool:
        """Store a request; the server then publishes it. See ``CancelBus.request``."""
        self._session.context.check()
        data = write_request(CancelRequest(key, run, reason, requested_by), milliseconds(ttl_seconds))
        subject = self._session.names.cancel(key, run)
        for _ in range(ATTEMPTS):
            last = await self._ledger.last(subject)
            if last is not None:
                _, expires = read_request(RunRef(key, run), last.data, last.time_ns)
                if await self._clock.now() < expires:
                    return False
            after = 0 if last is None else last.sequence
            try:
                await self._ledger.write(subject, data, after=after, alone=True, ttl_seconds=ttl_seconds + 1)
            except OvertakenError:
                continue
            return True
        raise BackendUnavailableError(f"the request for {key!r} is being changed all the time: it is tried again")

    async def pending(self, runs: Sequence[RunRef]) -> Sequence[CancelRequest | None]:
        """Read stored requests; see ``CancelBus.pending``."""
        self._session.context.check()
        return await concurrently(runs, self._pending)

    async def _pending(self, ref: RunRef) -> CancelRequest | None:
        last = await self._ledger.last(self._session.names.cancel(*ref))
        if last is None:
            return None
        request, expires = read_request(RunRef(*ref), last.data, last.time_ns)
        return request if await self._clock.now() < expires else None

    def requests(self) -> AbstractAsyncContextManager[NatsRequestFeed]:
        """Open a feed of notifications; see ``CancelBus.requests``."""
        return follow_requests(self._session)
