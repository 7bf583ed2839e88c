"""UI message chunks, and which parts of a message they have begun and not ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

UIChunk: TypeAlias = dict[str, Any]
"""A chunk of the AI SDK's UI message stream: ``{"type": "text-delta", "id": …, "delta": …}`` and so on."""

_STARTS = {"text-start": "text", "reasoning-start": "reasoning"}
_ENDS = {"text-end": "text", "reasoning-end": "reasoning"}


class OpenParts:
    """Follows a message's chunks; knows the text and reasoning parts that are open."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], None] = {}

    def follow(self, chunk: UIChunk) -> None:
        """Take the next chunk."""
        kind, part = str(chunk.get("type")), str(chunk.get("id"))
        if kind in _STARTS:
            self._open[_STARTS[kind], part] = None
        elif kind in _ENDS:
            self._open.pop((_ENDS[kind], part), None)

    def ends(self) -> Iterator[UIChunk]:
        """Yield the chunks that end what is open."""
        while self._open:
            kind, part = next(iter(self._open))
            del self._open[kind, part]
            yield {"type": f"{kind}-end", "id": part}


class Writer:
    """Turns deltas into a message's parts: begins a part with its first delta, ends it when another one begins."""

    def __init__(self) -> None:
        self._kind: str | None = None
        self._count = 0

    def delta(self, kind: str, delta: str) -> Iterator[UIChunk]:
        """Yield a delta of a ``text`` or ``reasoning`` part, and what must come before it."""
        if not delta:
            return
        if self._kind != kind:
            yield from self.close()
            self._kind = kind
            self._count += 1
            yield {"type": f"{kind}-start", "id": self._id}
        yield {"type": f"{kind}-delta", "id": self._id, "delta": delta}

    def close(self) -> Iterator[UIChunk]:
        """Yield the end of the part that is open."""
        if self._kind is not None:
            yield {"type": f"{self._kind}-end", "id": self._id}
            self._kind = None

    @property
    def _id(self) -> str:
        return f"part-{self._count}"
