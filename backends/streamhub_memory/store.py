"""The streams of a namespace. What is admitted is decided by ``streamhub.rules``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import TypeVar, TypeVarTuple

from streamhub.errors import StreamHubError
from streamhub.rules import admit_append, admit_open, opened
from streamhub.types import Append, Appended, Change, Metadata, Page, Read, Retention, Seen, StreamInfo
from streamhub_memory.log import ChunkLog
from streamhub_memory.mailbox import Mailbox
from streamhub_memory.namespace import Namespace
from streamhub_memory.session import Session
from streamhub_memory.stream import StoredStream, fresh, page_of

T = TypeVar("T")
Given = TypeVarTuple("Given")

# A larger append is hinted without its chunks: what a slow feed holds back stays bounded.
MAX_PUSHED_BYTES = 64 * 1024


class MemoryChangeFeed:
    """Hints about followed keys. More than a thousand untaken ones collapse into ``Change(None)``."""

    def __init__(self, namespace: Namespace, box: Mailbox[Change]) -> None:
        self._namespace = namespace
        self._box = box

    async def follow(self, key: str) -> None:
        """Begin hints for ``key``."""
        with self._namespace.lock:
            self._namespace.changes.add(self._box, key)

    async def unfollow(self, key: str) -> None:
        """Stop hints for ``key``."""
        with self._namespace.lock:
            self._namespace.changes.remove(self._box, key)

    def __aiter__(self) -> AsyncIterator[Change]:
        return self

    async def __anext__(self) -> Change:
        return await self._box.take()


class MemoryStore:
    """``StreamStore`` in memory: nothing is durable, everything is atomic."""

    groups_streams: bool = True
    max_append_bytes: int = 64 * 1024 * 1024

    def __init__(self, session: Session) -> None:
        self._session = session

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
        """Begin a run, or continue it."""
        namespace = self._session.namespace
        with namespace.lock:
            now = namespace.clock()
            stream = namespace.live_stream(key, now)
            info = None if stream is None else stream.info(now)
            stored_owner = None if stream is None else stream.owner
            go_on = admit_open(
                info,
                stored_owner,
                key=key,
                generation=generation,
                owner=owner,
                run=run,
                expect=expect,
                resume=resume,
                attended=attended,
            )
            if stream is not None and not go_on:
                return stream.describe(now)
            info = opened(
                info,
                key=key,
                generation=generation,
                run=run,
                resume=resume,
                attended=attended,
                metadata=None if metadata is None else fresh(metadata),
                retention=retention,
            )
            log = stream.log if stream is not None and resume else ChunkLog()
            stream = namespace.streams[key] = StoredStream(info, owner, log, now)
            namespace.stream_agenda.plan(key, stream.deadline)
            namespace.changes.publish(key, Change(key))
            return stream.describe(now)

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | StreamHubError]:
        """Store appends, each atomically."""
        namespace = self._session.namespace
        with namespace.lock:
            now = namespace.clock()
            return [_answer(_append, namespace, item, now) for item in batch]

    async def read(self, reads: Sequence[Read]) -> Sequence[Page | StreamHubError]:
        """Read chunks."""
        namespace = self._session.namespace
        with namespace.lock:
            now = namespace.clock()
            return [_answer(page_of, namespace.live_stream(item.key, now), item, now) for item in reads]

    async def describe(self, keys: Sequence[str], *, touch: bool = False) -> Sequence[StreamInfo | None]:
        """Describe streams and fences."""
        namespace = self._session.namespace
        with namespace.lock:
            now = namespace.clock()
            streams = [namespace.live_stream(key, now) for key in keys]
            if touch:
                for stream in filter(None, streams):
                    stream.touch(now)
            return [None if stream is None else stream.describe(now) for stream in streams]

    @asynccontextmanager
    async def changes(self) -> AsyncGenerator[MemoryChangeFeed, None]:
        """Open a feed of hints."""
        namespace = self._session.namespace
        box = Mailbox(namespace.lock, Change(None))
        with self._session.tracked(namespace, box):
            with namespace.lock:
                namespace.changes.join(box)
            try:
                yield MemoryChangeFeed(namespace, box)
            finally:
                with namespace.lock:
                    namespace.changes.leave(box)

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the keys of streams and fences."""
        namespace = self._session.namespace
        with namespace.lock:
            now = namespace.clock()
            keys = [key for key in namespace.streams if key.startswith(prefix) and namespace.live_stream(key, now)]
        for key in keys:
            yield key

    async def delete(self, key: str) -> bool:
        """Remove a stream and leave a fence."""
        namespace = self._session.namespace
        with namespace.lock:
            now = namespace.clock()
            stream = namespace.live_stream(key, now)
            if stream is None or stream.info(now).state not in ("open", "ended"):
                return False
            stream.delete(now)
            namespace.stream_agenda.plan(key, stream.deadline)
            namespace.changes.publish(key, Change(key))
            return True

    async def sweep(self, limit: int) -> int:
        """Remove expired streams and outlived fences; also leases and cancel requests, which are not counted."""
        namespace = self._session.namespace
        with namespace.lock:
            now = namespace.clock()
            _sweep_leases(namespace, now, limit)
            _sweep_requests(namespace, now, limit)
            return _sweep_streams(namespace, now, limit)


def _answer(call: Callable[[*Given], T], *given: *Given) -> T | StreamHubError:
    try:
        return call(*given)
    except StreamHubError as exc:
        return exc.with_traceback(None)


def _append(namespace: Namespace, append: Append, now: float) -> Appended:
    key = append.key
    stream = namespace.live_stream(key, now)
    if stream is None:
        nonce_at_first = end_nonce = info = None
    else:
        info = stream.info(now)
        nonce_at_first, end_nonce = stream.log.nonce_at(append.first), stream.end_nonce
    stored = admit_append(info, append, nonce_at_first=nonce_at_first, end_nonce=end_nonce)
    if stored is not None or stream is None:
        return stored or Appended(append.last)
    size_bytes = sum(map(len, append.chunks))
    stream.store(append, size_bytes, now)
    namespace.stream_agenda.plan(key, stream.deadline)
    if namespace.changes.is_wanted(key):
        namespace.changes.publish(key, Change(key, append if size_bytes <= MAX_PUSHED_BYTES else None))
    return Appended(append.last)


def _sweep_streams(namespace: Namespace, now: float, limit: int) -> int:
    agenda, streams = namespace.stream_agenda, namespace.streams
    removed = 0
    due = agenda.due(now, lambda key: streams[key].deadline if key in streams else None)
    for key in islice(due, limit):
        stream = streams[key]
        if stream.outlived(now):
            del streams[key]
        else:
            stream.expire()
            agenda.plan(key, stream.deadline)
        # Those who wait for a stream that has expired have heard nothing of it yet.
        namespace.changes.publish(key, Change(key))
        removed += 1
    return removed


def _sweep_leases(namespace: Namespace, now: float, limit: int) -> None:
    leases = namespace.leases
    due = namespace.lease_agenda.due(now, lambda key: leases[key].expires if key in leases else None)
    for key in islice(due, limit):
        del leases[key]


def _sweep_requests(namespace: Namespace, now: float, limit: int) -> None:
    requests = namespace.requests
    due = namespace.request_agenda.due(now, lambda ref: requests[ref].expires if ref in requests else None)
    for ref in islice(due, limit):
        del requests[ref]
