"""Delivering cancel requests to the producers of this hub: by notification, and by reading what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from streamhub.errors import BackendUnavailableError, StreamHubError
from streamhub.link import Link, Wire
from streamhub.observer import Event, Observer, notify
from streamhub.outage import ride
from streamhub.protocols import CancelBus
from streamhub.tasks import TaskOwner
from streamhub.types import CancelRequest, RunRef

OnCancel = Callable[[CancelRequest], None]


class CancelDelivery:
    """Routes requests to the callbacks of the runs that listen. A request may be delivered more than once."""

    def __init__(
        self, cancels: CancelBus, tasks: TaskOwner, *, outage_seconds: float, observer: Observer | None
    ) -> None:
        self._cancels = cancels
        self._tasks = tasks
        self._observer = observer
        self._outage_seconds = outage_seconds
        self._listeners: dict[RunRef, OnCancel] = {}
        self._unchecked = False
        self._checking: asyncio.Task[None] | None = None
        self._link: Link[RunRef, CancelRequest | None] = Link(
            self._connect,
            tasks,
            name="cancel feed",
            outage_seconds=outage_seconds,
            on_item=self._received,
            on_connect=self._connected,
        )

    async def listen(self, ref: RunRef, on_cancel: OnCancel) -> None:
        """Deliver requests for a run from now on; those stored earlier are found by ``check``."""
        self._listeners[ref] = on_cancel
        try:
            await self._link.join(ref)
        except BaseException:
            self.unlisten(ref, on_cancel)
            raise

    def unlisten(self, ref: RunRef, on_cancel: OnCancel) -> None:
        """Stop delivering to this callback; a later one for the same run stays."""
        if self._listeners.get(ref) is on_cancel:
            del self._listeners[ref]
            self._link.leave(ref)

    async def check(self, refs: Sequence[RunRef]) -> None:
        """Read what is stored for these runs and deliver it; what cannot be read, of one run, is raised last."""
        if not refs:
            return
        try:
            requests = await self._cancels.pending(refs)
        except BackendUnavailableError:
            raise
        except StreamHubError:
            if len(refs) == 1:
                raise
            await self._check_each(refs)
            return
        for request in requests:
            self._deliver(request)

    async def _check_each(self, refs: Sequence[RunRef]) -> None:
        unread: StreamHubError | None = None
        for ref in refs:
            try:
                await self.check([ref])
            except BackendUnavailableError:
                raise
            except StreamHubError as exc:
                unread = exc
        if unread is not None:
            raise unread

    @asynccontextmanager
    async def _connect(self) -> AsyncGenerator[Wire[RunRef, CancelRequest | None]]:
        async with self._cancels.requests() as feed:
            yield Wire(feed.listen, feed.unlisten, feed)

    def _connected(self, again: bool) -> None:
        if again:
            notify(self._observer, Event(name="reconnect"))
            self._check_all()

    def _received(self, request: CancelRequest | None) -> None:
        if request is None:
            self._check_all()
        else:
            self._deliver(request)

    def _check_all(self) -> None:
        self._unchecked = True
        if self._checking is None or self._checking.done():
            self._checking = self._tasks.spawn(self._check_until_done(), "cancel check")

    async def _check_until_done(self) -> None:
        while self._unchecked:
            self._unchecked = False
            # What broke the feed may have broken more. In the end each renewal checks again.
            with suppress(BackendUnavailableError):
                await ride(lambda: self.check(list(self._listeners)), self._outage_seconds)

    def _deliver(self, request: CancelRequest | None) -> None:
        if request is not None and (on_cancel := self._listeners.get(RunRef(request.key, request.run))):
            on_cancel(request)
