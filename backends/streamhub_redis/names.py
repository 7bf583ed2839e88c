"""Names of keys and channels.

A stream key is percent-encoded inside a hash tag, so that all that is stored for it lies in one slot of a cluster and
no two stream keys share a name::

    <prefix>:{<key>}:meta         hash      what describes the stream, or its fence
    <prefix>:{<key>}:log          stream    its chunks
    <prefix>:{<key>}:lease        hash      who may produce
    <prefix>:{<key>}:cancel:<run> string    a cancel request

Changes of a stream are published on a channel with the name of its log, requests on one with the name of their key,
followed by ``@`` and the database where it is not 0: channels are shared by all databases. An ``@`` of a run's own is
percent-encoded too: the channel of run ``r@1`` is not that of ``r`` in database 1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

_ENCODED = {number: f"%{number:02X}" for number in (*range(0x20), 0x7F, *b"%{}")}

# Characters that a MATCH pattern gives a meaning to.
_PATTERN = {ord(character): f"\\{character}" for character in "\\*?[]^-"}


def encode(name: str) -> str:
    """Write a stream key or a run's name so that it can stand inside a hash tag; reversible."""
    return name.translate(_ENCODED)


class StreamKeys(NamedTuple):
    """The two keys of a stream."""

    meta: bytes
    log: bytes


class Names:
    """The names under one prefix, in one database."""

    def __init__(self, prefix: str, db: int) -> None:
        self._prefix = prefix
        self.channel_suffix = f"@{db}".encode() if db else b""
        self.stream = lru_cache(maxsize=4096)(self._stream)

    def _of(self, key: str, rest: str) -> bytes:
        return f"{self._prefix}:{{{encode(key)}}}:{rest}".encode()

    def _stream(self, key: str) -> StreamKeys:
        return StreamKeys(self._of(key, "meta"), self._of(key, "log"))

    def lease(self, key: str) -> bytes:
        """Return the key of a lease."""
        return self._of(key, "lease")

    def cancel(self, key: str, run: str) -> bytes:
        """Return the key of a cancel request."""
        return self._of(key, f"cancel:{encode(run).replace('@', '%40')}")

    def changes_channel(self, key: str) -> bytes:
        """Return the channel that tells of a stream's changes."""
        return self.stream(key).log + self.channel_suffix

    def cancel_channel(self, key: str, run: str) -> bytes:
        """Return the channel that tells of a run's cancel request."""
        return self.cancel(key, run) + self.channel_suffix

    def meta_pattern(self, prefix: str) -> bytes:
        """Return the pattern that the ``meta`` keys match whose stream keys begin with ``prefix``."""
        return f"{self._prefix.translate(_PATTERN)}:{{{encode(prefix).translate(_PATTERN)}*}}:meta".encode()

    def stream_key(self, meta: bytes) -> str:
        """Return the stream key that a ``meta`` key stands for."""
        return unquote_to_bytes(meta[len(self._prefix) + 2 : -len("}:meta")]).decode()
