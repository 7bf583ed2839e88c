"""What the three protocols promise, as plain dicts and lists: slow, obvious, and written without ``streamhub.rules``.

Every method answers what a backend must answer: a value, or the error it must raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streamhub.errors import (
    DataLostError,
    LeaseHeldError,
    LimitExceededError,
    OffsetConflictError,
    OpenConflictError,
    StaleGenerationError,
    StreamDeletedError,
    StreamEndedError,
    StreamExpiredError,
    StreamHubError,
    StreamNotFoundError,
    StreamUnfinishedError,
)
from streamhub.types import (
    Append,
    Appended,
    CancelRequest,
    End,
    Holder,
    Lease,
    Metadata,
    Page,
    Read,
    Retention,
    RunRef,
    Seen,
    Span,
    StreamInfo,
    StreamState,
)


@dataclass
class OpenCall:
    """The arguments of one ``StreamStore.open``."""

    key: str
    generation: int
    owner: str
    run: str
    expect: Seen | None
    resume: bool
    attended: bool
    metadata: Metadata | None
    retention: Retention

    @property
    def arguments(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("key", "generation")}


@dataclass
class ModelStream:
    """A stream as it was left; its state also depends on the time."""

    generation: int
    owner: str
    run: str
    attended: bool
    retention: Retention
    metadata: Mapping[str, Any]
    expires: float
    spans: list[Span] = field(default_factory=list)
    first: int = 1
    tail: int = 0
    chunks: dict[int, bytes] = field(default_factory=dict)
    nonces: dict[int, bytes] = field(default_factory=dict)
    end: End | None = None
    end_nonce: bytes | None = None
    fenced_until: float | None = None  # of a deleted one
    swept: bool = False

    @property
    def gone(self) -> float:
        """When even the fence is over."""
        return self.expires + self.retention.fence_seconds if self.fenced_until is None else self.fenced_until

    def state(self, now: float) -> StreamState:
        if self.fenced_until is not None:
            return "deleted"
        if now > self.expires:
            return "expired"
        return "open" if self.end is None else "ended"

    def data(self) -> bytes:
        return b"".join(self.chunks[index] for index in range(self.first, self.tail + 1))


class Model:
    """The whole system at ``now``. Times never fall together with a deadline: that moment is left open."""

    def __init__(self) -> None:
        self.now = 0.0
        self.streams: dict[str, ModelStream] = {}
        self.leases: dict[str, tuple[Lease, float]] = {}
        self.requests: dict[RunRef, tuple[CancelRequest, float]] = {}
        self.given: dict[str, int] = {}

    # The store.

    def stream(self, key: str) -> ModelStream | None:
        """Return what is there, fences included, until they are outlived."""
        stream = self.streams.get(key)
        return None if stream is None or self.now > stream.gone else stream

    def seen(self, key: str) -> Seen | None:
        stream = self.stream(key)
        return None if stream is None else Seen(stream.generation, stream.state(self.now))

    def fence(self, key: str) -> StreamHubError | None:
        seen = self.seen(key)
        if seen is not None and seen.state == "deleted":
            return StreamDeletedError(key)
        if seen is not None and seen.state == "expired":
            return StreamExpiredError(key)
        return None

    def open(self, call: OpenCall) -> StreamInfo | StreamHubError:
        key, stream = call.key, self.stream(call.key)
        if stream is not None:
            if call.generation < stream.generation:
                return StaleGenerationError(key, generation=call.generation, current=stream.generation)
            if call.generation == stream.generation:
                if call.owner != stream.owner:
                    return StaleGenerationError(key, generation=call.generation, current=stream.generation)
                return self.fence(key) or self.describe(key)
        seen = self.seen(key)
        if seen != call.expect:
            return OpenConflictError(key, found=seen)
        running = stream if seen is not None and seen.state == "open" else None
        if call.resume and (running is None or running.run != call.run):
            return OpenConflictError(key, found=seen)
        if running is not None and running.attended and not call.attended:
            return StreamUnfinishedError(key, running.run)
        if not call.resume or running is None:
            running = ModelStream(call.generation, call.owner, call.run, call.attended, call.retention, {}, 0)
        running.generation, running.owner, running.attended = call.generation, call.owner, call.attended
        running.retention = call.retention
        running.spans.append(Span(call.generation, running.tail + 1))
        if call.metadata is not None:
            running.metadata = call.metadata
        running.expires = self.now + call.retention.unfinished_seconds
        self.streams[key] = running
        return self.describe(key)

    def describe(self, key: str, *, touch: bool = False) -> StreamInfo:
        """Describe what is there; of a fence only generation, state, run and end mean anything."""
        stream = self.stream(key)
        assert stream is not None
        if touch and stream.state(self.now) == "open":
            stream.expires = max(stream.expires, self.now + stream.retention.unfinished_seconds)
        return StreamInfo(
            key=key,
            generation=stream.generation,
            state=stream.state(self.now),
            run=stream.run,
            attended=stream.attended,
            spans=tuple(stream.spans),
            first=stream.first,
            tail=stream.tail,
            size_bytes=len(stream.data()),
            end=stream.end,
            metadata=stream.metadata,
            retention=stream.retention,
        )

    def append(self, append: Append) -> list[Appended | StreamHubError]:
        """Store an append; answer what is allowed as an answer (several only for what was trimmed)."""
        key, stream = append.key, self.stream(append.key)
        if stream is None:
            return [DataLostError(key, "")]
        fence = self.fence(key)
        if fence is not None:
            return [fence]
        if append.generation < stream.generation:
            return [StaleGenerationError(key, generation=append.generation, current=stream.generation)]
        if append.generation > stream.generation:
            return [DataLostError(key, "")]
        again: list[Appended | StreamHubError] = []
        if append.nonce in (stream.end_nonce, stream.nonces.get(append.first)):
            again.append(Appended(append.last))
            trimmed = append.first < stream.first and append.first != max(stream.nonces)
            if append.nonce == stream.end_nonce or not trimmed:
                return again
        if stream.end is not None:
            return [*again, StreamEndedError(key, stream.end, run=stream.run)]
        if append.first != stream.tail + 1:
            return [*again, OffsetConflictError(key, first=append.first, tail=stream.tail)]
        over = self._over(stream, append)
        if over is not None:
            return [over]
        self._store(stream, append)
        return [Appended(append.last)]

    def _over(self, stream: ModelStream, append: Append) -> StreamHubError | None:
        retention = stream.retention
        if retention.overflow == "trim" or not append.chunks:
            return None
        if len(stream.data()) + len(b"".join(append.chunks)) > retention.max_bytes:
            return LimitExceededError(append.key, limit="max_bytes", value=retention.max_bytes)
        kept = stream.tail - stream.first + 1
        if retention.max_chunks is not None and kept + len(append.chunks) > retention.max_chunks:
            return LimitExceededError(append.key, limit="max_chunks", value=retention.max_chunks)
        return None

    def _store(self, stream: ModelStream, append: Append) -> None:
        for index, chunk in enumerate(append.chunks, append.first):
            stream.chunks[index] = chunk
        stream.tail = append.last
        retention = stream.retention
        if append.chunks:
            stream.nonces[append.first] = append.nonce
        while retention.overflow == "trim" and append.chunks and stream.first < stream.tail:
            most = retention.max_chunks or stream.tail
            if len(stream.data()) <= retention.max_bytes and stream.tail - stream.first + 1 <= most:
                break
            stream.first += 1
        if append.metadata is not None:
            stream.metadata = append.metadata
        if append.end is not None:
            stream.end, stream.end_nonce = append.end, append.nonce
        seconds = retention.unfinished_seconds if stream.end is None else retention.ended_seconds
        stream.expires = self.now + seconds

    def read(self, read: Read) -> Page | StreamHubError:
        """Answer with all the chunks there are: a page may hold fewer."""
        stream = self.stream(read.key)
        if stream is None:
            return StreamNotFoundError(read.key)
        fence = self.fence(read.key)
        if fence is not None:
            return fence
        begin = read.after_index + 1
        kept = stream.first <= begin <= stream.tail
        return Page(
            run=stream.run,
            attended=stream.attended,
            spans=tuple(stream.spans),
            chunks=tuple(stream.chunks[index] for index in range(begin, stream.tail + 1)) if kept else (),
            first=stream.first,
            tail=stream.tail,
            end=stream.end,
            metadata=stream.metadata,
        )

    def delete(self, key: str) -> bool:
        stream = self.stream(key)
        if stream is None or stream.state(self.now) not in ("open", "ended"):
            return False
        stream.fenced_until = self.now + stream.retention.fence_seconds
        return True

    def sweepable(self) -> int:
        """Count the expired streams and outlived fences not known to be removed yet."""
        return sum(
            self.now > stream.gone or (stream.state(self.now) == "expired" and not stream.swept)
            for stream in self.streams.values()
        )

    def swept(self) -> None:
        """Note that everything that could be swept was."""
        for key, stream in list(self.streams.items()):
            if self.now > stream.gone:
                del self.streams[key]
            elif stream.state(self.now) == "expired":
                stream.swept = True

    # The leases.

    def lease(self, key: str) -> tuple[Lease, float] | None:
        held = self.leases.get(key)
        return held if held is not None and held[1] > self.now else None

    def acquire(
        self, key: str, *, owner: str, ttl_seconds: float, above: int, void: int
    ) -> Lease | LeaseHeldError | int:
        """Answer the lease that is held already, an error, or what the new generation must be greater than."""
        held = self.lease(key)
        if held is not None and held[0].generation > void:
            lease, expires = held
            if lease.owner != owner:
                return LeaseHeldError(key, generation=lease.generation, run=lease.run, expires_in=expires - self.now)
            self.leases[key] = lease, self.now + ttl_seconds
            return lease
        return max(above, self.given.get(key, 0))

    def acquired(self, lease: Lease) -> None:
        """Take note of a new lease."""
        self.given[lease.key] = lease.generation
        self.leases[lease.key] = lease, self.now + lease.ttl_seconds

    def renew(self, lease: Lease) -> bool:
        held = self.lease(lease.key)
        if held is None or held[0] != lease:
            return False
        self.leases[lease.key] = lease, self.now + lease.ttl_seconds
        return True

    def release(self, lease: Lease) -> None:
        held = self.leases.get(lease.key)
        if held is not None and held[0] == lease:
            del self.leases[lease.key]

    def holder(self, key: str) -> Holder | None:
        held = self.lease(key)
        return None if held is None else Holder(held[0].generation, held[0].run, held[1] - self.now)

    # The cancel requests.

    def pending(self, ref: RunRef) -> CancelRequest | None:
        stored = self.requests.get(ref)
        return stored[0] if stored is not None and stored[1] > self.now else None

    def request(self, request: CancelRequest, ttl_seconds: float) -> bool:
        ref = RunRef(request.key, request.run)
        if self.pending(ref) is not None:
            return False
        self.requests[ref] = request, self.now + ttl_seconds
        return True


def same_error(found: object, expected: StreamHubError) -> bool:
    """Compare the type and the facts; wording is free, and a lease's remaining time is read from a real clock."""
    if type(found) is not type(expected):
        return False
    free = {"detail", "limit", "value", "expires_in"}
    facts = ({name: fact for name, fact in vars(error).items() if name not in free} for error in (found, expected))
    if isinstance(found, LeaseHeldError) and isinstance(expected, LeaseHeldError):
        assert abs(found.expires_in - expected.expires_in) < 0.1
    return next(facts) == next(facts)


def check(found: object, *allowed: object) -> None:
    """Fail unless ``found`` is one of the answers that the model allows."""
    for expected in allowed:
        if isinstance(expected, StreamHubError):
            if same_error(found, expected):
                return
        elif found == expected:
            return
    raise AssertionError(f"answered {found!r}, expected {allowed!r}")


def check_info(found: StreamInfo | None, expected: StreamInfo | None) -> None:
    """Compare descriptions; of a fence, what a fence promises."""
    if found is not None and expected is not None and expected.state in ("deleted", "expired"):
        facts = ((info.seen, info.run, info.end) for info in (found, expected))
        assert next(facts) == next(facts)
    else:
        assert found == expected
