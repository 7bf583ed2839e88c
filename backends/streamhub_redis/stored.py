"""What a stream's hash says, as Python values; see ``lua/stream.lua`` for its fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

from streamhub.errors import UnsupportedFormatError
from streamhub.records import decode_end, decode_spans
from streamhub.types import End, Metadata, Retention, Span, StreamInfo, StreamState

FORMAT = b"1"


def write_retention(retention: Retention) -> bytes:
    """Write a retention: what scripts need of it can be read by them."""
    times = f"{retention.unfinished_seconds!r} {retention.ended_seconds!r} {retention.fence_seconds!r}"
    return f"{times} {retention.max_bytes} {retention.max_chunks or 0} {retention.overflow}".encode()


def read_retention(text: bytes) -> Retention:
    """Read what ``write_retention`` wrote."""
    unfinished, ended, fence, max_bytes, max_chunks, overflow = text.decode().split(" ")
    return Retention(
        unfinished_seconds=float(unfinished),
        ended_seconds=float(ended),
        fence_seconds=float(fence),
        max_bytes=int(max_bytes),
        max_chunks=int(max_chunks) or None,
        overflow="trim" if overflow == "trim" else "refuse",
    )


def write_metadata(metadata: Metadata | None) -> bytes:
    """Write metadata; empty for None."""
    if metadata is None:
        return b""
    return json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode()


class Stored:
    """A stream, or a fence, as it was at one moment.

    Raises:
        UnsupportedFormatError: a later release wrote it.
    """

    __slots__ = ("_fields", "state")

    def __init__(self, now_ms: int, pairs: Sequence[bytes]) -> None:
        fields = self._fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        if fields[b"format"] != FORMAT:
            raise unsupported(fields[b"format"])
        self.state: StreamState | None = self._state_at(now_ms)

    def _state_at(self, now_ms: int) -> StreamState | None:
        state = cast("StreamState", self._fields[b"state"].decode())
        late_ms = now_ms - int(self._fields[b"deadline"])
        if late_ms < 0:
            return state
        if state == "deleted" or late_ms >= self.retention.fence_seconds * 1000:
            return None
        return "expired"

    @property
    def retention(self) -> Retention:
        """How long it is kept."""
        return read_retention(self._fields[b"retention"])

    @property
    def run(self) -> str:
        """The run's name."""
        return self._fields[b"run"].decode()

    @property
    def attended(self) -> bool:
        """Whether a lease tells that a producer lives."""
        return self._fields[b"attended"] == b"1"

    @property
    def spans(self) -> tuple[Span, ...]:
        """The opens of the run."""
        return decode_spans(self._fields[b"spans"].decode())

    @property
    def tail(self) -> int:
        """Index of the last chunk."""
        return int(self._fields[b"tail"])

    @property
    def first(self) -> int:
        """Index of the first chunk kept."""
        return int(self._fields[b"first"])

    @property
    def end(self) -> End | None:
        """The end, if it has one."""
        text = self._fields.get(b"end")
        return None if text is None else decode_end(text)

    @property
    def metadata(self) -> Metadata:
        """The metadata, made anew at each call."""
        text = self._fields.get(b"metadata")
        return {} if text is None else json.loads(text)

    def info(self, key: str) -> StreamInfo | None:
        """Describe it; None if its fence too is over."""
        if self.state is None:
            return None
        fence = self.state in ("deleted", "expired")
        return StreamInfo(
            key=key,
            generation=int(self._fields[b"generation"]),
            state=self.state,
            run=self.run,
            attended=self.attended,
            spans=self.spans,
            first=self.tail + 1 if fence else self.first,
            tail=self.tail,
            size_bytes=0 if fence else int(self._fields[b"size"]),
            end=self.end,
            metadata={} if fence else self.metadata,
            retention=self.retention,
        )


def unsupported(found: bytes) -> UnsupportedFormatError:
    """Return the error for a format of a later release."""
    return UnsupportedFormatError("a stream in redis", found=found.decode("ascii", "replace"), known=FORMAT.decode())
