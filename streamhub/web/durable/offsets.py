"""Offsets and cursors on the wire: fixed width, so that they sort as text."""

from __future__ import annotations

import random
import re
import time
from typing import Literal, TypeAlias

from streamhub.types import Offset

Place: TypeAlias = Offset | Literal["start", "now"]
"""Where a reader begins."""

CURSOR_SECONDS = 20
CURSOR_EPOCH = 1_728_432_000  # 2024-10-09T00:00:00Z
LONGEST_JITTER_SECONDS = 3600
MAX_CURSOR_DIGITS = 15

_OFFSET = re.compile("([0-9]{16})_([0-9]{16})")


class BadQueryError(ValueError):
    """A query that asks for nothing this server knows, as an offset of another form; the message may be shown."""


def write_offset(offset: Offset) -> str:
    """Write an offset: sixteen digits each, larger ones of a stream sort later."""
    return f"{offset.generation:016}_{offset.index:016}"


def read_place(text: str | None) -> Place:
    """Read where a reader begins; nothing and ``-1`` are the start.

    Raises:
        BadQueryError: it is not what ``write_offset`` writes.
    """
    if text is None or text == "-1":
        return "start"
    if text == "now":
        return "now"
    match = _OFFSET.fullmatch(text)
    if match is None:
        raise BadQueryError("malformed offset: use -1, now or a Stream-Next-Offset")
    return Offset(int(match[1]), int(match[2]))


def next_cursor(given: str | None) -> str:
    """Return the cursor of a live answer: the number of the present interval, but always more than the reader gave.

    It is part of the reader's next URL, so that no cache answers it for ever with what it holds.
    """
    now = int(time.time() - CURSOR_EPOCH) // CURSOR_SECONDS
    if given is None or len(given) > MAX_CURSOR_DIGITS or not (given.isascii() and given.isdigit()):
        return str(now)
    if int(given) < now:
        return str(now)
    return str(int(given) + max(1, random.randint(1, LONGEST_JITTER_SECONDS) // CURSOR_SECONDS))
