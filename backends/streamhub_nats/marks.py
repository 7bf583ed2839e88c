"""Marks: where the earlier chunks of a run are, in every record, so that any chunk is found in a few steps.

A mark is the sequence number of a record, and the index of its last chunk. A record has a mark of the one before it,
and of ever fewer ones further back: at most two for each power of two. From the newest record, each step thus goes back
about half of the way that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_SAME_LEVEL = 3


class Mark(NamedTuple):
    """A record with chunks: its level, its sequence number, and the index of its last chunk."""

    level: int
    sequence: int
    last: int


def after(marks: Sequence[Mark], sequence: int, last: int) -> tuple[Mark, ...]:
    """Return the marks of the record that follows one with ``marks``, at ``sequence``, with chunks up to ``last``."""
    new = [Mark(0, sequence, last), *marks]  # the newest first, so levels only grow
    level = place = 0
    while place + _SAME_LEVEL <= len(new) and new[place + _SAME_LEVEL - 1].level == level:
        # Of three, the one in the middle goes and the oldest counts for both.
        del new[place + 1]
        place, level = place + 1, level + 1
        oldest = new[place]
        new[place] = Mark(level, oldest.sequence, oldest.last)
    return tuple(new)


def before(marks: Sequence[Mark], index: int) -> Mark | None:
    """Return the mark to go on from: the oldest whose last chunk is at ``index`` or behind it."""
    fitting = [mark for mark in marks if mark.last >= index]
    return min(fitting, key=lambda mark: mark.last) if fitting else None


def kept(marks: Sequence[Mark], first: int) -> tuple[Mark, ...]:
    """Return the marks of records that still hold a chunk from ``first`` on."""
    if not marks or marks[-1].last >= first:  # the oldest is the last one
        return tuple(marks)
    return tuple(mark for mark in marks if mark.last >= first)
