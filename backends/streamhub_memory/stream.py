"""One stored stream: its description, its chunks and how long it lives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from streamhub.errors import StreamNotFoundError
from streamhub.rules import check_present
from streamhub.types import Append, Metadata, Page, Read, StreamInfo
from streamhub_memory.log import ChunkLog

_ATOMS = frozenset({str, int, float, bool, type(None)})


def fresh(metadata: Metadata) -> Metadata:
    """Copy metadata at the border: nobody outside changes what is stored."""
    return {name: _copied(value) for name, value in metadata.items()}


def _copied(value: Any) -> Any:
    """Copy a JSON value; ``copy.deepcopy``, which knows more kinds, takes ten times as long."""
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [each if type(each) in _ATOMS else _copied(each) for each in cast("Sequence[Any]", value)]
    return value


class StoredStream:
    """A stream, or the fence it left.

    ``deadline`` is when an open or ended stream expires; the fence then stands ``fence_seconds`` longer. Of a
    deleted one it is when the fence goes. ``log`` holds the chunks.
    """

    def __init__(self, info: StreamInfo, owner: str, log: ChunkLog, now: float) -> None:
        self._info = info
        self.log = log
        self.owner = owner
        self.end_nonce: bytes | None = None
        self.deadline = now + info.retention.unfinished_seconds

    def info(self, now: float) -> StreamInfo:
        """Describe the stream as it is at ``now``, expired streams as such; not to be handed out."""
        if now < self.deadline or self._info.state in ("deleted", "expired"):
            return self._info
        return _fence(self._info, "expired")

    def outlived(self, now: float) -> bool:
        """Say whether even the fence is over: the stream is as if it had never been."""
        return now >= self.deadline and now >= self.gone

    @property
    def gone(self) -> float:
        """When the fence is over."""
        fenced = self._info.state in ("deleted", "expired")
        return self.deadline if fenced else self.deadline + self._info.retention.fence_seconds

    def describe(self, now: float) -> StreamInfo:
        """Describe the stream for a caller."""
        info = self.info(now)
        return replace(info, metadata=fresh(info.metadata))

    def touch(self, now: float) -> None:
        """Begin an un-ended run's retention anew, never to its disadvantage."""
        info = self.info(now)
        if info.state == "open":
            self.deadline = max(self.deadline, now + info.retention.unfinished_seconds)

    def store(self, append: Append, size_bytes: int, now: float) -> None:
        """Store an admitted append."""
        info, log = self._info, self.log
        retention = info.retention
        metadata = info.metadata if append.metadata is None else fresh(append.metadata)  # first: it may raise
        if append.chunks:
            log.add(append, size_bytes)
            if retention.overflow == "trim":
                log.trim(max_bytes=retention.max_bytes, max_chunks=retention.max_chunks)
        ended = append.end is not None
        if ended:
            self.end_nonce = append.nonce
        self.deadline = now + (retention.ended_seconds if ended else retention.unfinished_seconds)
        # In place, for nobody else holds it (`describe` copies): to make it anew would be a third of an append.
        change = object.__setattr__
        change(info, "first", log.first)
        change(info, "tail", log.tail)
        change(info, "size_bytes", log.size_bytes)
        if metadata is not info.metadata:
            change(info, "metadata", metadata)
        if ended:
            change(info, "state", "ended")
            change(info, "end", append.end)

    def page(self, read: Read, now: float) -> Page:
        """Answer a read; raise for a fence."""
        info = self.info(now)
        check_present(info)
        return Page(
            run=info.run,
            attended=info.attended,
            spans=info.spans,
            chunks=self.log.page(read.after_index, max_chunks=read.max_chunks, max_bytes=read.max_bytes),
            first=info.first,
            tail=info.tail,
            end=info.end,
            metadata=fresh(info.metadata),
        )

    def delete(self, now: float) -> None:
        """Become the fence of a deleted stream."""
        self._info = _fence(self._info, "deleted")
        self.log = ChunkLog()
        self.deadline = now + self._info.retention.fence_seconds

    def expire(self) -> None:
        """Become the fence of an expired stream: it stands from the moment of expiry, not from this call."""
        self.deadline = self.gone
        self._info = _fence(self._info, "expired")
        self.log = ChunkLog()


def _fence(info: StreamInfo, state: str) -> StreamInfo:
    return replace(
        info,
        state="deleted" if state == "deleted" else "expired",
        first=info.tail + 1,
        size_bytes=0,
        metadata={},
    )


def page_of(stream: StoredStream | None, read: Read, now: float) -> Page:
    """Answer a read of what is stored; raise where nothing is."""
    if stream is None:
        raise StreamNotFoundError(read.key)
    return stream.page(read, now)
