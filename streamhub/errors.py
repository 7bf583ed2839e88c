"""Every error streamhub raises: one root, each also the builtin a caller would expect.

    StreamHubError
    ├── ConfigError (ValueError)
    │   ├── UnknownOptionError
    │   ├── BackendNotFoundError
    │   └── BackendNotInstalledError (ImportError)
    ├── BackendUnavailableError (ConnectionError)
    ├── UnsupportedFormatError
    ├── HubClosedError, HubContextError (RuntimeError)
    ├── DrainingError
    ├── InvalidKeyError, InvalidOffsetError, InvalidChunkError, ChunkTooLargeError,
    │   InvalidMetadataError (ValueError)
    ├── LimitExceededError
    ├── StreamNotFoundError (LookupError)
    ├── ResumeRefusedError (LookupError)
    │   ├── StreamReplacedError
    │   ├── StreamDeletedError
    │   ├── StreamExpiredError
    │   └── OffsetTrimmedError
    ├── StreamFailedError, StreamAbandonedError, StreamEndedError, StreamUnfinishedError
    ├── LeaseHeldError, LeaseLostError
    ├── StaleGenerationError, OffsetConflictError, OpenConflictError, DataLostError
    ├── ProducerCancelledError
    └── ResponseAbortedError

``StreamFailure`` is not part of the tree: an application raises it, to publish a failure's text.
Facts are also on attributes. No message holds a password.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamhub.types import End, StreamState


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known word was probably meant, for the middle of a message: ``"; did you mean 'x'?"``, else ``";"``."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ";"


def defect(exc: Exception) -> StreamHubError:
    """Convert what no backend may raise. Its text stays in the log: it may quote a URL with a password."""
    error = StreamHubError(f"the backend failed with {type(exc).__name__}: see the log")
    error.__cause__ = exc
    return error


def _rebuild(cls: type[StreamHubError], args: tuple[object, ...], facts: dict[str, object]) -> StreamHubError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class StreamHubError(Exception):
    """The root of every error streamhub raises."""

    def __reduce__(self) -> tuple[object, ...]:
        # The initialisers take facts, not messages: rebuild without calling them.
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))


class ConfigError(StreamHubError, ValueError):
    """A setting, a URL or an argument is wrong; nothing was sent to a backend."""


class UnknownOptionError(ConfigError):
    """A URL has an option that neither the backend nor the hub knows."""

    def __init__(self, option: str, *, scheme: str, known: Iterable[str]) -> None:
        self.option = option
        self.scheme = scheme
        self.known: list[str] = sorted(known)
        names = ", ".join(self.known) or "none"
        super().__init__(f"unknown option {option!r} for {scheme}://{nearest(option, self.known)} known: {names}")


class BackendNotFoundError(ConfigError):
    """No backend is registered for the URL's scheme."""


class BackendNotInstalledError(ConfigError, ImportError):
    """The backend of the URL's scheme needs a package that is not installed."""


class BackendUnavailableError(StreamHubError, ConnectionError):
    """The backend could not be reached, or did not answer in time.

    Raised by a backend, it means that the call's outcome is unknown: it may have happened.
    """


class UnsupportedFormatError(StreamHubError):
    """A stored record has a format version this release does not know; nothing of it was used."""

    def __init__(self, what: str, *, found: object, known: object) -> None:
        super().__init__(f"{what} has format version {found!r}; this release reads {known!r}: upgrade streamhub")
        self.found = found
        self.known = known


class HubClosedError(StreamHubError):
    """The hub is not open: it was never entered, or it was closed."""


class HubContextError(StreamHubError, RuntimeError):
    """The hub is used from an event loop or a process other than the one that opened it."""


class DrainingError(StreamHubError):
    """The hub is shutting down: resume on another instance."""


class InvalidKeyError(StreamHubError, ValueError):
    """A stream key or run name is not 1 to 512 bytes of UTF-8 without control characters."""


class InvalidOffsetError(StreamHubError, ValueError):
    """An offset is malformed, or lies beyond everything the stream holds."""


class InvalidChunkError(StreamHubError, ValueError):
    """A chunk cannot be encoded: text with lone surrogates, or an object that is not JSON."""


class ChunkTooLargeError(StreamHubError, ValueError):
    """One chunk is larger than the hub's ``max_chunk_bytes``; the stream is unharmed."""

    def __init__(self, size_bytes: int, max_bytes: int) -> None:
        super().__init__(f"chunk of {size_bytes} bytes exceeds max_chunk_bytes={max_bytes}: split it")
        self.size_bytes = size_bytes
        self.max_bytes = max_bytes


class InvalidMetadataError(StreamHubError, ValueError):
    """Metadata is not a JSON object of at most 64 KiB."""


class LimitExceededError(StreamHubError):
    """The run has reached its cap on bytes or chunks and ``overflow`` is ``"refuse"``; nothing was stored."""

    def __init__(self, key: str, *, limit: str, value: int) -> None:
        super().__init__(f"stream {key!r} has reached {limit}={value}: raise the limit or use overflow='trim'")
        self.key = key
        self.limit = limit
        self.value = value


class StreamNotFoundError(StreamHubError, LookupError):
    """The stream, or the named run, does not exist (yet)."""

    def __init__(self, key: str, run: str | None = None) -> None:
        of_run = "" if run is None else f" (run {run!r})"
        super().__init__(f"stream {key!r}{of_run} does not exist: pass wait=seconds to wait for it")
        self.key = key
        self.run = run


class ResumeRefusedError(StreamHubError, LookupError):
    """What the cursor points at is not there any more; read again from the start."""


