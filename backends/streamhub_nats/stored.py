"""A stream as its newest record tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamhub.types import Metadata, StreamInfo, StreamState
from streamhub_nats import marks
from streamhub_nats.record import Kind, Opening, Record
from streamhub_nats.stamps import MILLISECOND


def milliseconds(seconds: float) -> int:
    """Write a time as it is stored."""
    return max(1, round(seconds * 1000))


@dataclass(frozen=True, slots=True)
class Stored:
    """The newest record of a stream.

    Attributes:
        sequence: of its message.
        time_ns: when it was stored; of what this process has just written itself, not later than that.
        record: the record.
        opening: what stays the same for its generation.
    """

    sequence: int
    time_ns: int
    record: Record
    opening: Opening

    @property
    def void(self) -> bool:
        """Whether it came too late: what it should have changed had expired."""
        return 0 < self.record.until_ms * MILLISECOND < self.time_ns

    @property
    def is_fence(self) -> bool:
        """Whether nothing but a fence is stored."""
        return self.record.state in ("deleted", "expired")

    @property
    def deadline_ns(self) -> int:
        """When it expires, on the server's clock."""
        if self.void:
            return self.record.until_ms * MILLISECOND
        return self.time_ns + self.record.life_ms * MILLISECOND

    @property
    def gone_ns(self) -> int:
        """When its fence is over too."""
        since = self.time_ns if self.is_fence else self.deadline_ns
        return since + self.record.fence_ms * MILLISECOND

    def state_at(self, now_ns: int) -> StreamState | None:
        """Return the state at a moment; None once even the fence is over."""
        if not self.is_fence and not self.void and now_ns < self.deadline_ns:
            return self.record.state
        if now_ns >= self.gone_ns:
            return None
        return self.record.state if self.is_fence else "expired"

    @property
    def opened_at(self) -> int:
        """The sequence number of the record that began the generation."""
        return self.record.opened_at or self.sequence

    @property
    def metadata_at(self) -> int:
        """The sequence number of the record that has the newest metadata; 0 for the one that began the generation."""
        return self.sequence if self.record.head_bytes else self.record.metadata_at

    @property
    def next_marks(self) -> tuple[marks.Mark, ...]:
        """The marks of the record that follows."""
        record = self.record
        if not record.has_chunks:
            return record.marks
        return marks.kept(marks.after(record.marks, self.sequence, record.tail), record.first)

    @property
    def end_nonce(self) -> bytes | None:
        """The nonce stored with the end; None if there is no end."""
        return self.record.nonce if self.record.state == "ended" else None

    def info(self, key: str, now_ns: int, metadata: Metadata | None = None) -> StreamInfo | None:
        """Describe it; None once its fence is over. Metadata is not in it unless it is given."""
        state = self.state_at(now_ns)
        if state is None:
            return None
        record, opening = self.record, self.opening
        fence = state in ("deleted", "expired")
        tail = record.begins - 1 if self.void and record.begins else record.tail
        return StreamInfo(
            key=key,
            generation=record.generation,
            state=state,
            run=opening.run,
            attended=opening.attended,
            spans=opening.spans,
            first=tail + 1 if fence else record.first,
            tail=tail,
            size_bytes=0 if fence else record.size_bytes,
            end=None if self.void else record.end,
            metadata={} if fence or metadata is None else metadata,
            retention=opening.retention,
        )

    def followed_by(self, kind: Kind, **changes: Any) -> Record:
        """Return the record that may follow it: void unless it is stored before this one expires."""
        last = self.record
        facts: dict[str, Any] = {
            "generation": last.generation,
            "state": last.state,
            "first": last.first,
            "tail": last.tail,
            "size_bytes": last.size_bytes,
            "opened_at": self.opened_at,
            "opening_id": last.opening_id,
            "metadata_at": self.metadata_at,
            "life_ms": last.life_ms,
            "fence_ms": last.fence_ms,
            "until_ms": self.deadline_ns // MILLISECOND,
            "end": last.end,
            "marks": self.next_marks,
        }
        facts.update(changes)
        return Record(kind, **facts)
