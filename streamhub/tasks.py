"""Tasks with an owner: every background task of a hub is in one set, which closing empties."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from streamhub.errors import HubClosedError, StreamHubError

T = TypeVar("T")
logger: logging.Logger = logging.getLogger("streamhub")


def consume(future: asyncio.Future[Any]) -> None:
    """Look at a finished future's exception, in case that nobody else does: a done callback."""
    if not future.cancelled():
        future.exception()


class TaskOwner:
    """Owns background tasks; ``aclose`` cancels and awaits what is left of them."""

    def __init__(self) -> None:
        self.closed: bool = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task; an exception nobody awaits is logged when it ends. After closing: ``HubClosedError``."""
        if self.closed:
            coroutine.close()
            raise HubClosedError("the hub is closed")
        task = asyncio.get_running_loop().create_task(coroutine, name=f"streamhub {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            # Expected outcomes reach whoever awaits the task; anything else is a defect to be seen.
            level = logging.DEBUG if isinstance(exc, StreamHubError) else logging.ERROR
            logger.log(level, "%s: %r", task.get_name(), exc, exc_info=exc)

    async def settle(self, step: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[object]], name: str) -> T:
        """Await a step that must not be left half done.

        If the caller is cancelled meanwhile, the step goes on in the background and, once it succeeds, is undone.
        """
        task = self.spawn(step, name)
        try:
            return await self.outcome(task)
        except asyncio.CancelledError:
            if not self.closed:
                self.spawn(self._undo(task, undo), f"{name}, undone")
            raise

    async def outcome(self, task: asyncio.Task[T]) -> T:
        """Await a task of this owner's without cancelling it when the caller is cancelled.

        If it was this owner's closing that cancelled the task, the caller gets ``HubClosedError``.
        """
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if task.cancelled() and not (current and current.cancelling()):
                raise HubClosedError("the hub is closed") from None
            raise

    async def _undo(self, task: asyncio.Task[T], undo: Callable[[T], Awaitable[object]]) -> None:
        try:
            result = await task
        except StreamHubError:
            return
        await undo(result)

    async def aclose(self) -> None:
        """Cancel all tasks and wait until they have ended; none can be started any more."""
        self.closed = True
        # Cancelled before its first step, a task would do nothing at all, not even tell those who wait for it.
        await asyncio.sleep(0)
        while tasks := self._tasks - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
