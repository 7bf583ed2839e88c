"""Waiting for what a case expects: bounded, by events or by asking again, never by a sleep that hopes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

SLACK = 5.0
"""A bound that the contract states may be asserted with this factor."""

PATIENCE_SECONDS = 20.0
"""How long a case waits for what has no bound in the contract, before it fails instead of hanging."""


async def eventually(
    probe: Callable[[], Awaitable[T]], accept: Callable[[T], object] = bool, *, within: float = PATIENCE_SECONDS
) -> T:
    """Ask until the answer is accepted, and return it.

    Raises:
        AssertionError: no answer was accepted in ``within`` seconds; names the last one.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        answer = await probe()
        if accept(answer):
            return answer
        if loop.time() > deadline:
            raise AssertionError(f"not in {within:g} s; the last answer was {answer!r}")
        await asyncio.sleep(0.02)


async def settle(turns: int = 10) -> None:
    """Give other tasks of the loop some turns; for races that are looked for, never to wait for an outcome."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def after_turns(turns: int, call: Awaitable[T]) -> T:
    """Await a call, some turns of the loop later: one side of a race."""
    await settle(turns)
    return await call
