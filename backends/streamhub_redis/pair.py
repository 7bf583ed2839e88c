"""Two halves of one connection's life: neither outlives the other."""

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
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
