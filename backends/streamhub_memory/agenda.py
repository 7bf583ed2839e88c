"""What falls due when: finds the few expired entries of a large mapping without scanning it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=str | tuple[str, str])


class Agenda(Generic[K]):
    """Keys by the time at which they are to be looked at again; at most one live entry each."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, K]] = []
        self._planned: dict[K, float] = {}

    def plan(self, key: K, due: float) -> None:
        """See to it that ``key`` comes up at ``due`` or before. Cheap when it is planned earlier already."""
        if due < self._planned.get(key, math.inf):
            self._planned[key] = due
            heapq.heappush(self._heap, (due, key))

    def due(self, now: float, due_of: Callable[[K], float | None]) -> Iterator[K]:
        """Yield keys that are due; each leaves the agenda before it is yielded.

        Args:
            now: the present.
            due_of: when a key is really due (it may have been put off since), None if it is gone.
        """
        while self._heap and self._heap[0][0] <= now:
            planned, key = heapq.heappop(self._heap)
            if self._planned.get(key) != planned:  # planned again for an earlier time
                continue
            del self._planned[key]
            due = due_of(key)
            if due is None:
                continue
            if due <= now:
                yield key
            else:
                self.plan(key, due)
