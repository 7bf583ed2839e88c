"""The cancel requests of a namespace."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

from streamhub.types import CancelRequest, RunRef
from streamhub_memory.mailbox import Mailbox
from streamhub_memory.namespace import Namespace, StoredRequest
from streamhub_memory.session import Session


class MemoryRequestFeed:
    """Notifications for the runs listened to. More than a thousand untaken ones collapse into None."""

    def __init__(self, namespace: Namespace, box: Mailbox[CancelRequest | None]) -> None:
        self._namespace = namespace
        self._box = box

    async def listen(self, ref: RunRef) -> None:
        """Begin notifications for a run."""
        with self._namespace.lock:
            self._namespace.notices.add(self._box, ref)

    async def unlisten(self, ref: RunRef) -> None:
        """Stop notifications for a run."""
        with self._namespace.lock:
            self._namespace.notices.remove(self._box, ref)

    def __aiter__(self) -> AsyncIterator[CancelRequest | None]:
        return self

    async def __anext__(self) -> CancelRequest | None:
        return await self._box.take()


class MemoryCancelBus:
    """``CancelBus`` in memory; requests last their time, whatever becomes of the stream."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def request(
        self, key: str, run: str, *, reason: str | None, requested_by: str | None, ttl_seconds: float
    ) -> bool:
        """Store a request, then notify."""
        namespace = self._session.namespace
        ref = RunRef(key, run)
        with namespace.lock:
            now = namespace.clock()
            if namespace.live_request(ref, now) is not None:
                return False
            request = CancelRequest(key, run, reason, requested_by)
            namespace.requests[ref] = StoredRequest(request, now + ttl_seconds)
            namespace.request_agenda.plan(ref, now + ttl_seconds)
            namespace.notices.publish(ref, request)
            return True

    async def pending(self, runs: Sequence[RunRef]) -> Sequence[CancelRequest | None]:
        """Read the stored requests of runs."""
        namespace = self._session.namespace
        with namespace.lock:
            now = namespace.clock()
            return [namespace.live_request(RunRef(*ref), now) for ref in runs]

    @asynccontextmanager
    async def requests(self) -> AsyncGenerator[MemoryRequestFeed, None]:
        """Open a feed of notifications."""
        namespace = self._session.namespace
        box: Mailbox[CancelRequest | None] = Mailbox(namespace.lock, None)
        with self._session.tracked(namespace, box):
            with namespace.lock:
                namespace.notices.join(box)
            try:
                yield MemoryRequestFeed(namespace, box)
            finally:
                with namespace.lock:
                    namespace.notices.leave(box)
