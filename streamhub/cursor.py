"""Whether a cursor still points at a stream's content: pure checks against a run's spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from streamhub.errors import OffsetTrimmedError, StreamReplacedError
from streamhub.types import Chunk, Offset, Span

Position = Literal["within", "beyond"]


def generation_at(spans: Sequence[Span], index: int) -> int:
    """Return the generation that wrote, or would write, ``index``."""
    last = spans[-1]
    if last.first <= index or len(spans) == 1:
        return last.generation
    return next(span.generation for span in reversed(spans) if span.first <= index or span is spans[0])


def locate(key: str, cursor: Offset, *, run: str, spans: Sequence[Span], tail: int) -> Position:
    """Say whether ``cursor`` lies within a run, or beyond its tail.

    ``g-0`` with the run's first generation is its start.

    Raises:
        StreamReplacedError: it is not, and will not be, a position of this run.
    """
    if cursor.generation > spans[-1].generation:
        return "beyond"
    for number, span in enumerate(spans):
        if span.generation != cursor.generation:
            continue
        lowest = 0 if number == 0 else span.first
        last_span = number + 1 == len(spans)
        highest = cursor.index if last_span else spans[number + 1].first - 1
        if lowest <= cursor.index <= highest:
            return "beyond" if cursor.index > tail else "within"
    raise StreamReplacedError(key, run=run)


def check_kept(key: str, index: int, *, first: int) -> None:
    """Raise ``OffsetTrimmedError`` if the chunk after ``index`` has been trimmed."""
    if index + 1 < first:
        raise OffsetTrimmedError(key, first=first)


def number_chunks(payloads: Sequence[bytes], first: int, spans: Sequence[Span]) -> list[Chunk]:
    """Give payloads that begin at index ``first`` their offsets."""
    if not payloads:
        return []
    generation = generation_at(spans, first)
    last = first + len(payloads) - 1
    if spans[-1].first <= first or generation == generation_at(spans, last):
        return [Chunk(Offset(generation, index), data) for index, data in enumerate(payloads, first)]
    return [Chunk(Offset(generation_at(spans, index), index), data) for index, data in enumerate(payloads, first)]
