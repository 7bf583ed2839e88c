"""A run in this process, from its open to its end: the producer with its lease, its cancels and its last record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streamhub.cancellation import CancelDelivery
from streamhub.errors import DrainingError, ProducerCancelledError, StreamFailure, StreamHubError
from streamhub.interrupt import Interrupter
from streamhub.keeper import HeldLease, LeaseKeeper
from streamhub.lane import Lane
from streamhub.observer import Event, Observer, notify
from streamhub.producer import Producer
from streamhub.types import COMPLETED, CancelRequest, End, RunRef

INTERRUPTED = End(state="failed", code="interrupted", message="the producer was interrupted")


class CancelSwitch:
    """Turns a cancel request for one run into the interruption of its body, once."""

    def __init__(self, ref: RunRef, stop: Interrupter, observer: Observer | None) -> None:
        self.ref = ref
        self._stop = stop
        self._observer = observer

    def __call__(self, request: CancelRequest) -> None:
        """Take a request; repeated ones are one."""
        if self._stop.cause is None:
            notify(self._observer, Event(name="cancel", key=request.key, run=request.run))
            cause = ProducerCancelledError(
                request.key, run=request.run, reason=request.reason, requested_by=request.requested_by
            )
            self._stop.interrupt(cause)


class Run:
    """What the hub holds for one producer. ``enter``, ``leave`` and ``finish`` bracket its body."""

    def __init__(
        self,
        producer: Producer,
        lane: Lane,
        held: HeldLease,
        stop: Interrupter,
        switch: CancelSwitch,
        *,
        keeper: LeaseKeeper,
        delivery: CancelDelivery,
        handover: bool,
        on_finished: Callable[[Run], None],
    ) -> None:
        self.producer = producer
        self._lane = lane
        self._held = held
        self._stop = stop
        self._switch = switch
        self._keeper = keeper
        self._delivery = delivery
        self._handover = handover
        self._on_finished = on_finished

    def interrupt(self, cause: StreamHubError) -> None:
        """Interrupt the body; the first cause stays."""
        self._stop.interrupt(cause)

    def enter(self) -> None:
        """Begin the body in the current task; raise a cause that came before it."""
        self._stop.enter()
        if self._stop.cause is not None:
            self._stop.leave(None)
            raise self._stop.cause

    def leave(self, exc: BaseException | None) -> BaseException | None:
        """End the body; return what leaves the block: ``exc``, or the cause of an interruption in its place."""
        own = self._stop.leave(exc)
        return self._stop.cause if own or exc is None else exc

    async def finish(self, exc: BaseException | None) -> None:
        """Store what was sent, with the end that fits, and release the lease.

        A cause of interruption decides the end before ``exc`` does. Without a lease, or after an append failed for
        good, nothing is written, and what stopped it is raised.
        """
        try:
            if self._lane.error is not None:
                raise self._lane.error
            end = self._end(self._stop.cause or exc)
            if end is not None:
                self._lane.put_end(end)
            await self._lane.flush()
        finally:
            self._delivery.unlisten(self._switch.ref, self._switch)
            self._on_finished(self)
            await self._keeper.release(self._held)

    def _end(self, outcome: BaseException | None) -> End | None:
        if outcome is None:
            return COMPLETED
        if isinstance(outcome, ProducerCancelledError):
            return End(state="cancelled", reason=outcome.reason, requested_by=outcome.requested_by)
        if isinstance(outcome, StreamFailure):
            return End(state="failed", code=outcome.code, message=outcome.message)
        if isinstance(outcome, (DrainingError, asyncio.CancelledError)) or not isinstance(outcome, Exception):
            return None if self._handover else INTERRUPTED
        return End(state="failed", code=type(outcome).__name__, message="the producer failed")
