"""Group commit: at most one append of a stream is in flight; what is sent meanwhile rides in the next one.

There is no timer: an idle stream's first chunk goes at once, within ``send`` where the store can begin without a wait.
An append whose outcome is unknown is repeated as it was, with its nonce, so that the store keeps it once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

from streamhub.errors import (
    BackendUnavailableError,
    DataLostError,
    HubClosedError,
    StaleGenerationError,
    StreamHubError,
    defect,
)
from streamhub.lane import Lane
from streamhub.observer import Event, EventName, Observer, notify
from streamhub.protocols import PromptStore, StreamStore
from streamhub.tasks import TaskOwner
from streamhub.types import Append, Appended

_Answer = Appended | StreamHubError
_Begun = Callable[[], Awaitable[_Answer]]
_Rest = Callable[[], Coroutine[Any, Any, None]]

logger: logging.Logger = logging.getLogger("streamhub")


class Committer:
    """Flushes the lanes of one hub: all together or each by itself, as the store declares."""

    def __init__(self, store: StreamStore, tasks: TaskOwner, *, observer: Observer | None) -> None:
        self._store = store
        self._tasks = tasks
        self._observer = observer
        self._prompt = store if isinstance(store, PromptStore) and not store.groups_streams else None
        self._shared = self._flusher() if store.groups_streams else None

    def _flusher(self) -> _Flusher:
        return _Flusher(self._begin, self._flush, self._tasks)

    def add(self, lane: Lane) -> None:
        """Take a new lane on: from now on what is put into it is flushed."""
        flusher = self._shared
        if flusher is None:
            flusher = self._flusher()
            lane.rest = flusher.retire
        lane.wake = partial(flusher.add, lane)

    def _begin(self, lane: Lane) -> _Rest | None:
        """Begin an append of what a lane has, and return what remains to be done; None if it must be flushed."""
        if self._prompt is None or (append := lane.freeze()) is None:
            return None
        started = time.monotonic()
        try:
            begun = self._prompt.begin_append(append)
        except StreamHubError:
            return None  # a backend that was closed, as a rule: append is told so too
        except Exception:  # a defect of the backend's; it may have begun: flushing repeats it
            logger.exception("begin_append raised what no backend may raise")
            return None
        return None if begun is None else partial(self._finish, [(lane, append)], started, begun)

    async def _flush(self, lanes: Iterable[Lane]) -> None:
        batch = [(lane, append) for lane in lanes if (append := lane.freeze()) is not None]
        if batch:
            await self._finish(batch, time.monotonic())

    async def _finish(self, batch: list[tuple[Lane, Append]], started: float, begun: _Begun | None = None) -> None:
        answers = await self._answers([append for _, append in batch], begun)
        seconds = time.monotonic() - started
        for (lane, append), answer in zip(batch, answers, strict=True):
            self._settle(lane, append, answer, seconds)

    async def _answers(self, batch: list[Append], begun: _Begun | None = None) -> Sequence[_Answer]:
        try:
            return await self._store.append(batch) if begun is None else [await begun()]
        except StreamHubError as exc:
            return [exc] * len(batch)
        except Exception as exc:  # a defect of the backend's must stop a producer, not leave it waiting
            if len(batch) > 1:  # ... and only the one it is about
                return [answer for append in batch for answer in await self._answers([append])]
            logger.exception("append raised what no backend may raise")
            return [defect(exc)]

    def _settle(self, lane: Lane, append: Append, answer: _Answer, seconds: float) -> None:
        if isinstance(answer, Appended):
            lane.stored(append)
            if self._observer is not None:
                size = sum(map(len, append.chunks))
                self._tell("append", append, count=len(append.chunks), size_bytes=size, seconds=seconds)
        elif isinstance(answer, BackendUnavailableError):
            lane.unknown(answer)
        elif isinstance(answer, DataLostError):
            recovery = self._tasks.spawn(lane.recover(answer), "recovery of a lost stream")
            recovery.add_done_callback(partial(_recovered, lane))
        else:
            if isinstance(answer, StaleGenerationError):
                self._tell("fenced_write", append, count=len(append.chunks))
            lane.refused(answer)

    def _tell(self, name: EventName, append: Append, **facts: Any) -> None:
        notify(self._observer, Event(name=name, key=append.key, generation=append.generation, **facts))


class _Flusher:
    """Runs ``flush`` for the lanes that have something, one call at a time, or what ``begin`` leaves to do instead.

    Its task waits for more until it is retired, or cancelled: a new task costs more than a wake-up.
    """

    def __init__(
        self,
        begin: Callable[[Lane], _Rest | None],
        flush: Callable[[Iterable[Lane]], Coroutine[Any, Any, None]],
        tasks: TaskOwner,
    ) -> None:
        self._begin = begin
        self._flush = flush
        self._tasks = tasks
        self._lasting = True
        self._waiting: dict[Lane, None] = {}
        self._busy: dict[Lane, None] = {}  # those whose answers the task awaits
        self._begun: _Rest | None = None
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None

    def add(self, lane: Lane) -> None:
        if self._tasks.closed:
            lane.fail(HubClosedError("the hub is closed"))
            return
        idle = self._idle
        if idle is not None and not idle.done():
            self._begun = self._begin(lane)  # on its way before the task's next turn, to which its outcome is left
            self._waiting[lane] = None
            idle.set_result(None)
            self._idle = None
            return
        if self._task is not None and self._task.done():
            self._ended(self._task)  # which the event loop would tell in its next turn
        self._waiting[lane] = None
        if idle is not None or self._task is None:  # an idle one may have been cancelled
            self._idle = None
            self._task = self._tasks.spawn(self._run(), "committer")
            self._task.add_done_callback(self._ended)

    def retire(self) -> None:
        """End when nothing waits; what comes later is flushed all the same."""
        self._lasting = False
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
            self._idle = None

    async def _run(self) -> None:
        while self._waiting or self._lasting:
            if not self._waiting:
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle
            self._busy, self._waiting = self._waiting, {}
            rest, self._begun = self._begun, None
            await (self._flush(self._busy) if rest is None else rest())
            self._busy = {}

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Look after what a task leaves that was cancelled, as all are when a program ends without closing its hub."""
        if task is not self._task:
            return  # another one has taken its place
        self._task = None
        self._lasting = False  # nobody would cancel the next one then
        left = {**self._busy, **self._waiting}
        self._busy, self._waiting, self._begun = {}, {}, None
        for lane in left:
            lane.unknown(BackendUnavailableError("the task that stores what is sent was cancelled"))


def _recovered(lane: Lane, recovery: asyncio.Task[None]) -> None:
    if recovery.cancelled() or recovery.exception() is not None:
        lane.unknown(BackendUnavailableError("the recovery of a lost stream was cancelled, or failed"))
