"""Names of JetStream streams and subjects.

A stream key is one token of a subject. Bytes other than letters, digits and ``_-:/@+,~`` are written ``=XX``, so that
no two keys share a subject, and keys with a common beginning have subjects with one::

    SH_<namespace>    sh.<namespace>.s.<key>           the records of a stream
                      sh.<namespace>.d.<life>.<key>    when it may have expired (see agenda.py)
                      sh.<namespace>.lives             which lives there are
    SHL_<namespace>   sh.<namespace>.l.<key>           a lease
    SHC_<namespace>   sh.<namespace>.c.<key>.<run>     a cancel request

What is stored of a stream or a request is published again under ``sh.<namespace>.live.<key>`` and
``sh.<namespace>.asked.<key>.<run>``.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote_to_bytes

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-:/@+,~")

_ENCODED = tuple(chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in range(256))


def encode(name: str) -> str:
    """Write a stream key or a run's name as one token of a subject; reversible."""
    return "".join([_ENCODED[byte] for byte in name.encode()])


def decode(token: str) -> str:
    """Read what ``encode`` wrote."""
    return unquote_to_bytes(token.replace("=", "%")).decode()


class Names:
    """The names of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.streams: str = f"SH_{namespace}"
        self.leases: str = f"SHL_{namespace}"
        self.cancels: str = f"SHC_{namespace}"
        self.root: str = f"sh.{namespace}"
        self.lives: str = f"{self.root}.lives"
        self.stream = lru_cache(maxsize=4096)(self._stream)

    def _stream(self, key: str) -> str:
        return f"{self.root}.s.{encode(key)}"

    def live(self, key: str) -> str:
        """Return the subject on which a stream's records are published again."""
        return f"{self.root}.live.{encode(key)}"

    def due(self, life: int, key: str) -> str:
        """Return the subject that says when a stream may have expired."""
        return f"{self.root}.d.{life}.{encode(key)}"

    def due_filter(self, life: int) -> str:
        """Return what matches the entries of one life."""
        return f"{self.root}.d.{life}.*"

    def lease(self, key: str) -> str:
        """Return the subject of a lease."""
        return f"{self.root}.l.{encode(key)}"

    def cancel(self, key: str, run: str) -> str:
        """Return the subject of a cancel request."""
        return f"{self.root}.c.{encode(key)}.{encode(run)}"

    def asked(self, key: str, run: str) -> str:
        """Return the subject on which a cancel request is published again."""
        return f"{self.root}.asked.{encode(key)}.{encode(run)}"

    def key_of(self, subject: str) -> str:
        """Return the stream key in the last token of a subject."""
        return decode(subject.rpartition(".")[2])
