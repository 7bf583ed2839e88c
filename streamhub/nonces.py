"""The nonces of appends: by them a store knows an append that is sent once more."""

from __future__ import annotations

import os
from itertools import count


class Nonces:
    """Makes values of 12 bytes that no other append has: eight are random, four count.

    Drawing all twelve from the system each time would cost a call of it for every append.
    """

    def __init__(self) -> None:
        self._prefix = os.urandom(8)
        self._numbers = count()

    def fresh(self) -> bytes:
        """Return the next one."""
        return self._prefix + (next(self._numbers) & 0xFFFFFFFF).to_bytes(4, "big")
