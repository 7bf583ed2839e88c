"""A producer's queue on its way into the store: sent, in flight, stored; and what can be sent again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from streamhub.errors import BackendUnavailableError, DataLostError, OffsetConflictError, StreamHubError
from streamhub.nonces import Nonces
from streamhub.outage import Outage
from streamhub.types import Append, End, Metadata

RESEND_BYTES = 256 * 1024
"""How much of what is stored a lane keeps in memory, to send it again when a store's failover lost it."""

APPEND_OVERHEAD_BYTES = 200
CHUNK_OVERHEAD_BYTES = 48


class _Stored(NamedTuple):
    """Chunks of one stored append, and what keeping them costs."""

    first: int
    last: int
    chunks: tuple[bytes, ...]
    weight: int


class Lane:
    """The chunks of one generation in order; the first error stops it for good."""

    def __init__(
        self,
        key: str,
        generation: int,
        tail: int,
        *,
        max_buffer_bytes: int,
        max_append_bytes: int,
        outage_seconds: float,
        check: Callable[[], None],
        reopen: Callable[[], Awaitable[int]],
        on_error: Callable[[StreamHubError], None],
    ) -> None:
        """Begin after ``tail``.

        Args:
            key: the stream.
            generation: of the producer.
            tail: index of the last stored chunk.
            max_buffer_bytes: beyond this, ``full`` is true.
            max_append_bytes: of one append.
            outage_seconds: how long an append is repeated.
            check: raises when nothing may be written any more (the lease is lost).
            reopen: opens the stream again after the store lost it, and returns its tail.
            on_error: told of the error that stops the lane.
        """
        self.key = key
        self.generation = generation
        self.sent: int = tail  # index of the last chunk sent
        self.durable: int = tail  # index of the last chunk stored
        self.error: StreamHubError | None = None
        self.ended: bool = False
        self.closed: bool = False
        self.wake: Callable[[], None] = lambda: None
        self.rest: Callable[[], None] = lambda: None
        self._nonces = Nonces()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._flying: Append | None = None
        self._flying_bytes = 0
        self._metadata: Metadata | None = None
        self._sent_metadata: tuple[int, Metadata] | None = None  # the newest, and the last index of its append
        self._end: End | None = None
        self._stored: deque[_Stored] = deque()
        self._stored_bytes = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._outage = Outage(outage_seconds)
        self._max_buffer_bytes = max_buffer_bytes
        self._max_append_bytes = max_append_bytes
        self._check = check
        self._reopen = reopen
        self._on_error = on_error

    # --- the producer's side

    def put(self, chunk: bytes) -> int:
        """Queue a chunk and return its index; raise if that stopped the lane: the hub was closed, the lease is lost."""
        pending = self._pending
        idle = not pending and self._flying is None
        pending.append(chunk)
        self._pending_bytes += len(chunk)
        index = self.sent = self.sent + 1
        if idle:
            self.wake()
            if self.error is not None:
                raise self.error
        return index

    def close(self) -> None:
        """Take no more chunks."""
        self.closed = True
        self.rest()

    @property
    def queued(self) -> int:
        """How many chunks wait for a flush."""
        return len(self._pending)

    @property
    def full(self) -> bool:
        """True while more is buffered than is allowed; chunks of one byte count for what they cost in memory."""
        overhead = CHUNK_OVERHEAD_BYTES * (self.sent - self.durable)
        return self._pending_bytes + self._flying_bytes + overhead >= self._max_buffer_bytes

    def put_metadata(self, metadata: Metadata) -> None:
        """Queue metadata, to be stored with the next chunk or the end."""
        self._metadata = metadata

    def put_end(self, end: End) -> None:
        """Queue the end; it rides with the last chunks."""
        self._end = end
        if self._flying is None:
            self.wake()

    async def room(self) -> None:
        """Wait until the buffer is no longer full."""
        while self.full:
            await self._progress()

    async def flush(self) -> None:
        """Wait until all that was sent before this call, the end included, is stored; raise what stopped the lane."""
        target, ending = self.sent, self._end is not None
        while self.durable < target or (ending and not self.ended):
            await self._progress()

    async def _progress(self) -> None:
        if self.error is not None:
            raise self.error
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter
        if self.error is not None:
            raise self.error

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- the committer's side

    def freeze(self) -> Append | None:
        """Return the append to send: the one in flight again, or a new one of what is queued; None for nothing."""
        if self.error is None:
            try:
                self._check()
            except StreamHubError as exc:
                self.fail(exc)
        if self.error is not None:
            return None
        if self._flying is None:
            self._flying = self._take()
        return self._flying

    def _take(self) -> Append | None:
        chunks, size = self._pending, self._pending_bytes
        if size > self._max_append_bytes:
            chunks, size = self._prefix()
        complete = len(chunks) == len(self._pending)
        end = self._end if complete else None
        if not chunks and end is None:
            return None
        self._pending = [] if complete else self._pending[len(chunks) :]
        self._pending_bytes -= size
        self._flying_bytes = size
        first = self.sent - len(self._pending) - len(chunks) + 1
        metadata, self._metadata = self._metadata, None
        if metadata is not None:
            self._sent_metadata = (first + len(chunks) - 1, metadata)
        return Append(self.key, self.generation, first, tuple(chunks), self._nonces.fresh(), metadata, end)

    def _prefix(self) -> tuple[list[bytes], int]:
        size = count = 0
        for chunk in self._pending:
            if count and size + len(chunk) > self._max_append_bytes:
                break
            size += len(chunk)
            count += 1
        return self._pending[:count], size

    def stored(self, append: Append) -> None:
        """Note that the append in flight is stored."""
        self._outage.over()
        self.durable = append.last
        self.ended = append.end is not None
        self._keep(append)
        self._flying, self._flying_bytes = None, 0
        self._notify()
        if self._pending or (self._end is not None and not self.ended):
            self.wake()

    def _keep(self, append: Append) -> None:
        if not append.chunks:
            return
        weight = self._flying_bytes + APPEND_OVERHEAD_BYTES + CHUNK_OVERHEAD_BYTES * len(append.chunks)
        self._stored.append(_Stored(append.first, append.last, append.chunks, weight))
        self._stored_bytes += weight
        while self._stored_bytes > RESEND_BYTES:
            self._stored_bytes -= self._stored.popleft().weight

    def unknown(self, error: BackendUnavailableError) -> None:
        """Note that the append in flight may or may not be stored; it will be repeated."""
        try:
            pause = self._outage.pause(error)
        except BackendUnavailableError as exc:
            self.fail(exc)
            return
        asyncio.get_running_loop().call_later(pause, self._retry)

    def _retry(self) -> None:
        if self.error is None:
            self.wake()

    def refused(self, error: StreamHubError) -> None:
        """Note that the append in flight was refused: rewind if the store went back, else stop."""
        if isinstance(error, OffsetConflictError) and error.tail < error.first - 1:
            self._rewind(error.tail, error)
        else:
            self.fail(error)

    async def recover(self, error: DataLostError) -> None:
        """Open the stream again after the store lost it, and send again what it lost."""
        try:
            self._check()
            tail = await self._reopen()
        except StreamHubError as exc:
            self.fail(error if isinstance(exc, DataLostError) else exc)
            return
        self._rewind(tail, error)

    def _rewind(self, tail: int, error: StreamHubError) -> None:
        lost = [kept for kept in self._stored if kept.last > tail]
        flying = () if self._flying is None else self._flying.chunks
        chunks = [*(chunk for kept in lost for chunk in kept.chunks), *flying]
        first = lost[0].first if lost else self.durable + 1
        if first > tail + 1:
            gone = DataLostError(self.key, f"its tail went back to {tail}; the producer holds {first} and later only")
            gone.__cause__ = error
            self.fail(gone)
            return
        chunks = chunks[tail + 1 - first :]
        # Fresh nonces: the store no longer has the appends these chunks were part of.
        self._pending = [*chunks, *self._pending]
        self._pending_bytes = sum(map(len, self._pending))
        if self._metadata is None and self._sent_metadata is not None and self._sent_metadata[0] > tail:
            self._metadata = self._sent_metadata[1]
        self._stored = deque(kept for kept in self._stored if kept.last <= tail)
        self._stored_bytes = sum(kept.weight for kept in self._stored)
        self._flying, self._flying_bytes = None, 0
        self.durable = tail
        self.wake()

    def fail(self, error: StreamHubError) -> None:
        """Stop for good: nothing more is written; whoever waits, and the producer, are told."""
        if self.error is None and not self.ended:
            self.error = error
            self._notify()
            self._on_error(error)
