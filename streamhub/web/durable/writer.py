"""Writing to streams that many write to: group commit within this process, compare-and-append between processes.

Of a stream one append is in flight; the writes that come meanwhile, or in the same turn of the loop, ride together in
the next. An append is admitted on what this process remembers of the stream, and stored only if that still holds:
whatever shows that it does not makes the writer describe the stream and decide anew. Nothing but an accepted write is
answered from memory.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from streamhub.errors import (
    BackendUnavailableError,
    DataLostError,
    DrainingError,
    LimitExceededError,
    OffsetConflictError,
    StaleGenerationError,
    StreamDeletedError,
    StreamEndedError,
    StreamExpiredError,
    StreamHubError,
    StreamNotFoundError,
    defect,
)
from streamhub.hub import Hub
from streamhub.nonces import Nonces
from streamhub.observer import Event, notify
from streamhub.outage import Outage, ride
from streamhub.tasks import consume
from streamhub.types import COMPLETED, Append, Appended, Metadata, StreamInfo
from streamhub.web.durable.admission import Accept, Decision, StreamState, Write, admit
from streamhub.web.durable.bodies import MAX_MESSAGES
from streamhub.web.durable.creation import CONTENTION_SECONDS, begin_span
from streamhub.web.durable.stored import (
    Configuration,
    configuration_of,
    is_creating,
    state_of,
    updated_metadata,
)

MAX_IDLE = 1024
MAX_WAITING = 4096
SECONDS_PER_HOUR = 3600
LOOKS = 16
"""So many writes each look whether others come in their turn of the loop; then every so many-th."""

OVERTAKEN = (
    OffsetConflictError,
    StreamEndedError,
    StaleGenerationError,
    StreamDeletedError,
    StreamExpiredError,
    DataLostError,
)
UNTOLD = (StaleGenerationError, StreamDeletedError, StreamExpiredError, DataLostError)
"""Refusals that do not say whether an earlier attempt of the same append was stored."""

logger: logging.Logger = logging.getLogger("streamhub")


class OverloadedError(StreamHubError):
    """More writes wait for one stream than are let wait."""


class Outcome(NamedTuple):
    """What became of a write. ``state`` is the stream's, right after it."""

    decision: Decision
    state: StreamState


Answer: TypeAlias = Outcome | StreamHubError


class Pending:
    """A write on its way."""

    __slots__ = ("answered", "chunks", "size_bytes", "write")

    def __init__(self, write: Write, chunks: tuple[bytes, ...], answered: asyncio.Future[Outcome] | None) -> None:
        self.write: Write = write
        self.chunks: tuple[bytes, ...] = chunks
        self.size_bytes: int = len(chunks[0]) if len(chunks) == 1 else sum(map(len, chunks))
        self.answered: asyncio.Future[Outcome] | None = answered


@dataclass(slots=True, eq=False)
class _Known:
    """What this process remembers of a run. Each append that it stores moves it on."""

    generation: int
    configuration: Configuration
    metadata: Metadata
    state: StreamState


class Writers:
    """The writers of one application, one for each stream written to lately."""

    def __init__(self, hub: Hub, *, default_type: str, max_waiting_bytes: int) -> None:
        self._hub = hub
        self._default_type = default_type
        self._max_waiting_bytes = max_waiting_bytes
        self._writers: OrderedDict[str, StreamWriter] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(self, key: str, write: Write, chunks: tuple[bytes, ...]) -> Outcome:
        """Store a write, or say why not. Cancelling this call harms no other write.

        Raises:
            StreamNotFoundError: there is no such stream.
            OverloadedError: too many wait.
            OffsetConflictError: other processes were faster, again and again.
            LimitExceededError: the stream is full.
            BackendUnavailableError: nobody knows what became of it.
        """
        writers = self._writers
        writer = writers.get(key)
        if writer is None:
            self._make_room()
            writer = writers[key] = StreamWriter(
                self._hub, key, self._tasks, self._default_type, self._max_waiting_bytes
            )
        else:
            writers.move_to_end(key)
        try:
            return await writer.write(write, chunks)
        except StreamNotFoundError:
            if writers.get(key) is writer:  # names that are not there must not take the place of those that are
                del writers[key]
            raise

    def forget(self, key: str) -> None:
        """Describe a stream before the next write to it: it was created or deleted here."""
        if (writer := self._writers.get(key)) is not None:
            writer.forget()

    def _make_room(self) -> None:
        if len(self._writers) < MAX_IDLE:
            return
        for key, writer in self._writers.items():
            if not writer.busy:
                del self._writers[key]
                return


