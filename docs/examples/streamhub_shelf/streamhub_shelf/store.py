"""The streams: one file each. ``streamhub.rules`` decides what is allowed; here it is only stored."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from streamhub import (
    Append,
    Appended,
    Change,
    Page,
    Read,
    Retention,
    Seen,
    StreamHubError,
    StreamInfo,
    StreamNotFoundError,
)
from streamhub.records import encode_end
from streamhub.rules import admit_append, admit_open, check_present, opened
from streamhub.types import Metadata
from streamhub_shelf.directory import Directory
from streamhub_shelf.facts import facts_of, fence_of, info_of
from streamhub_shelf.log import Log
from streamhub_shelf.watch import Watch

T = TypeVar("T")

MAX_LOGS = 256
"""Of how many streams it is kept in memory what their files hold; the others are read again when asked for."""


class ShelfChangeFeed:
    """Notices changes by looking at the files."""

    def __init__(self, watch: Watch[str]) -> None:
        self._watch = watch

    async def follow(self, key: str) -> None:
        """Begin."""
        self._watch.add(key)

    async def unfollow(self, key: str) -> None:
        """Stop."""
        self._watch.remove(key)

    async def __aiter__(self) -> AsyncIterator[Change]:
        async for key in self._watch.changes():
            yield Change(key)


class ShelfStore:
    """``StreamStore`` in files. Every change is made within one step of the directory's: atomic."""

    groups_streams: bool = True
    max_append_bytes: int = 16 * 1024 * 1024

    def __init__(self, directory: Directory, *others: Directory) -> None:
        self._directory = directory
        self._others = others
        self._logs: dict[Path, Log] = {}

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
        wanted: Any = {"key": key, "generation": generation, "run": run, "resume": resume, "attended": attended}

        def open_run(now: float) -> StreamInfo:
            log, found = self._find(key, now)
            if not admit_open(found, log.facts.get("owner"), owner=owner, expect=expect, **wanted) and found:
                return found
            info = opened(found, metadata=metadata, retention=retention, **wanted)
            facts = facts_of(info) | {"owner": owner, "deadline": now + retention.unfinished_seconds}
            if resume:
                log.add(facts)
            else:
                log.begin(facts)
            return info

        return await self._directory.step(open_run)

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | StreamHubError]:
        """Store appends, each as one frame."""
        return await self._directory.step(lambda now: [_answer(self._append, append, now) for append in batch])

    def _append(self, append: Append, now: float) -> Appended:
        log, info = self._find(append.key, now)
        end_nonce = bytes.fromhex(log.facts.get("end_nonce", "")) or None
        stored = admit_append(info, append, nonce_at_first=log.nonce_at(append.first), end_nonce=end_nonce)
        if stored is not None or info is None:
            return stored or Appended(append.last)
        retention, end = info.retention, append.end
        first, size_bytes = _trimmed(log, info, append)
        change: dict[str, Any] = {"first": first, "tail": append.last, "size_bytes": size_bytes}
        change["nonce"] = append.nonce.hex()
        change["deadline"] = now + (retention.unfinished_seconds if end is None else retention.ended_seconds)
        if append.metadata is not None:
            change["metadata"] = dict(append.metadata)
        if end is not None:
            change |= {"state": "ended", "end": encode_end(end), "end_nonce": append.nonce.hex()}
        log.add(change, append.chunks)
        return Appended(append.last)

    async def read(self, reads: Sequence[Read]) -> Sequence[Page | StreamHubError]:
        """Read chunks."""
        return await self._directory.step(lambda now: [_answer(self._read, read, now) for read in reads])

    def _read(self, read: Read, now: float) -> Page:
        log, info = self._find(read.key, now)
        if info is None:
            raise StreamNotFoundError(read.key)
        check_present(info)
        return Page(
            run=info.run,
            attended=info.attended,
            spans=info.spans,
            chunks=_page(log, info, read),
            first=info.first,
            tail=info.tail,
            end=info.end,
            metadata=info.metadata,
        )

    async def describe(self, keys: Sequence[str], *, touch: bool = False) -> Sequence[StreamInfo | None]:
        """Describe streams and fences."""

        def describe(now: float) -> list[StreamInfo | None]:
            found = [self._find(key, now) for key in keys]
            for log, info in found:
                if touch and info is not None and info.state == "open":
                    log.add({"deadline": now + info.retention.unfinished_seconds})
            return [info for _, info in found]

        return await self._directory.step(describe)

    @asynccontextmanager
    async def changes(self) -> AsyncGenerator[ShelfChangeFeed]:
        """Open a feed; there is nothing to close."""
        yield ShelfChangeFeed(Watch(self._directory, self._path))

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the keys, one step for each: nobody waits for the end of a long listing."""
        for path in await self._directory.files():
            key = await self._directory.step(lambda _, path=path: self._log(path).facts.get("key"))
            if key is not None and key.startswith(prefix):
                yield key

    async def delete(self, key: str) -> bool:
        """Leave nothing but a fence."""

        def delete(now: float) -> bool:
            log, info = self._find(key, now)
            if info is None or info.state not in ("open", "ended"):
                return False
            log.begin(log.facts | facts_of(fence_of(info, "deleted")) | {"deadline": now})
            return True

        return await self._directory.step(delete)

    async def sweep(self, limit: int) -> int:
        """Turn expired streams into fences; remove outlived fences, and leases and requests whose time is over."""
        removed = 0
        for path in await self._directory.files():
            if removed < limit:
                removed += await self._directory.step(lambda now, path=path: self._sweep(path, now))
        for directory in self._others:
            await directory.remove_expired()
        return removed

    def _sweep(self, path: Path, now: float) -> bool:
        log = self._log(path)
        info = info_of(log.facts, now)
        if info is None:
            path.unlink(missing_ok=True)
            self._logs.pop(path)
        elif info.state != log.facts["state"]:
            log.begin(log.facts | facts_of(info))
        else:
            return False
        return True

    def _path(self, key: str) -> Path:
        return self._directory.path(key)

    def _find(self, key: str, now: float) -> tuple[Log, StreamInfo | None]:
        log = self._log(self._path(key))
        return log, info_of(log.facts, now)

    def _log(self, path: Path) -> Log:
        if path not in self._logs and len(self._logs) >= MAX_LOGS:
            self._logs.clear()
        log = self._logs.setdefault(path, Log(self._directory, path))
        log.refresh()
        return log


def _answer(call: Callable[[Any, float], T], item: Any, now: float) -> T | StreamHubError:
    try:
        return call(item, now)
    except StreamHubError as exc:
        return exc


def _trimmed(log: Log, info: StreamInfo, append: Append) -> tuple[int, int]:
    """Say which index is the first to keep once ``append`` is stored, and how many bytes that leaves."""
    first, size_bytes, retention = info.first, info.size_bytes + sum(map(len, append.chunks)), info.retention
    if retention.overflow == "trim":
        most = append.last if retention.max_chunks is None else retention.max_chunks
        for chunk in chain(log.chunks_from(first), append.chunks):
            within = size_bytes <= retention.max_bytes and append.last - first < most
            if within or first == append.last:
                break
            first, size_bytes = first + 1, size_bytes - len(chunk)
    return first, size_bytes


def _page(log: Log, info: StreamInfo, read: Read) -> tuple[bytes, ...]:
    """Read chunks up to the bounds of ``read``, but one at least."""
    page: list[bytes] = []
    index, left = read.after_index + 1, read.max_bytes
    if index < info.first:
        return ()
    for chunk in islice(log.chunks_from(index), max(read.max_chunks, 1)):
        left -= len(chunk)
        if left < 0 and page:
            break
        page.append(chunk)
    return tuple(page)
