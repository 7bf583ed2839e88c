"""A run of UI message chunks as the AI SDK's transport reads it: ``data:`` lines alone, then ``[DONE]``."""

from __future__ import annotations

import json
from typing import Any, cast

from streamhub.sse import encode_comment, encode_event
from streamhub.types import Chunk, End, Offset
from streamhub.web.aisdk.parts import OpenParts, UIChunk
from streamhub.web.formats import Gone, Reset, Unreadable, last_id

PROTOCOL_HEADER = (b"x-vercel-ai-ui-message-stream", b"v1")


class ChatFormat:
    """Chunks as they are stored. A run that ended early ends its open parts and says why, in the protocol's words.

    For a reader that goes on after a position, ``parts`` are those that are open there.
    """

    headers: tuple[tuple[bytes, bytes], ...] = (PROTOCOL_HEADER,)

    def __init__(self, parts: OpenParts | None = None) -> None:
        self._parts = parts or OpenParts()

    def opened(self, position: Offset | None) -> bytes:
        """Prime the client with an id, for one that keeps it."""
        prime = b"" if position is None else encode_event(None, event_id=str(position))
        return encode_comment("open") + prime

    def chunk(self, chunk: Chunk) -> bytes:
        """Write a chunk under its offset."""
        self._parts.follow(read_chunk(chunk))
        return encode_event(chunk.data, event_id=str(chunk.offset))

    def reset(self, reason: Reset) -> bytes:
        """Forget what is open: the run's ``start`` chunk, which follows, makes the client begin the message anew."""
        self._parts = OpenParts()
        return encode_event(None, event_id="")

    def abandoned(self) -> bytes:
        """Tell by an error chunk that nobody goes on with the answer at present."""
        return self._events({"type": "error", "errorText": "the answer was interrupted"})

    def ended(self, end: End, position: Offset | None) -> bytes:
        """End what is open, say why if the run did not complete, and close the protocol."""
        told = b""
        if end.state == "cancelled":
            told = self._events(*self._parts.ends(), {"type": "abort", "reason": end.reason or "stopped"})
        elif end.state == "failed":
            error = {"type": "error", "errorText": end.message or "the answer failed"}
            told = self._events(*self._parts.ends(), error)
        return told + encode_event(b"[DONE]", event_id=last_id(position))

    def gone(self, reason: Gone, position: Offset | None) -> bytes:
        """Tell by an error chunk that there is nothing to read."""
        error = self._events({"type": "error", "errorText": f"the answer is not there ({reason})"})
        return error + encode_event(b"[DONE]", event_id=last_id(position))

    def _events(self, *chunks: UIChunk) -> bytes:
        return b"".join(encode_event(json.dumps(chunk).encode()) for chunk in chunks)


def read_chunk(chunk: Chunk) -> UIChunk:
    """Return a stored chunk's object; ``Unreadable`` if it is none."""
    try:
        value: Any = chunk.json()
    except (ValueError, RecursionError) as exc:
        raise Unreadable("the chunk is not JSON") from exc
    if not isinstance(value, dict):
        raise Unreadable("the chunk is no object")
    return cast("UIChunk", value)
