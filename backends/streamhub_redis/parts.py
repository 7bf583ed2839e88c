"""Long calls in parts: what else is sent meanwhile goes out between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 64
"""How many scripts keep others waiting: some milliseconds. A process may hold thousands of leases."""


def parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield all items, some at a time."""
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]
