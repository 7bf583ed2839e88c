"""Interrupting the task inside a block, as ``asyncio.timeout`` does: cancel, uncancel, convert only one's own."""

from __future__ import annotations

import asyncio

from streamhub.errors import StreamHubError


class Interrupter:
    """Guards one block run by one task; ``interrupt`` cancels that task, at most once, while it is inside."""

    def __init__(self) -> None:
        self.cause: StreamHubError | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._cancelled = False

    def enter(self) -> None:
        """Begin the block in the current task; a cause that came before interrupts at once."""
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("a produce block must run inside a task")
        self._cancelling = self._task.cancelling()

    def interrupt(self, cause: StreamHubError) -> None:
        """Cancel the block's task, to be converted to ``cause``; the first cause stays."""
        if self.cause is not None:
            return
        self.cause = cause
        if self._task is not None and self._task is asyncio.current_task():
            # It does not wait: it may leave before it does, with this very cause, and must not be cancelled after that.
            self._task.get_loop().call_soon(self._cancel)
        else:
            self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._cancelled = True
            self._task.cancel()

    def leave(self, exc: BaseException | None) -> bool:
        """End the block; True if ``exc`` is this object's own cancellation and no outer one came as well."""
        task, self._task = self._task, None
        if task is None or not self._cancelled:
            return False
        return task.uncancel() <= self._cancelling and isinstance(exc, asyncio.CancelledError)
