"""How much of what is stored may be on its way to this process at once.

A server sends an answer as fast as it can read it, however slowly the link takes it. What it has not got rid of in time
holds up all other answers, until calls end without theirs, and in the end the server drops the connection. So no more
is asked for at once than a slow link takes in a second or two, and less after an answer has failed to come.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Self

from streamhub.errors import BackendUnavailableError

WIDEST_BYTES = 1024 * 1024
NARROWEST_BYTES = 64 * 1024

_UNKNOWN_BYTES = 64 * 1024
"""How large messages are taken to be before one was seen."""

WIDEN_SECONDS = 30.0
"""How long after a failure, or after the last step, twice as much is tried."""


class Flow:
    """Gives room to answers, in the order in which it is asked for."""

    def __init__(self) -> None:
        self._window = WIDEST_BYTES
        self._changed = time.monotonic()
        self._taken = 0
        self._came = 0  # how many answers
        self._usual = _UNKNOWN_BYTES
        self._waiting: deque[tuple[Room, asyncio.Future[None]]] = deque()

    def room(self, most_bytes: int = 0) -> Room:
        """Return room for a message of the size that they have had of late, behind others of ``most_bytes``."""
        return Room(self, most_bytes, self._usual)

    def saw(self, size_bytes: int) -> None:
        """Note the size of a message."""
        self._usual = max(size_bytes, self._usual * 15 // 16)

    async def enter(self, room: Room) -> None:
        """Wait until an answer may come; who is cancelled meanwhile has left.

        Raises:
            BackendUnavailableError: an answer before it has not come, nor has any other since.
        """
        if self._window < WIDEST_BYTES and time.monotonic() - self._changed > WIDEN_SECONDS:
            self._window, self._changed = 2 * self._window, time.monotonic()
        if not self._waiting and self._fits(room):
            self._admit(room)
            return
        admitted = asyncio.get_running_loop().create_future()
        self._waiting.append((room, admitted))
        try:
            await admitted
        except asyncio.CancelledError as exc:
            if not admitted.cancelled() and admitted.exception() is None:
                self.leave(room, exc)
            raise

    def _fits(self, room: Room) -> bool:
        """Say whether there is room now; no answer may be asked to be larger than all that may be on its way."""
        room.most_bytes = min(room.most_bytes, self._window)
        return not self._taken or self._taken + room.size_bytes <= self._window

    def _admit(self, room: Room) -> None:
        self._taken += room.size_bytes
        room.since, room.came = time.monotonic(), self._came

    def leave(self, room: Room, error: BaseException | None) -> None:
        """Note that an answer has come, or will not, and let in who fits then; only an outage narrows the way."""
        self._taken -= room.size_bytes
        if error is None:
            self._came += 1
        elif isinstance(error, BackendUnavailableError):
            self._failed(room, error)
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            following, admitted = self._waiting.popleft()
            if not admitted.done():
                self._admit(following)
                admitted.set_result(None)

    def _failed(self, room: Room, error: BackendUnavailableError) -> None:
        if room.since >= self._changed:  # those that failed together count once
            self._window = max(self._window // 2, NARROWEST_BYTES)
            self._changed = time.monotonic()
        if room.came == self._came:
            # Nothing has come since it was asked for: whoever waits behind it would wait as long, one after the other.
            for _, admitted in self._waiting:
                if not admitted.done():
                    admitted.set_exception(BackendUnavailableError(str(error)))


class Room:
    """Room for one answer, inside the block.

    Attributes:
        most_bytes: after so much, the answer must end with the message that is on its way.
        single_bytes: how large that message is expected to be.
        since: when it was entered, on the monotonic clock.
        came: how many answers had come by then.
    """

    __slots__ = ("_flow", "came", "most_bytes", "since", "single_bytes")

    def __init__(self, flow: Flow, most_bytes: int, single_bytes: int) -> None:
        self._flow = flow
        self.most_bytes = most_bytes
        self.single_bytes = single_bytes
        self.since = 0.0
        self.came = 0

    @property
    def size_bytes(self) -> int:
        """How much it takes, as far as is known."""
        return self.most_bytes + self.single_bytes

    async def __aenter__(self) -> Self:
        await self._flow.enter(self)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._flow.leave(self, error)