class StreamReplacedError(ResumeRefusedError):
    """What was read is no longer this stream's content: another run, or another history, took its place."""

    def __init__(self, key: str, *, run: str | None = None) -> None:
        by = "" if run is None else f" by run {run!r}"
        super().__init__(f"what was read of stream {key!r} has been replaced{by}: subscribe from the start")
        self.key = key
        self.run = run


class StreamDeletedError(ResumeRefusedError):
    """The stream was deleted; its fence still stands."""

    def __init__(self, key: str) -> None:
        super().__init__(f"stream {key!r} was deleted")
        self.key = key


class StreamExpiredError(ResumeRefusedError):
    """The stream's retention has passed; its fence still stands."""

    def __init__(self, key: str) -> None:
        super().__init__(f"stream {key!r} has expired: its retention has passed")
        self.key = key


class OffsetTrimmedError(ResumeRefusedError):
    """The chunk after the cursor was trimmed to keep the run within its limits."""

    def __init__(self, key: str, *, first: int) -> None:
        super().__init__(f"stream {key!r} was trimmed, its first chunk is now index {first}: subscribe from the start")
        self.key = key
        self.first = first


class StreamFailedError(StreamHubError):
    """The run ended with a stored ``failed``."""

    def __init__(self, key: str, end: End) -> None:
        super().__init__(f"stream {key!r} failed: {end.code}: {end.message}")
        self.key = key
        self.end = end


class StreamAbandonedError(StreamHubError):
    """The run has no end and has had no producer for a while; it may be resumed later."""

    def __init__(self, key: str, *, run: str, seconds: float) -> None:
        super().__init__(
            f"run {run!r} of stream {key!r} has no end and has had no producer for {seconds:g} s:"
            " resume it, or subscribe again later"
        )
        self.key = key
        self.run = run
        self.seconds = seconds


class StreamEndedError(StreamHubError):
    """The run has ended: it takes no more chunks and is never started again."""

    def __init__(self, key: str, end: End, *, run: str | None = None) -> None:
        super().__init__(f"run {run!r} of stream {key!r} has ended ({end.state}): use a new run name")
        self.key = key
        self.run = run
        self.end = end


class StreamUnfinishedError(StreamHubError):
    """The stream holds a run without an end and without a producer; the caller did not say what to do."""

    def __init__(self, key: str, run: str) -> None:
        super().__init__(
            f"run {run!r} of stream {key!r} is unfinished: pass unfinished='resume' (same run) or 'replace'"
        )
        self.key = key
        self.run = run


class LeaseHeldError(StreamHubError):
    """Another producer holds the stream's lease."""

    def __init__(self, key: str, *, generation: int, run: str, expires_in: float) -> None:
        super().__init__(
            f"stream {key!r} is being produced (run {run!r}, generation {generation},"
            f" lease ends in {expires_in:.1f} s unless renewed): pass wait=seconds to wait for it"
        )
        self.key = key
        self.generation = generation
        self.run = run
        self.expires_in = expires_in


class LeaseLostError(StreamHubError):
    """This producer's lease is lost, or given back because its block was left; it writes nothing more."""

    def __init__(self, key: str, *, generation: int, why: str = "is lost: another may have taken over") -> None:
        super().__init__(f"the lease of stream {key!r} (generation {generation}) {why}")
        self.key = key
        self.generation = generation


class StaleGenerationError(StreamHubError):
    """A later generation owns the stream; nothing was changed by this call."""

    def __init__(self, key: str, *, generation: int, current: int) -> None:
        super().__init__(f"generation {generation} of stream {key!r} is stale: {current} is current")
        self.key = key
        self.generation = generation
        self.current = current


class OffsetConflictError(StreamHubError):
    """An append does not begin right after the tail; nothing was changed."""

    def __init__(self, key: str, *, first: int, tail: int) -> None:
        super().__init__(f"append to stream {key!r} at index {first} does not follow its tail {tail}")
        self.key = key
        self.first = first
        self.tail = tail


class OpenConflictError(StreamHubError):
    """What open() was decided on has changed since; nothing was changed: describe again."""

    def __init__(self, key: str, *, found: tuple[int, StreamState] | None) -> None:
        now = "nothing" if found is None else f"generation {found[0]}, {found[1]}"
        super().__init__(f"stream {key!r} changed before it was opened: it is now {now}")
        self.key = key
        self.found = found


class DataLostError(StreamHubError):
    """The backend lost chunks it had acknowledged, and the producer does not hold them any more."""

    def __init__(self, key: str, detail: str) -> None:
        super().__init__(f"stream {key!r} lost acknowledged data: {detail}")
        self.key = key
        self.detail = detail


class ProducerCancelledError(StreamHubError):
    """The run was cancelled on request."""

    def __init__(self, key: str, *, run: str, reason: str | None, requested_by: str | None) -> None:
        why = "" if reason is None else f": {reason!r}"
        who = "" if requested_by is None else f" (by {requested_by!r})"
        super().__init__(f"run {run!r} of stream {key!r} was cancelled{why}{who}")
        self.key = key
        self.run = run
        self.reason = reason
        self.requested_by = requested_by


class ResponseAbortedError(StreamHubError):
    """A response was cut off unfinished, so that its client resumes it; an ASGI server closes the connection on it."""


class StreamFailure(Exception):  # noqa: N818 - the application's own word, not an error of streamhub's
    """Raised inside a produce body, ends the run as ``failed`` with this text, for subscribers to see.

    What is not valid Unicode is replaced, and each of the two is cut at 4096 bytes of UTF-8.

    Any other exception publishes only its type's name and a generic message.
    """

    def __init__(self, message: str, code: str = "failed") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