class StreamWriter:
    """The writes of this process to one stream."""

    def __init__(
        self, hub: Hub, key: str, tasks: set[asyncio.Task[None]], default_type: str, max_waiting_bytes: int
    ) -> None:
        self.busy: bool = False
        self._hub = hub
        self._key = key
        self._tasks = tasks
        self._default_type = default_type
        self._max_waiting_bytes = max_waiting_bytes
        self._nonces = Nonces()
        self._known: _Known | None = None
        self._reached = (0, 0)  # generation and index of the last message stored here
        self._epoch = 0  # grows with every reason to forget
        self._queue: deque[Pending] = deque()
        self._queued_bytes = 0
        self._alone = 0  # writes since three or more last came in one turn of the loop

    def forget(self) -> None:
        """Remember nothing."""
        self._known = None
        self._epoch += 1

    async def write(self, write: Write, chunks: tuple[bytes, ...]) -> Outcome:
        """See ``Writers.write``."""
        if self.busy:
            return await self._queued(write, chunks)
        self.busy = True
        try:
            answer = await self._at_once(write, chunks) or (await self._settle([Pending(write, chunks, None)]))[0]
        except BaseException:
            self.forget()  # it was cancelled, and may be stored or not
            raise
        finally:
            self._go_on()
        if isinstance(answer, StreamHubError):
            raise answer
        return answer

    async def _at_once(self, write: Write, chunks: tuple[bytes, ...]) -> Answer | None:
        """Store a write that moves nothing but the tail, on what is known; None if it is not such, or was overtaken.

        Most writes are such, and what it takes to settle several would be a tenth of their cost.
        """
        known = self._known
        plain = write.claim is None and write.seq is None and not write.close
        if not plain or known is None or known.configuration.expires is not None:
            return None
        decision = admit(known.state, write, 0)
        if not isinstance(decision, Accept):
            return None
        state = decision.state
        append = Append(self._key, known.generation, known.state.tail.index + 1, chunks, self._nonces.fresh())
        try:
            answer = await self._store(append)
        except Exception as exc:  # noqa: BLE001 - it is told
            answer = _error_of(exc)
        if isinstance(answer, Appended):
            self._remember(known, append, state)
            return Outcome(decision, state)
        self.forget()
        if not isinstance(answer, OVERTAKEN):
            return answer
        await _let_others_go_on()
        return None

    async def _queued(self, write: Write, chunks: tuple[bytes, ...]) -> Outcome:
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        pending = Pending(write, chunks, answered)
        if len(self._queue) >= MAX_WAITING or self._queued_bytes + pending.size_bytes > self._max_waiting_bytes:
            raise OverloadedError(f"too many writes wait for stream {self._key!r}")
        self._queue.append(pending)
        self._queued_bytes += pending.size_bytes
        return await answered

    def _go_on(self) -> None:
        """Go on with what has come meanwhile, or comes in this turn of the loop.

        A store that answers at once is never waited for, so writes would never ride together there. But to look what
        else a turn brings delays a write that is alone: who was so for long is let look only now and then.
        """
        if self._queue:
            self._begin()
            return
        self._alone += 1
        if self._alone > LOOKS and self._alone % LOOKS:
            self.busy = False
        else:
            asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        if self._queue:
            if len(self._queue) > 1:  # for the sake of a second one it is not worth while
                self._alone = 0
            self._begin()
        else:
            self.busy = False

    def _begin(self) -> None:
        """Let a task of its own settle what waits: its requests must not depend on each other."""
        task = asyncio.get_running_loop().create_task(self._settle_queue(), name=f"streamhub writes to {self._key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle_queue(self) -> None:
        batch: list[Pending] = []
        try:
            while batch := self._take():
                for pending, answer in zip(batch, await self._settle(batch), strict=True):
                    _tell(pending, answer)
        except BaseException:
            self.forget()
            closed = DrainingError("the server stops")
            for pending in (*batch, *self._queue):
                _tell(pending, closed)
            self._queue.clear()
            self._queued_bytes = 0
            raise
        finally:
            self.busy = False

    def _take(self) -> list[Pending]:
        """Take from the queue what one append can carry."""
        batch: list[Pending] = []
        size = messages = 0
        while self._queue:
            first = self._queue[0]
            size += first.size_bytes
            messages += len(first.chunks)
            if batch and (size > self._hub.store.max_append_bytes or messages > MAX_MESSAGES):
                break
            self._queue.popleft()
            self._queued_bytes -= first.size_bytes
            if first.answered is not None and not first.answered.done():
                batch.append(first)
        return batch

    # --- deciding

    async def _settle(self, batch: list[Pending]) -> Sequence[Answer]:
        """Decide and store a batch; answer each of it."""
        try:
            answers = await self._settled(batch)
        except Exception as exc:  # noqa: BLE001 - it is told
            self.forget()
            return [_error_of(exc)] * len(batch)
        if answers is None:  # one of them is too much; the others need not suffer for it
            return [(await self._settle([pending]))[0] for pending in batch]
        return answers

    async def _settled(self, batch: list[Pending]) -> Sequence[Answer] | None:
        """Try until the decisions are stored; None if together they exceed what the stream may hold."""
        deadline = math.inf
        while True:
            fresh = self._known is None
            known = self._known or await self._describe()
            if known.configuration.has_expired(time.time()):
                raise StreamNotFoundError(self._key, None)
            outcomes = fold(known.state, batch)
            if not fresh and not all(isinstance(outcome.decision, Accept) for outcome in outcomes):
                self.forget()
                continue
            append = self._append_of(known, batch, outcomes)
            if append is None:
                return outcomes
            answer = await self._store(append)
            if isinstance(answer, Appended):
                self._remember(known, append, outcomes[-1].state)
                return outcomes
            self.forget()
            if isinstance(answer, LimitExceededError) and len(batch) > 1:
                return None
            now = time.monotonic()
            if not isinstance(answer, OVERTAKEN) or now >= deadline:
                raise answer
            deadline = min(deadline, now + CONTENTION_SECONDS)
            await _let_others_go_on()

    async def _describe(self) -> _Known:
        epoch = self._epoch
        deadline = time.monotonic() + self._hub.settings.outage_seconds
        while self._went_back(info := await self._found()):
            # What was stored, and read, is lost. Its offsets must not become those of other messages.
            if time.monotonic() >= deadline:
                raise BackendUnavailableError(f"stream {self._key!r} went back, and its lease is held")
            await begin_span(self._hub, info)
            await asyncio.sleep(random.uniform(0, 0.05))  # another process may be doing the same, or have died in it
        configuration = configuration_of(info.metadata, default_type=self._default_type)
        known = _Known(info.generation, configuration, info.metadata, state_of(info, configuration))
        if epoch == self._epoch and not known.state.closed:
            self._known = known
        return known

    async def _found(self) -> StreamInfo:
        infos = await ride(lambda: self._hub.store.describe([self._key]), self._hub.settings.outage_seconds)
        info = infos[0]
        if info is None or info.state not in ("open", "ended") or is_creating(info.metadata, attended=info.attended):
            raise StreamNotFoundError(self._key, None)
        return info

    def _went_back(self, info: StreamInfo) -> bool:
        generation, index = self._reached
        return info.state == "open" and not info.attended and info.generation == generation and info.tail < index

    def _append_of(self, known: _Known, batch: Sequence[Pending], outcomes: Sequence[Outcome]) -> Append | None:
        chunks: list[bytes] = []
        accepted = False
        for pending, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome.decision, Accept):
                accepted = True
                chunks.extend(pending.chunks)
        if not accepted:
            return None
        before, after = known.state, outcomes[-1].state
        same = after.producers is before.producers and after.seq is before.seq and after.closer is None
        metadata = None if same else updated_metadata(known.metadata, known.configuration, after)
        return Append(
            self._key,
            known.generation,
            before.tail.index + 1,
            tuple(chunks),
            self._nonces.fresh(),
            metadata,
            COMPLETED if after.closed else None,
        )

    def _remember(self, known: _Known, append: Append, state: StreamState) -> None:
        self._reached = (append.generation, state.tail.index)
        if self._known is not known or state.closed:
            self._known = None
            return
        known.state = state
        if append.metadata is not None:
            known.metadata = append.metadata

    async def _store(self, append: Append) -> Appended | StreamHubError:
        """Send an append, again and again while nobody answers; its nonce keeps it from being stored twice."""
        outage: Outage | None = None
        observed = self._hub.observer is not None
        started = time.monotonic() if observed else 0.0
        while True:
            try:
                answer = (await self._hub.store.append([append]))[0]
            except BackendUnavailableError as exc:
                answer = exc
            if not isinstance(answer, BackendUnavailableError):
                break
            outage = outage or Outage(self._hub.settings.outage_seconds)
            await asyncio.sleep(outage.pause(answer))
        if isinstance(answer, Appended):
            if observed:
                self._told(append, time.monotonic() - started)
        elif outage is not None and isinstance(answer, UNTOLD):
            return BackendUnavailableError(f"stream {self._key!r} is gone, and whether an append was stored with it")
        return answer

    def _told(self, append: Append, seconds: float) -> None:
        size, count = sum(map(len, append.chunks)), len(append.chunks)
        event = Event(
            name="append",
            key=append.key,
            generation=append.generation,
            count=count,
            size_bytes=size,
            seconds=seconds,
        )
        notify(self._hub.observer, event)


def fold(state: StreamState, batch: Sequence[Pending]) -> list[Outcome]:
    """Decide writes one after another."""
    hour = int(time.time()) // SECONDS_PER_HOUR
    outcomes: list[Outcome] = []
    for pending in batch:
        decision = admit(state, pending.write, hour)
        if isinstance(decision, Accept):
            state = decision.state
        outcomes.append(Outcome(decision, state))
    return outcomes


async def _let_others_go_on() -> None:
    """Pause before deciding on what another process, which was faster, has left."""
    await asyncio.sleep(random.uniform(0, 0.002))


def _error_of(exc: Exception) -> StreamHubError:
    if isinstance(exc, StreamHubError):
        return exc
    logger.exception("a write failed with what no backend may raise")
    return defect(exc)


def _tell(pending: Pending, answer: Answer) -> None:
    future = pending.answered
    if future is None or future.done():
        return
    if isinstance(answer, StreamHubError):
        future.set_exception(answer)
        consume(future)
    else:
        future.set_result(answer)
