"""What a run looks like as server-sent events: its chunks, its ends, and what else a reader must be told."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias, get_args

from streamhub.errors import ConfigError
from streamhub.sse import encode_comment, encode_event
from streamhub.types import Chunk, End, Offset

Payload: TypeAlias = Literal["text", "json", "base64"]
"""How a chunk becomes an event's data.

``text``: as it is; line ends reach the client as LF, as the format has it. For payloads that are JSON already, and
for text in which CR does not matter. ``json``: as a JSON string, which keeps every character. ``base64``: any bytes.
"""

Reset: TypeAlias = Literal["replaced", "trimmed", "unknown"]
"""Why a client must forget what it has read: another run took its place, its position is kept no more, or the
position is beyond all that is stored."""

Gone: TypeAlias = Literal["not_found", "deleted", "expired", "replaced", "unreadable"]
"""Why there is nothing to read, now or later."""

END_SUFFIX = "-end"
"""What follows the offset in the id of a last event: a client that sends it has seen the end."""


class Unreadable(Exception):  # noqa: N818 - no error of the caller's: it becomes an event
    """A chunk cannot be written as the format asks for."""


class EventFormat(Protocol):
    """Turns what a subscription tells into bytes, for one response."""

    headers: tuple[tuple[bytes, bytes], ...]
    """Headers beside those of every event stream."""

    def opened(self, position: Offset | None) -> bytes:
        """Begin; ``position`` is where the reader begins if the client named none."""
        ...

    def chunk(self, chunk: Chunk) -> bytes:
        """Write one chunk; ``Unreadable`` if that cannot be."""
        ...

    def reset(self, reason: Reset) -> bytes:
        """Tell that what was read before is void; a run from its first chunk follows."""
        ...

    def abandoned(self) -> bytes:
        """Tell that nobody produces the run at present; the response is cut off after it."""
        ...

    def ended(self, end: End, position: Offset | None) -> bytes:
        """Write the run's end: the last bytes of the body."""
        ...

    def gone(self, reason: Gone, position: Offset | None) -> bytes:
        """Tell that there is nothing to read: the last bytes of the body."""
        ...


class PlainFormat:
    """Chunks as ``message`` events, and the events ``reset``, ``abandoned``, ``end`` and ``gone``.

    One object may serve many responses; readers of one stream then share what they are sent. ``id_last``: see
    ``streamhub.sse.encode_event``.
    """

    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self, payload: Payload = "text", *, id_last: bool = False) -> None:
        if payload not in _ENCODERS:
            raise ConfigError(f"payload={payload!r}: use one of {', '.join(map(repr, get_args(Payload)))}")
        self._encode = _ENCODERS[payload]
        self._event = partial(encode_event, id_last=id_last)
        self._written: tuple[Chunk | None, bytes] = (None, b"")

    def opened(self, position: Offset | None) -> bytes:
        """Prime the client with an id, so that it resumes this run even if no chunk reaches it."""
        prime = b"" if position is None else encode_event(None, event_id=str(position))
        return encode_comment("open") + prime

    def chunk(self, chunk: Chunk) -> bytes:
        """Write a chunk under its offset."""
        written, event = self._written
        if written is not chunk:
            event = self._event(self._encode(chunk), event_id=str(chunk.offset))
            self._written = (chunk, event)
        return event

    def reset(self, reason: Reset) -> bytes:
        """Write ``reset``, with an empty id: until the next event there is no position."""
        return self._event(_json({"reason": reason}), event_id="", name="reset")

    def abandoned(self) -> bytes:
        """Write ``abandoned``; the position stays."""
        return encode_event(b"{}", name="abandoned")

    def ended(self, end: End, position: Offset | None) -> bytes:
        """Write ``end``."""
        return self._event(_json(told(end)), event_id=last_id(position), name="end")

    def gone(self, reason: Gone, position: Offset | None) -> bytes:
        """Write ``gone``."""
        return self._event(_json({"reason": reason}), event_id=last_id(position), name="gone")


def told(end: End) -> dict[str, str]:
    """Return what a client may know of an end. Who asked for a cancel is left out: it may be another user."""
    facts = {"state": end.state, "code": end.code, "message": end.message, "reason": end.reason}
    return {name: value for name, value in facts.items() if value is not None}


def last_id(position: Offset | None) -> str:
    """Return the id of a last event, which tells a position and that nothing follows it."""
    return f"{position or '0-0'}{END_SUFFIX}"


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _text(chunk: Chunk) -> bytes:
    try:
        chunk.data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise Unreadable("the chunk is not UTF-8") from exc
    return chunk.data


def _json_text(chunk: Chunk) -> bytes:
    try:
        return json.dumps(chunk.text, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as exc:
        raise Unreadable("the chunk is not UTF-8") from exc


def _base64(chunk: Chunk) -> bytes:
    return base64.b64encode(chunk.data)


_ENCODERS: dict[Payload, Callable[[Chunk], bytes]] = {"text": _text, "json": _json_text, "base64": _base64}
