"""A run in this process, from its open to its end: the producer with its lease, its cancels and its last record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streamhub.cancellation import CancelDelivery
from streamhub.errors import DrainingError, ProducerCancelledError, StreamFailure, StreamHubError
from streamhub.inputs import clip_text
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
        self._outcome: BaseException | None = None

    def interrupt(self, cause: StreamHubError) -> None:
        """Interrupt the body; the first cause stays."""
        self._stop.interrupt(cause)

    def enter(self) -> None:
        """Begin the body in the current task; raise a cause that came before it."""
        self._stop.enter()
        if self._stop.cause is not None:
            self.leave(None)
            raise self._stop.cause

    def leave(self, exc: BaseException | None) -> BaseException | None:
        """End the body, which ``exc`` left; return what leaves the block: ``exc``, or what interrupted it in its place.

        The run's end is decided here: by an interruption if there was one, else by ``exc``. A cancel that comes later
        comes too late.
        """
        own = self._stop.leave(exc)
        cause = self._stop.cause
        self._outcome = cause or exc
        self._lane.close()
        return cause if own or exc is None else exc

    def fail(self, error: StreamHubError) -> None:
        """Stop writing for good."""
        self._lane.fail(error)

    async def finish(self) -> None:
        """After ``leave``: store what was sent, with the run's end, and release the lease.

        Without a lease, or after an append failed for good, nothing is written, and what stopped it is raised.
        """
        try:
            if self._lane.error is not None:
                raise self._lane.error
            end = self._end(self._outcome)
            if end is not None:
                self._lane.put_end(end)
            await self._lane.flush()
        finally:
            self._delivery.unlisten(self._switch.ref, self._switch)
            try:
                await self._keeper.release(self._held)
            finally:
                self._on_finished(self)  # last: a closing hub waits for this, then cancels what is left

    def _end(self, outcome: BaseException | None) -> End | None:
        if outcome is None:
            return COMPLETED
        if isinstance(outcome, ProducerCancelledError):
            return End(state="cancelled", reason=outcome.reason, requested_by=outcome.requested_by)
        if isinstance(outcome, StreamFailure):
            return End(state="failed", code=clip_text(outcome.code), message=clip_text(outcome.message))
        if isinstance(outcome, (DrainingError, asyncio.CancelledError)) or not isinstance(outcome, Exception):
            return None if self._handover else INTERRUPTED
        return End(state="failed", code=clip_text(type(outcome).__name__), message="the producer failed")
