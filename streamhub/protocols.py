"""The three protocols a backend implements, and the connection that holds them.

Each sentence here is the contract, and a case of ``streamhub.conformance`` quotes it. What holds everywhere:

* Calls may be cancelled at any await; a cancelled call may or may not have happened.
* Calls may run concurrently from many tasks of one event loop.
* ``BackendUnavailableError`` means that the outcome is unknown; every call may be repeated as it was.
* No driver error leaves a backend: it is converted, and the driver's is its ``__cause__``.
* Times are the server's. Arguments have been validated by the core.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from streamhub.errors import StreamHubError
from streamhub.types import (
    Append,
    Appended,
    CancelRequest,
    Change,
    Holder,
    Lease,
    Metadata,
    Page,
    Read,
    Retention,
    RunRef,
    Seen,
    StreamInfo,
)


class ChangeFeed(Protocol):
    """One process's hints about the streams it follows; at most one task iterates it."""

    async def follow(self, key: str) -> None:
        """Begin hints for ``key``. Changes made after this returns are hinted."""
        ...

    async def unfollow(self, key: str) -> None:
        """Stop hints for ``key``; harmless when it is not followed."""
        ...

    def __aiter__(self) -> AsyncIterator[Change]:
        """Yield changes of followed keys, from now on.

        Hints may repeat, be late or be lost. After every reconnect ``Change(None)`` is yielded. Iteration raises
        ``BackendUnavailableError`` when the feed cannot go on; the core then opens another.
        """
        ...


class StreamStore(Protocol):
    """Streams of chunks, fenced by generation. Safe by itself: it trusts no lease."""

    groups_streams: bool
    """True if one ``append`` call with many streams costs about as much as with one (one flush for all)."""

    max_append_bytes: int
    """The most payload bytes one Append may carry, at least the largest chunk a hub allows."""

    async def open(
        self,
        key: str,
        generation: int,
        *,
        owner: str,
        run: str,
        expect: Seen | None,
        resume: bool,
        attended: bool = True,
        metadata: Metadata | None = None,
        retention: Retention,
    ) -> StreamInfo:
        """Begin a run, or continue it, as ``generation``. One atomic step, which decides in this order:

        1. ``generation`` is below the stored one (a fence's counts), or equal and stored for another owner:
           ``StaleGenerationError(current)``.
        2. (generation, owner) are the stored pair: this open has happened; answer as it did, or raise
           ``StreamDeletedError`` / ``StreamExpiredError`` if the stream has gone since.
        3. ``expect`` differs from what is stored (None: nothing, not even a fence): ``OpenConflictError``.
        4. ``resume`` of anything but an un-ended run of the same name: ``OpenConflictError``.
        5. ``attended=False`` on an attended, un-ended run: ``StreamUnfinishedError``.

        Then all lower generations are fenced, and the tail is read. ``resume=True`` continues the un-ended run: a
        span is added at ``tail + 1`` and ``metadata=None`` keeps its metadata. ``resume=False`` begins a new run at
        index 1; the old run's chunks are gone. Retention begins anew.
        """
        ...

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | StreamHubError]:
        """Store appends, each atomically, at most one of a key; answers are in the batch's order.

        Each item succeeds or fails by itself, deciding in this order:

        1. no such stream: ``DataLostError``; deleted: ``StreamDeletedError``; expired: ``StreamExpiredError``.
        2. a higher generation is stored: ``StaleGenerationError(current)``; a lower one: ``DataLostError``.
        3. the record at ``first``, or the stored end, carries this nonce: success again, nothing changes.
        4. the run has ended: ``StreamEndedError``.
        5. ``first != tail + 1``: ``OffsetConflictError(tail)``.
        6. a cap would be exceeded and overflow is ``refuse``: ``LimitExceededError``. An end alone never exceeds.

        Then chunks, metadata and end are stored, durably in the backend's documented sense, all or none. With
        ``trim`` the oldest chunks go, never the newest. Retention begins anew: an end starts ``ended_seconds``.
        ``StaleGenerationError`` on a retry leaves the first attempt's outcome unknown.
        """
        ...

    async def read(self, reads: Sequence[Read]) -> Sequence[Page | StreamHubError]:
        """Read chunks; answers are in the order of ``reads``, each succeeding or failing by itself.

        A page holds at least one chunk if ``after_index + 1`` is stored. Beyond the tail it is empty. A missing
        stream is ``StreamNotFoundError``, a fence ``StreamDeletedError`` or ``StreamExpiredError``.
        """
        ...

    async def describe(self, keys: Sequence[str], *, touch: bool = False) -> Sequence[StreamInfo | None]:
        """Describe streams and fences, each atomically; None where nothing is stored.

        ``touch`` starts an un-ended run's retention anew; it never shortens a life and never revives.
        """
        ...

    def changes(self) -> AbstractAsyncContextManager[ChangeFeed]:
        """Open this process's feed of hints."""
        ...

    def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the keys that begin with ``prefix``, fences perhaps included, each once, in no order.

        Keys that are created or removed meanwhile may or may not appear.
        """
        ...

    async def delete(self, key: str) -> bool:
        """Remove a stream and leave a fence; True if it was there. A running producer's next append is refused."""
        ...

    async def sweep(self, limit: int) -> int:
        """Remove up to ``limit`` expired streams and outlived fences; return how many were removed.

        An expired stream counts as expired everywhere from that moment, swept or not.
        """
        ...


