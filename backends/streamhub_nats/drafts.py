"""The append that follows a record, as far as it is known before it is there.

Made while nobody waits for it: what is sent then needs little work until it is on its way.
"""

from __future__ import annotations

from streamhub.types import Append
from streamhub_nats.record import Record, write_line
from streamhub_nats.stamps import MILLISECOND
from streamhub_nats.stored import Stored, milliseconds


class Draft:
    """What may follow a record that this process has written, of a run that goes on.

    Attributes:
        base: the record.
        deadline_ns: when it expires, on the server's clock.
    """

    __slots__ = ("_before", "_behind", "_between", "_blank", "base", "deadline_ns")

    def __init__(self, base: Stored) -> None:
        last = base.record
        self.base = base
        self.deadline_ns: int = base.deadline_ns
        self._blank = Record(
            kind="append",
            generation=last.generation,
            state="open",
            first=last.first,
            tail=last.tail,
            size_bytes=last.size_bytes,
            opened_at=base.opened_at,
            opening_id=last.opening_id,
            metadata_at=base.metadata_at,
            life_ms=milliseconds(base.opening.retention.unfinished_seconds),
            fence_ms=last.fence_ms,
            until_ms=self.deadline_ns // MILLISECOND,
            marks=base.next_marks,
        )
        self._before, self._between, self._behind = write_line(self._blank)

    def suits(self, item: Append) -> bool:
        """Say whether ``line`` is made for an append: it adds chunks to a run that is not trimmed, and nothing else."""
        plain = item.metadata is None and item.end is None
        return plain and self.base.opening.retention.overflow != "trim"

    def record(self, item: Append, *, head_bytes: int = 0) -> Record:
        """Return the record of an append: void unless it is stored before the base expires."""
        # By position, for this is done for each append: by name, it takes three times as long.
        blank = self._blank
        life_ms = blank.life_ms
        if item.end is not None:
            life_ms = milliseconds(self.base.opening.retention.ended_seconds)
        return Record(
            "append",
            blank.generation,
            "open" if item.end is None else "ended",
            blank.first,
            item.last,
            blank.size_bytes + sum(map(len, item.chunks)),
            blank.opened_at,
            blank.opening_id,
            blank.metadata_at,
            life_ms,
            blank.fence_ms,
            blank.until_ms,
            item.first,
            item.nonce,
            head_bytes,
            0,
            item.end,
            blank.marks,
        )

    def line(self, item: Append) -> bytes:
        """Write the line of an append's ``record``, if it suits, as ``write_record`` does."""
        size_bytes = self._blank.size_bytes + sum(map(len, item.chunks))
        return (
            f'{self._before}{item.last},"size":{size_bytes}{self._between},"begins":{item.first}'
            f',"nonce":"{item.nonce.hex()}"{self._behind}}}\n'
        ).encode()
