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
from functools import partial
from types import FrameType
from typing import Protocol, TypeAlias

from streamhub.errors import ResponseAbortedError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SERVER_LOGGERS = ("uvicorn.error", "hypercorn.error", "_granian")

Handler: TypeAlias = Callable[[int, FrameType | None], object]


class Drainable(Protocol):
    """What is drained: a hub that is open."""

    async def drain(self) -> None:
        """Turn subscribers away at once, and give producers their time."""
        ...


@asynccontextmanager
async def drained(hub: Drainable) -> AsyncGenerator[None]:
    """Drain the hub at the first SIGTERM or SIGINT, in any case on leaving; return when it is drained."""
    loop = asyncio.get_running_loop()
    draining: list[asyncio.Task[None]] = []

    def drain() -> asyncio.Task[None]:
        if not draining:
            draining.append(loop.create_task(hub.drain(), name="streamhub draining"))
        return draining[0]

    with _chained(partial(loop.call_soon_threadsafe, drain)), _aborts_logged_briefly():
        try:
            yield
        finally:
            await asyncio.shield(drain())


@contextmanager
def _chained(call: Callable[[], object]) -> Generator[None]:
    """Call this, then the handler that was there before, at each signal; put that one back on leaving."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals; the hub drains on leaving
        return
    inside = True
    ours: dict[signal.Signals, tuple[Handler, Handler]] = {}

    def chain(previous: Handler) -> Handler:
        def handle(number: int, frame: FrameType | None) -> None:
            if inside:
                call()
            previous(number, frame)

        return handle

    for number in SIGNALS:
        previous = signal.getsignal(number)
        if callable(previous):  # else nobody shuts down gracefully: the signal does what it did
            ours[number] = chain(previous), previous
            signal.signal(number, ours[number][0])
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
        cause = record.exc_info[1] if record.exc_info else None
        if isinstance(cause, ResponseAbortedError):
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.msg, record.args, record.exc_info, record.exc_text = str(cause), (), None, None
            return logging.getLogger(record.name).isEnabledFor(logging.INFO)
        return True

    loggers = [logging.getLogger(name) for name in SERVER_LOGGERS]
    for logger in loggers:
        logger.addFilter(shorten)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(shorten)
