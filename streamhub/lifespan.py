"""A hub for as long as an ASGI server runs: it drains when the server is told to stop, not when it has stopped.

An ASGI server that gets SIGTERM waits for open responses before it reaches the lifespan's shutdown, and an event
stream stays open for as long as its run. So the signal is heard here as well, beside the server's own handler.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Protocol, TypeAlias

from streamhub.errors import ResponseAbortedError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SERVER_LOGGERS = ("uvicorn.error", "hypercorn.error", "_granian.utils")

Handler: TypeAlias = Callable[[int, FrameType | None], object]


class Drainable(Protocol):
    """What is drained: a hub that is open."""

    async def drain(self) -> None:
        """Turn subscribers away at once, and give producers their time."""
        ...


@asynccontextmanager
async def drained(hub: Drainable) -> AsyncGenerator[None]:
    """Drain the hub at the first SIGTERM or SIGINT, in any case on leaving; return when it is drained."""
    draining = _Draining(hub)
    with _chained(draining), _aborts_logged_briefly():
        try:
            yield
        finally:
            await asyncio.shield(draining.begin())


class _Draining:
    """The draining of a hub: one task, however often it is asked for."""

    def __init__(self, hub: Drainable) -> None:
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> asyncio.Task[None]:
        """Drain, unless that is under way already."""
        if self._task is None:
            self._task = self._loop.create_task(self._hub.drain(), name="streamhub draining")
        return self._task

    def on_signal(self) -> None:
        """Begin, from a signal handler."""
        self._loop.call_soon_threadsafe(self.begin)

    def then_die(self, number: int, _: FrameType | None) -> None:
        """Do afterwards what the signal does to a process that does not handle it."""
        self._loop.call_soon_threadsafe(lambda: self.begin().add_done_callback(lambda _: _die(number)))


def _die(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


@contextmanager
def _chained(draining: _Draining) -> Generator[None]:
    """Begin draining, then call the handler that was there before, at each signal; put that one back on leaving."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals; the hub drains on leaving
        return
    inside = True
    ours: dict[signal.Signals, tuple[Handler, Handler | signal.Handlers]] = {}

    def chain(previous: Handler) -> Handler:
        def handle(number: int, frame: FrameType | None) -> None:
            if inside:
                draining.on_signal()
            previous(number, frame)

        return handle

    for number in SIGNALS:
        previous = signal.getsignal(number)
        if callable(previous):
            ours[number] = chain(previous), previous
        elif previous == signal.SIG_DFL:
            ours[number] = chain(draining.then_die), signal.SIG_DFL
    for number, (handler, _) in ours.items():
        signal.signal(number, handler)
    try:
        yield
    finally:
        inside = False  # another may have chained to ours meanwhile, and keep it
        for number, (handler, previous) in ours.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, previous)


@contextmanager
def _aborts_logged_briefly() -> Generator[None]:
    """Keep servers from logging a traceback for each response that was cut off on purpose."""

    def shorten(record: logging.LogRecord) -> bool:
        cause = _abort_in(record)
        if cause is None:
            return True
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args, record.exc_info, record.exc_text = cause, (), None, None
        return logging.getLogger(record.name).isEnabledFor(logging.INFO)

    loggers = [logging.getLogger(name) for name in SERVER_LOGGERS]
    for logger in loggers:
        logger.addFilter(shorten)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(shorten)


def _abort_in(record: logging.LogRecord) -> str | None:
    """Return why a response was cut off, if that is what a server reports."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ResponseAbortedError):
        return str(error)
    # granian formats the traceback into the message.
    _, mark, cause = str(record.msg).rpartition(f"{ResponseAbortedError.__name__}: ")
    return cause.strip() if mark and "\nTraceback " in str(record.msg) else None
