"""The newest chunks of a followed run, decoded once and shared by its live subscribers; bounded in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from streamhub.cursor import number_chunks
from streamhub.reader import LoadedPage
from streamhub.types import Append, Chunk, End, Span


class Window:
    """A contiguous stretch of one run, up to the last index known."""

    def __init__(self, loaded: LoadedPage, max_bytes: int) -> None:
        page = loaded.page
        self.run: str = page.run
        self.spans: Sequence[Span] = page.spans
        self.end: End | None = None
        self.tail: int = loaded.after
        self._blocks: deque[tuple[int, list[Chunk], int]] = deque()  # (first index, chunks, bytes)
        self._bytes = 0
        self._max_bytes = max_bytes
        self.extend(loaded)

    def extend(self, loaded: LoadedPage) -> None:
        """Take in a page of the same run that begins at or before the tail + 1."""
        page = loaded.page
        if page.spans[-1].generation > self.spans[-1].generation:
            self.spans = page.spans
        new = loaded.chunks[max(self.tail - loaded.after, 0) :]
        if new:
            self._add(new)
        if page.end is not None and self.tail == page.tail:
            self.end = page.end

    def push(self, append: Append) -> bool:
        """Take in a pushed append; False if it does not fit right behind the tail, in the generation delivered last."""
        if append.generation != self.spans[-1].generation or append.first != self.tail + 1 or self.end is not None:
            return False
        if append.chunks:
            self._add(number_chunks(append.chunks, append.first, self.spans))
        self.end = append.end
        return True

    def holds(self, append: Append) -> bool:
        """Say whether a pushed append brings nothing new."""
        same = append.generation == self.spans[-1].generation
        return same and append.last <= self.tail and (append.end is None or self.end is not None)

    def _add(self, chunks: list[Chunk]) -> None:
        size = sum([len(chunk.data) for chunk in chunks])
        self._blocks.append((self.tail + 1, chunks, size))
        self.tail += len(chunks)
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._blocks) > 1:
            self._bytes -= self._blocks.popleft()[2]

    def after(self, index: int) -> list[Chunk]:
        """Return the stretch of chunks that begins at ``index + 1``; empty when it is not here."""
        if index < self.tail:
            for first, chunks, _ in reversed(self._blocks):
                if first <= index + 1:
                    return chunks if first == index + 1 else chunks[index + 1 - first :]
        return []
