"""The chunks of one run, kept append by append."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from streamhub.types import Append


class _Record(NamedTuple):
    first: int
    chunks: tuple[bytes, ...]
    nonce: bytes
    size_bytes: int

    @property
    def last(self) -> int:
        return self.first + len(self.chunks) - 1


_GONE = _Record(0, (), b"", 0)

# Trimmed records keep their place until there are as many of them as of kept ones: trimming stays O(1) an append.
_COMPACT = 64


class ChunkLog:
    """Chunks ``first`` to ``tail``; each append's nonce is found by its index.

    A record goes when its last chunk is trimmed, so the newest one, which a retry may ask for, always stays.
    """

    def __init__(self) -> None:
        self.first = 1
        self.tail = 0
        self.size_bytes = 0
        self._records: list[_Record] = []
        self._firsts: list[int] = []
        self._head = 0

    def add(self, append: Append, size_bytes: int) -> None:
        """Add an append's chunks after the tail."""
        self._records.append(_Record(append.first, append.chunks, append.nonce, size_bytes))
        self._firsts.append(append.first)
        self.tail = append.last
        self.size_bytes += size_bytes

    def nonce_at(self, index: int) -> bytes | None:
        """Return the nonce of the record that holds ``index``, None if there is none."""
        if index > self.tail:
            return None
        position = self._position(index)
        return None if position is None else self._records[position].nonce

    def _position(self, index: int) -> int | None:
        position = bisect_right(self._firsts, index) - 1
        return position if position >= self._head else None

    def trim(self, *, max_bytes: int, max_chunks: int | None) -> None:
        """Drop the oldest chunks beyond the caps, never the newest."""
        most = self.tail if max_chunks is None else max_chunks
        while self.first < self.tail and (self.size_bytes > max_bytes or self.tail - self.first + 1 > most):
            record = self._records[self._head]
            self.size_bytes -= len(record.chunks[self.first - record.first])
            self.first += 1
            if self.first > record.last:
                self._records[self._head] = _GONE
                self._head += 1
        if self._head > _COMPACT and self._head * 2 > len(self._records):
            del self._records[: self._head], self._firsts[: self._head]
            self._head = 0

    def page(self, after_index: int, *, max_chunks: int, max_bytes: int) -> tuple[bytes, ...]:
        """Return the chunks after ``after_index`` up to either bound, at least one; none if it is not kept."""
        index = after_index + 1
        if not self.first <= index <= self.tail:
            return ()
        position = self._position(index)
        if position is None:  # pragma: no cover - every index from first to tail is in a record
            return ()
        chunks: list[bytes] = []
        skip = index - self._records[position].first
        for at in range(position, len(self._records)):
            record = self._records[at]
            if not skip and record.size_bytes <= max_bytes and len(record.chunks) <= max_chunks:
                taken, size = record.chunks, record.size_bytes
            else:
                taken, size = _fit(record.chunks, skip, max_chunks, max_bytes, at_least_one=not chunks)
            chunks += taken
            if skip + len(taken) < len(record.chunks):
                break
            skip = 0
            max_chunks -= len(taken)
            max_bytes -= size
            if max_chunks < 1 or max_bytes < 1:
                break
        return tuple(chunks)


def _fit(
    chunks: tuple[bytes, ...], skip: int, max_chunks: int, max_bytes: int, *, at_least_one: bool
) -> tuple[tuple[bytes, ...], int]:
    size = 0
    end = skip
    for chunk in chunks[skip : skip + max(max_chunks, 1)]:
        if size + len(chunk) > max_bytes and (end > skip or not at_least_one):
            break
        size += len(chunk)
        end += 1
    return chunks[skip:end], size
