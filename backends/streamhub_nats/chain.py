"""The chain of a stream's records: each is written only behind the one that its writer has seen.

That is the whole of the fencing. A record that begins a generation is such a record too, so whoever has not seen it can
write nothing any more.
"""

from __future__ import annotations

import json

from streamhub.errors import BackendUnavailableError, StreamExpiredError
from streamhub.types import Metadata
from streamhub_nats import marks
from streamhub_nats.drafts import Draft
from streamhub_nats.ledger import HEADER_BYTES, Message
from streamhub_nats.recent import Recent
from streamhub_nats.record import Opening, Record, read_opening, read_record, write_record
from streamhub_nats.session import ATTEMPTS, Session
from streamhub_nats.stamps import MILLISECOND
from streamhub_nats.stored import Stored

_OPENINGS = 1024
_TAILS = 4096
_METADATA = 256


class Chain:
    """The records of all streams in one namespace."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.clock = session.clock(session.streams)
        self.tails: Recent[str, Draft] = Recent(_TAILS)  # what this process wrote last
        self._ledger = session.streams
        self._openings: Recent[tuple[int, str], Opening] = Recent(_OPENINGS)
        self._metadata: Recent[tuple[int, str], Metadata] = Recent(_METADATA)

    async def load(self, key: str) -> tuple[Stored, bytes] | None:
        """Return the newest record of a stream and its body; None if there is none."""
        subject = self.session.names.stream(key)
        for _ in range(ATTEMPTS):
            message = await self._ledger.last(subject)
            if message is None:
                return None
            record, body = read_record(message.data)
            opening = await self._opening(message, record, body)
            if opening is not None:
                return Stored(message.sequence, message.time_ns, record, opening), body
        raise crowded(key)

    async def stored(self, key: str) -> Stored | None:
        """Return the newest record of a stream."""
        found = await self.load(key)
        return None if found is None else found[0]

    async def _opening(self, message: Message, record: Record, body: bytes) -> Opening | None:
        """Return what began a generation; None if it is gone, because a new run has taken its place."""
        name = (record.opened_at or message.sequence, record.opening_id)
        known = self._openings.get(name)
        if known is not None:
            return known
        if record.opened_at:
            first = await self._ledger.at(record.opened_at)
            if first is None:
                return None
            begun, body = read_record(first.data)
            if begun.opening_id != record.opening_id:
                return None
        opening = read_opening(body)
        self._openings.put(name, opening)
        return opening

    async def metadata(self, stored: Stored) -> Metadata | None:
        """Return the newest metadata; None if it is gone, because a new run has taken its place."""
        if not stored.metadata_at:
            return stored.opening.metadata
        name = (stored.metadata_at, stored.record.opening_id)
        known = self._metadata.get(name)
        if known is not None:
            return known
        message = await self._ledger.at(stored.metadata_at)
        if message is None:
            return None
        record, body = read_record(message.data)
        if record.parts_at:
            body = await self.body(stored.record.opening_id, message, record, body)
        found = read_metadata(record, body)
        self._metadata.put(name, found)
        return found

    async def body(self, key_or_id: str, message: Message, record: Record, body: bytes) -> bytes:
        """Return the whole body of a record: its parts, and what it has itself."""
        pieces: list[bytes] = []
        sequence = record.parts_at
        while record.parts_at and sequence < message.sequence:
            found = await self._ledger.next(sequence, message.subject)
            if found is None or found.sequence > message.sequence:
                raise BackendUnavailableError(f"parts of a record are gone: it is read again ({key_or_id})")
            if found.sequence < message.sequence:
                pieces.append(read_record(found.data)[1])
            sequence = found.sequence + 1
        return b"".join((*pieces, body))

    async def locate(self, stored: Stored, index: int) -> tuple[Message | None, Record] | None:
        """Find the record that holds a chunk; None if it is not there.

        Returns:
            Its message, None if it is the newest record itself; and the record.
        """
        message: Message | None = None
        record = stored.record
        for _ in range(ATTEMPTS):
            if record.has_chunks and record.begins <= index <= record.tail:
                return message, record
            mark = marks.before(record.marks, index)
            if mark is None:
                return None
            message = await self._ledger.at(mark.sequence)
            if message is None:
                return None
            record = read_record(message.data)[0]
        return None

    async def write(
        self,
        key: str,
        record: Record,
        body: bytes = b"",
        *,
        base: Stored | None,
        opening: Opening,
        alone: bool = False,
        ttl_seconds: float | None = None,
    ) -> Stored:
        """Write a record behind ``base``, or none; all or nothing, whatever its size.

        Raises:
            OvertakenError: ``base`` is not the newest record.
            StreamExpiredError: it was stored too late, and is void.
        """
        if not self.clock.fresh:
            await self.clock.look()
        subject = self.session.names.stream(key)
        after = 0 if base is None else base.sequence
        data = write_record(record, body)
        room = (await self.session.server.channel()).client.max_payload - len(subject) - HEADER_BYTES
        if len(data) > room and base is not None and record.kind == "append":
            after, record, data = await self._write_parts(subject, record, body, base, room)
        earliest = self.clock.earliest
        sequence = await self._ledger.write(subject, data, after=after, alone=alone, ttl_seconds=ttl_seconds)
        await self.check_in_time(key, sequence, record)
        stored = Stored(sequence, earliest, record, opening)
        if record.kind == "open":
            self._openings.put((sequence, record.opening_id), opening)
        return stored

    async def _write_parts(
        self, subject: str, record: Record, body: bytes, base: Stored, room: int
    ) -> tuple[int, Record, bytes]:
        """Write all of a body but its end, and return what follows it: nothing of it shows until that is stored."""
        line = len(write_record(record._replace(parts_at=2**53, head_bytes=2**53)))
        part = base.followed_by("part")
        most = room - max(line, len(write_record(part)))
        if most < 1:
            raise BackendUnavailableError(f"the server's max_payload leaves no room for a record of {len(body)} bytes")
        after, first, start = base.sequence, 0, 0
        while len(body) - start > most:
            piece = write_record(part, body[start : start + most])
            after = await self._ledger.write(subject, piece, after=after)
            first, start = first or after, start + most
        record = record._replace(parts_at=first)
        return after, record, write_record(record, body[start:])

    async def check_in_time(self, key: str, sequence: int, record: Record) -> None:
        """Raise ``StreamExpiredError`` if a record that has been written was stored too late, and is void."""
        if not self.clock.fresh:
            await self.clock.look()
        if not record.until_ms or self.clock.latest <= record.until_ms * MILLISECOND:
            return
        message = await self._ledger.at(sequence)
        # If it is gone again somebody has found it void, or has begun a new run behind it: the reader will see.
        if message is not None and message.time_ns > record.until_ms * MILLISECOND:
            raise StreamExpiredError(key)

    async def now(self) -> int:
        """Return the server's time, in nanoseconds since 1970."""
        return await self.clock.now()


def read_metadata(record: Record, body: bytes) -> Metadata:
    """Return the metadata in the body of an append."""
    return json.loads(body[: record.head_bytes])


def crowded(key: str) -> BackendUnavailableError:
    """Return the error for a stream that changes faster than it can be looked at."""
    return BackendUnavailableError(f"stream {key!r} is being changed all the time: it is tried again")