@runtime_checkable
class PromptStore(Protocol):
    """What a ``StreamStore`` without ``groups_streams`` may have: an append that begins before it is awaited."""

    def begin_append(self, append: Append) -> Callable[[], Awaitable[Appended | StreamHubError]] | None:
        """Begin to store an append now, and return what to call, and await, for its outcome: that of ``append``.

        None if something must be waited for first: nothing has begun, and ``append`` is called; so it is if this
        raises. What is returned may never be called; the append may then be stored all the same.
        """
        ...


class LeaseManager(Protocol):
    """Time-limited rights to produce, and the source of generations."""

    min_ttl_seconds: float
    default_ttl_seconds: float

    async def acquire(
        self, key: str, *, owner: str, run: str, ttl_seconds: float, above: int = 0, void: int = 0
    ) -> Lease:
        """Take the lease, with a generation greater than ``above`` and than all given before for the key.

        ``owner`` is a nonce of one acquire: repeated with the same owner while it holds the lease, the call gives
        the same lease and generation, with its time begun anew. A lease of a generation <= ``void`` counts as
        released.

        Raises:
            LeaseHeldError: another owner holds it.
        """
        ...

    async def renew(self, leases: Sequence[Lease]) -> Sequence[bool]:
        """Begin each lease's time anew; True if it is still owned, False if it is definitely lost or has expired.

        Raising means that the outcome is unknown, for all.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Give the lease up; harmless when it is stale, or released already."""
        ...

    async def holders(self, keys: Sequence[str]) -> Sequence[Holder | None]:
        """Say who holds each lease now; None where nobody does."""
        ...


class RequestFeed(Protocol):
    """One process's cancel requests; at most one task iterates it."""

    async def listen(self, ref: RunRef) -> None:
        """Begin notifications for a run. Requests stored after this returns are notified."""
        ...

    async def unlisten(self, ref: RunRef) -> None:
        """Stop notifications for a run; harmless when it is not listened to."""
        ...

    def __aiter__(self) -> AsyncIterator[CancelRequest | None]:
        """Yield requests for the runs listened to; None after every reconnect: read ``pending`` then.

        Notifications may repeat or be lost. Iteration raises ``BackendUnavailableError`` when it cannot go on.
        """
        ...


class CancelBus(Protocol):
    """Durable requests that a run stop, with a notification that makes them quick."""

    async def request(
        self, key: str, run: str, *, reason: str | None, requested_by: str | None, ttl_seconds: float
    ) -> bool:
        """Store a request for exactly this run, then notify. The first one stays; True if this call stored it.

        It outlives delete and replacement of the stream, for ``ttl_seconds``.
        """
        ...

    async def pending(self, runs: Sequence[RunRef]) -> Sequence[CancelRequest | None]:
        """Read the stored requests of runs, in order; None where there is none."""
        ...

    def requests(self) -> AbstractAsyncContextManager[RequestFeed]:
        """Open this process's feed of notifications."""
        ...


class Backend(Protocol):
    """A connection to one system, with its three parts. What an entry point of ``streamhub.backends`` makes.

    The entry point's name is the URL scheme; its object is called as ``factory(url)``, does no I/O and raises
    ``ConfigError`` for a URL or option that is wrong.
    """

    @property
    def store(self) -> StreamStore:
        """The streams."""
        ...

    @property
    def leases(self) -> LeaseManager:
        """The leases."""
        ...

    @property
    def cancels(self) -> CancelBus:
        """The cancel requests."""
        ...

    async def connect(self) -> None:
        """Connect and prepare; called once, before any other call. ``BackendUnavailableError`` if it cannot."""
        ...

    async def ping(self) -> None:
        """Make one round trip."""
        ...

    async def about(self) -> Mapping[str, str]:
        """Say what this is, in words: version, durability, limits. Never a password."""
        ...

    async def aclose(self) -> None:
        """Close what ``connect`` opened; harmless when repeated."""
        ...
