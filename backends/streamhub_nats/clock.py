"""The server's time, between two looks at it reckoned by this process's monotonic clock."""

from __future__ import annotations

import math
import time

from streamhub.errors import BackendUnavailableError
from streamhub_nats.ledger import Ledger
from streamhub_nats.stamps import SECOND, nanoseconds

FRESH_SECONDS = 5.0
"""How long a look is good for: clocks drift, and another server may lead by now."""


class Clock:
    """What the server's clock shows, within a round trip."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._earliest = 0  # the server's time at our monotonic 0, if the answer took no time to come
        self._latest = 0  # the same, if the question took none
        self._looked = -math.inf
        self._asking = False

    @property
    def fresh(self) -> bool:
        """Whether ``look`` would not ask: what is written in between need not wait for it, not even for a moment."""
        return time.monotonic() - self._looked < FRESH_SECONDS

    async def look(self) -> None:
        """Ask the server, unless that has been done just now, or somebody is about to."""
        # A thousand producers notice at once: one asks, and the others go on with what was known a moment ago.
        if self.fresh or (self._asking and time.monotonic() - self._looked < 2 * FRESH_SECONDS):
            return
        self._asking = True
        try:
            await self._ask()
        finally:
            self._asking = False

    async def _ask(self) -> None:
        sent = time.monotonic_ns()
        found = await self._ledger.information()
        received = time.monotonic_ns()
        if found is None:
            raise BackendUnavailableError(f"the JetStream stream {self._ledger.name!r} is gone")
        then = nanoseconds(found["ts"])
        self._earliest, self._latest = then - received, then - sent
        self._looked = received / SECOND

    async def now(self) -> int:
        """Return the server's time, in nanoseconds since 1970."""
        await self.look()
        return self.middle

    @property
    def middle(self) -> int:
        """It is about this. Call ``look`` first."""
        return (self._earliest + self._latest) // 2 + time.monotonic_ns()

    @property
    def earliest(self) -> int:
        """It is not earlier than this. Call ``look`` first."""
        return self._earliest + time.monotonic_ns()

    @property
    def latest(self) -> int:
        """It is not later than this. Call ``look`` first."""
        return self._latest + time.monotonic_ns()
