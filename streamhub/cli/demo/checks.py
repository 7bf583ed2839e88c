"""Is what a subscriber got what the producers sent? In words, if not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


class Received(NamedTuple):
    """One chunk as a subscriber's process reported it."""

    offset: str
    text: str

    @property
    def number(self) -> int:
        """The chunk's index in the run."""
        return int(self.offset.partition("-")[2])


def faults(received: Sequence[Received], words: Sequence[str]) -> list[str]:
    """Return what is wrong; nothing if every word came once, in order, at its own offset."""
    indexes = [chunk.number for chunk in received]
    counts = Counter(indexes)
    found: list[str] = []
    if lost := [index for index in range(1, len(words) + 1) if not counts[index]]:
        found.append(f"lost: {_some(lost)}")
    if doubled := [index for index, count in counts.items() if count > 1]:
        found.append(f"doubled: {_some(doubled)}")
    if reordered := [after for before, after in pairwise(indexes) if after < before]:
        found.append(f"out of order: {_some(reordered)}")
    if alien := [index for index in counts if index > len(words)]:
        found.append(f"never sent: {_some(alien)}")
    if not found and [chunk.text for chunk in received] != list(words):
        found.append("the words are not the producer's")
    return found


def generations(received: Sequence[Received]) -> list[str]:
    """Return the generations that wrote what was received, in order."""
    return list(dict.fromkeys(chunk.offset.partition("-")[0] for chunk in received))


def _some(indexes: Sequence[int]) -> str:
    more = ", ..." if len(indexes) > 5 else ""
    return "chunk " + ", ".join(map(str, indexes[:5])) + more
