"""Times as the server writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

MILLISECOND = 1_000_000
SECOND = 1_000_000_000


def nanoseconds(text: str) -> int:
    """Read an RFC 3339 time of up to nine digits behind the point, as nanoseconds since 1970."""
    head, point, rest = text.partition(".")
    if not point:
        return int(datetime.fromisoformat(text).timestamp()) * SECOND
    digits = rest.rstrip("Z")
    if not digits.isdecimal():  # an offset follows: not what a server writes, but what it may
        return int(datetime.fromisoformat(text).timestamp() * SECOND)
    return _whole(head) + int(digits.ljust(9, "0")[:9])


@lru_cache(maxsize=16)
def _whole(second: str) -> int:
    # Thousands of messages have the same one.
    return int(datetime.fromisoformat(second).replace(tzinfo=UTC).timestamp()) * SECOND
