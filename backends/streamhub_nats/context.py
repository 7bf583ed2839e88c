"""Where a backend may be used: open, in the process and the event loop that opened it."""

from __future__ import annotations

import asyncio
import os

from streamhub.errors import HubClosedError, HubContextError


class Context:
    """Remembers who connected."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = False

    def enter(self) -> None:
        """Note that this process and loop connect."""
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._open = True

    def leave(self) -> None:
        """Note that it is closed."""
        self._open = False

    @property
    def entered(self) -> bool:
        """True between connecting and closing."""
        return self._open

    def check(self) -> None:
        """Raise unless the backend is open, and this is where it was opened."""
        if os.getpid() != self._pid:
            raise HubContextError("a nats backend was used after a fork: open one in each process")
        if not self._open:
            raise HubClosedError("the nats backend is not open")
        if asyncio.get_running_loop() is not self._loop:
            raise HubContextError("a nats backend was used from another event loop: open one in each loop")
