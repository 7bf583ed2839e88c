"""Riding out an unreachable backend: repeat an idempotent call, with growing pauses, for a bounded time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from streamhub.errors import BackendUnavailableError

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0
SHORTEST_PAUSE_SECONDS = 0.005
"""How long to wait, at least, for a lease that is about to run out: asking at once would only spin."""


class Outage:
    """One caller's view of an outage: how long it has lasted, and how long to pause before the next attempt."""

    def __init__(self, limit_seconds: float) -> None:
        self._limit = limit_seconds
        self._since: float | None = None
        self._pause = FIRST_PAUSE_SECONDS

    def over(self) -> None:
        """Note a success."""
        self._since = None
        self._pause = FIRST_PAUSE_SECONDS

    def pause(self, error: BackendUnavailableError) -> float:
        """Note a failure and return the seconds to pause; raise ``error`` once the outage has lasted too long."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        left = self._since + self._limit - now
        if left <= 0:
            raise error
        pause = min(self._pause * random.uniform(0.5, 1.0), left)
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        return pause


async def ride(call: Callable[[], Awaitable[T]], limit_seconds: float) -> T:
    """Repeat ``call`` while it raises ``BackendUnavailableError``, until that has lasted ``limit_seconds``."""
    outage = Outage(limit_seconds)
    while True:
        try:
            return await call()
        except BackendUnavailableError as exc:
            await asyncio.sleep(outage.pause(exc))
