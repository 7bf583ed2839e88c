"""Many small questions at once, but not all at once; and one task that many wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from streamhub.errors import HubClosedError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

AT_ONCE = 64


async def concurrently(items: Sequence[Item], call: Callable[[Item], Awaitable[Answer]]) -> list[Answer]:
    """Return what ``call`` answers for each item, in order; the first error ends the others and is raised."""
    if len(items) == 1:
        return [await call(items[0])]
    answers: list[Answer] = []
    for start in range(0, len(items), AT_ONCE):
        some = items[start : start + AT_ONCE]
        tasks = [asyncio.ensure_future(call(item)) for item in some]
        try:
            answers += await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return answers


async def awaited(task: asyncio.Task[Answer]) -> Answer:
    """Return what a task returns that others wait for as well: cancelling the caller spares it.

    Raises:
        HubClosedError: the task was cancelled, which only closing does. The caller was not.
    """
    await asyncio.wait([task])
    if task.cancelled():
        raise HubClosedError("the nats backend is closed")
    return task.result()
