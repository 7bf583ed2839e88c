"""When streams may have expired: one queue for each length of life, so that only its head needs to be looked at.

Streams are not found by their deadlines: each append moves them. Before a run begins, and when it ends, a message is
put at the end of the queue of its life (``sh.<ns>.d.<life>.<key>``). The oldest message of a queue comes to its time
first. Then the stream itself is looked at: it is removed, or put into the queue of the life that is left.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import NamedTuple

from streamhub.errors import BackendUnavailableError
from streamhub_nats.ledger import Message, OvertakenError
from streamhub_nats.session import ATTEMPTS, Session
from streamhub_nats.stamps import MILLISECOND

_AGAIN = b"again"
_AT_ONCE = 64
_SHORTEST_MS = 100
_BATCH_BYTES = 256 * 1024


class Due(NamedTuple):
    """A stream that may have expired."""

    key: str
    sequence: int
    seen_before: bool


def life_of(milliseconds: int) -> int:
    """Return the queue for a time: two digits of it, and zeros; never longer, so that nothing is found late."""
    milliseconds = max(milliseconds, _SHORTEST_MS)
    unit = 10 ** (len(str(milliseconds)) - 2)
    return milliseconds // unit * unit


class Agenda:
    """The queues of one namespace."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ledger = session.streams
        self._lives: set[int] = set()

    async def arm(self, key: str, milliseconds: int, *, again: bool = False) -> None:
        """Have a stream looked at after a while."""
        life = life_of(milliseconds)
        if life not in self._lives:
            await self._add(life)
        await self._ledger.put(self._session.names.due(life, key), _AGAIN if again else b"")

    async def disarm(self, key: str, *milliseconds: int, before: int) -> None:
        """Take a stream out of the queues of some lives, unless it was put there after a sequence number.

        A run that begins behind a fence is put there behind that fence, and perhaps before this is called.
        """
        for life in {life_of(each) for each in milliseconds}:
            entry = await self._ledger.last(self._session.names.due(life, key))
            if entry is not None and entry.sequence < before:
                await self._ledger.erase(entry.sequence)

    async def drop(self, due: Due) -> None:
        """Take an entry out of its queue, unless it has been put there anew."""
        await self._ledger.erase(due.sequence)

    async def _add(self, life: int) -> None:
        for _ in range(ATTEMPTS):
            found = await self._ledger.last(self._session.names.lives)
            lives = _lives(found)
            if life not in lives:
                data = json.dumps(sorted({*lives, life})).encode()
                try:
                    after = 0 if found is None else found.sequence
                    await self._ledger.write(self._session.names.lives, data, after=after, alone=True)
                except OvertakenError:
                    continue
            self._lives.add(life)
            return
        raise BackendUnavailableError("the list of lives is being changed all the time: it is tried again")

    async def due(self, now_ns: int) -> AsyncIterator[Due]:
        """Yield the streams whose entries have come to their time, each once."""
        lives = _lives(await self._ledger.last(self._session.names.lives))
        self._lives &= set(lives)  # someone may have emptied the server
        for life in lives:
            async for entry in self._heads(life, now_ns):
                yield Due(self._session.names.key_of(entry.subject), entry.sequence, entry.data == _AGAIN)

    async def _heads(self, life: int, now_ns: int) -> AsyncIterator[Message]:
        pattern = self._session.names.due_filter(life)
        latest = now_ns - life * MILLISECOND
        start, count = 1, 1
        while entries := await self._ledger.run(start, pattern, count=count, max_bytes=_BATCH_BYTES):
            for entry in entries:
                if entry.time_ns > latest:
                    return
                yield entry
            start, count = entries[-1].sequence + 1, _AT_ONCE


def _lives(message: Message | None) -> list[int]:
    return [] if message is None else json.loads(message.data)
