"""The data that crosses streamhub's borders: what a user sees and what a backend stores and answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from streamhub.errors import InvalidOffsetError

Metadata: TypeAlias = Mapping[str, Any]
"""A JSON object: text keys, JSON values, at most 64 KiB when written compactly."""

EndState: TypeAlias = Literal["completed", "failed", "cancelled"]
"""How a run ended. Abandoned is no such state: it is never stored."""

StreamState: TypeAlias = Literal["open", "ended", "deleted", "expired"]
"""What is stored of a stream: a run without or with its end, or the fence that one left."""

Overflow: TypeAlias = Literal["refuse", "trim"]
"""What happens at a run's caps: its producer gets ``LimitExceededError``, or its oldest chunks go."""

_OFFSET = re.compile(r"(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})")
_MAX = 2**63 - 1


class Offset(NamedTuple):
    """A chunk's position, written ``"7-42"``; later chunks of a run compare greater.

    The text has at most 39 characters, all URL-safe, and is never a reserved word.
    """

    generation: int
    index: int  # pyright: ignore[reportIncompatibleMethodOverride] - nobody searches an offset

    @classmethod
    def parse(cls, text: str) -> Offset:
        """Read an offset from its text.

        Raises:
            InvalidOffsetError: the text is not exactly what ``str(offset)`` writes.
        """
        match = _OFFSET.fullmatch(text)
        if match is None:
            raise InvalidOffsetError(f"offset {text!r} is malformed: expected 'generation-index', as in '7-42'")
        offset = cls(int(match[1]), int(match[2]))
        if offset.generation < 1 or offset.generation > _MAX or offset.index > _MAX:
            raise InvalidOffsetError(
                f"offset {text!r} is out of range: generations begin at 1, numbers end at 2**63 - 1"
            )
        return offset

    def __str__(self) -> str:
        return f"{self.generation}-{self.index}"


@dataclass(frozen=True, slots=True)
class Chunk:
    """One payload as it was sent, with its position."""

    offset: Offset
    data: bytes

    @property
    def text(self) -> str:
        """The payload as strict UTF-8; ``UnicodeDecodeError`` (a ``ValueError``) if it is not."""
        return self.data.decode("utf-8")

    def json(self) -> Any:
        """The payload parsed as JSON; ``ValueError`` if it is not."""
        return json.loads(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The last record of a run. ``completed``, ``failed(code, message)`` or ``cancelled(reason, requested_by)``."""

    state: EndState
    code: str | None = None
    message: str | None = None
    reason: str | None = None
    requested_by: str | None = None


COMPLETED = End(state="completed")


class Span(NamedTuple):
    """One open of a run: ``generation`` writes the indexes from ``first`` on, up to the next span's."""

    generation: int
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long a stream is kept and how large a run may grow. Seconds are the server's.

    Attributes:
        unfinished_seconds: life of an un-ended run after its last append or renewal.
        ended_seconds: life of a run after its end.
        fence_seconds: life of the fence that delete and expiry leave behind.
        max_bytes: cap on the payload bytes kept of one run.
        max_chunks: cap on the chunks kept of one run; None for no cap.
        overflow: ``refuse`` an append beyond a cap, or ``trim`` the oldest chunks (the newest always stays).
    """

    unfinished_seconds: float = 86_400.0
    ended_seconds: float = 3_600.0
    fence_seconds: float = 86_400.0
    max_bytes: int = 64 * 1024 * 1024
    max_chunks: int | None = None
    overflow: Overflow = "refuse"


class Seen(NamedTuple):
    """What a decision to open rests on: the generation and state of one describe."""

    generation: int
    state: StreamState


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """A stream at one moment, its fence included (``state`` deleted or expired).

    Attributes:
        spans: the opens of the run, oldest first; ``spans[0].generation`` identifies the run.
        first: index of the first chunk still kept; ``tail + 1`` when none is.
        tail: index of the last chunk; 0 before the first one.
        size_bytes: payload bytes kept.
        attended: False when many writers share the generation and no lease tells whether one lives.
        end: the stored end. A deleted or expired stream keeps it in its fence.
    """

    key: str
    generation: int
    state: StreamState
    run: str
    attended: bool
    spans: tuple[Span, ...]
    first: int
    tail: int
    size_bytes: int
    end: End | None
    metadata: Metadata
    retention: Retention

    @property
    def seen(self) -> Seen:
        """The pair that ``open(expect=…)`` compares."""
        return Seen(self.generation, self.state)


class Append(NamedTuple):
    """Chunks, metadata and end to store in one atomic step.

    ``chunks`` begin at index ``first``; at least one chunk or an end. ``metadata`` None keeps what is stored.
    ``nonce`` is fresh for each append, frozen for its retries and stored with the record.

    A tuple, as is a change: to make a frozen dataclass takes twice as long, and each chunk meets both on its way.
    """

    key: str
    generation: int
    first: int
    chunks: tuple[bytes, ...]
    nonce: bytes
    metadata: Metadata | None = None
    end: End | None = None

    @property
    def last(self) -> int:
        """Index of the last chunk; ``first - 1`` for an end alone."""
        return self.first + len(self.chunks) - 1


@dataclass(frozen=True, slots=True)
class Appended:
    """An append is stored; ``tail`` is the index of its last chunk."""

    tail: int


@dataclass(frozen=True, slots=True)
class Read:
    """A request for the chunks after ``after_index``; a page ends at either bound, but never before one chunk."""

    key: str
    after_index: int
    max_chunks: int = 1024
    max_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one read found.

    ``chunks`` are contiguous, of one run, and begin at ``after_index + 1``; empty when that index is not
    stored (yet, or any more). The rest may be newer than the chunks, of the same run: when ``end`` is set,
    ``tail`` is its last index.
    """

    run: str
    attended: bool
    spans: tuple[Span, ...]
    chunks: tuple[bytes, ...]
    first: int
    tail: int
    end: End | None
    metadata: Metadata


class Change(NamedTuple):
    """A hint that a stream may have changed: ``key`` None means that any may have.

    ``append`` may carry what was stored, so that a reader at its edge needs no read.
    """

    key: str | None
    append: Append | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A producer's time-limited right to run. ``owner`` is the nonce of the acquire call that won it."""

    key: str
    generation: int
    owner: str
    run: str
    ttl_seconds: float


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease now. ``expires_in`` is in seconds and greater than 0."""

    generation: int
    run: str
    expires_in: float


class RunRef(NamedTuple):
    """A run of a stream: what a cancel is addressed to."""

    key: str
    run: str


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """A stored request that a run stop."""

    key: str
    run: str
    reason: str | None = None
    requested_by: str | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """``start`` opened the run: its task runs in this hub."""

    key: str
    run: str
    generation: int


@dataclass(frozen=True, slots=True)
class Joined:
    """``start`` found the run already being produced: subscribe to it."""

    key: str
    run: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelResult:
    """What a cancel came to.

    ``cancelled``: this call's request, and a ``cancelled`` end, are stored. ``requested``: the request is stored, the
    end is not (yet). ``ended``: the run had ended before (see ``end``), or ended otherwise meanwhile. ``nothing``: no
    run was named and none was running.
    """

    state: Literal["cancelled", "requested", "ended", "nothing"]
    run: str | None = None
    end: End | None = field(default=None)
