"""Tasks of connections: two halves of one that do not outlive each other, and how tasks end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first_failure(*halves: Coroutine[Any, Any, None]) -> None:
    """Run coroutines that end by an error only, until the first one does; the others are cancelled, and it is raised.

    Cancelled itself, all are.
    """
    tasks = [asyncio.create_task(half) for half in halves]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        errors = await _end(tasks)
    for error in errors:
        raise error


async def _end(tasks: list[asyncio.Task[None]]) -> list[BaseException]:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    errors = [None if task.cancelled() else task.exception() for task in tasks]
    return [error for error in errors if error is not None]


async def end_task(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it is done."""
    task.cancel()
    await asyncio.wait([task])


def consume(task: asyncio.Task[None]) -> None:
    """Look at how a task ended, in case that nobody else does: a done callback."""
    if not task.cancelled():
        task.exception()
