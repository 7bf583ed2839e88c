"""Times as the server writes them."""

from __future__ import annotations

from datetime import UTC, datetime

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
    seconds = int(datetime.fromisoformat(head).replace(tzinfo=UTC).timestamp())
    return seconds * SECOND + int(digits.ljust(9, "0")[:9])
