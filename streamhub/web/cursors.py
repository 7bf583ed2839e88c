"""Where a client wants to go on: ``Last-Event-ID``, as the WHATWG has it, or ``?after=``."""

from __future__ import annotations

from typing import NamedTuple

from starlette.datastructures import Headers, QueryParams
from starlette.types import Scope

from streamhub.errors import InvalidOffsetError
from streamhub.inputs import parse_after
from streamhub.types import Offset
from streamhub.web.formats import END_SUFFIX

MAX_CURSOR_CHARS = 64


class Cursor(NamedTuple):
    """``after`` is as ``hub.subscribe`` takes it. ``ended``: the client has seen the run's end."""

    after: Offset | str | None
    ended: bool = False

    @property
    def names_position(self) -> bool:
        """Whether the client has read before."""
        return isinstance(self.after, Offset)


def cursor_of(scope: Scope) -> Cursor:
    """Read the cursor of a request. The header goes before the query: a client that reconnects repeats its URL.

    Raises:
        InvalidOffsetError: it is no offset.
    """
    text = Headers(scope=scope).get("last-event-id") or QueryParams(scope.get("query_string", b"")).get("after")
    return Cursor(None) if not text else parse_cursor(text)


def parse_cursor(text: str) -> Cursor:
    """Read an event id, ``start`` or ``latest``."""
    if len(text) > MAX_CURSOR_CHARS:
        raise InvalidOffsetError(f"an event id of {len(text)} characters: ids have at most {MAX_CURSOR_CHARS}")
    if not text.endswith(END_SUFFIX):
        return Cursor(parse_after(text))
    position = text.removesuffix(END_SUFFIX)
    return Cursor(None if position == "0-0" else Offset.parse(position), ended=True)
