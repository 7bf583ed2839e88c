"""One stream's file: frames, each a change of the stream's facts with the chunks that came with it.

The file begins with 16 random bytes. A frame is its length, its checksum, a line of JSON and packed chunks. A frame
that a dying process left unfinished does not count; the next one is written over it.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from streamhub import UnsupportedFormatError
from streamhub.records import pack_chunks, unpack_chunks
from streamhub_shelf.directory import Directory

FORMAT = 1
HEAD = struct.Struct(">II")


class Record(NamedTuple):
    """Where the chunks of one append are in the file, and its nonce."""

    first: int
    nonce: bytes
    position: int
    size: int


class Log:
    """A stream's facts, and where its chunks are, as read from its file so far."""

    def __init__(self, directory: Directory, path: Path) -> None:
        self._directory = directory
        self._path = path
        self._forget(b"")

    def _forget(self, identity: bytes) -> None:
        self.facts: dict[str, Any] = {}
        self._records: list[Record] = []
        self._identity = identity
        self._end = len(identity)

    def refresh(self) -> None:
        """Read what was added since the last time; everything, if it is another file."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            self._forget(b"")
            return
        with file:
            if (identity := file.read(16)) != self._identity:
                self._forget(identity)
            file.seek(self._end)
            while (body := _frame_body(file.read(HEAD.size), file.read)) is not None:
                self._take(body)
                self._end = file.tell()

    def _take(self, body: bytes) -> None:
        line, _, packed = body.partition(b"\n")
        change = json.loads(line)
        version, nonce = change.pop("v"), change.pop("nonce", "")
        if version != FORMAT:
            raise UnsupportedFormatError("a frame of a shelf", found=version, known=FORMAT)
        if packed:
            position = self._end + HEAD.size + len(line) + 1
            self._records.append(Record(self.facts["tail"] + 1, bytes.fromhex(nonce), position, len(packed)))
        self.facts.update(change)

    def add(self, change: dict[str, Any], chunks: Sequence[bytes] = ()) -> None:
        """Write one frame, behind the last whole one."""
        with self._path.open("r+b") as file:
            file.truncate(self._end)
            file.seek(self._end)
            file.write(_frame(change, chunks))
            file.flush()
            self._directory.sync(file.fileno())
        self.refresh()

    def begin(self, facts: dict[str, Any]) -> None:
        """Replace the file by one of a single frame, without chunks."""
        self._directory.write(self._path, os.urandom(16) + _frame(facts, ()))
        self.refresh()

    def nonce_at(self, index: int) -> bytes | None:
        """Return the nonce of the append that holds ``index``."""
        record = next(self._records_from(index), None)
        return record and record.nonce

    def chunks_from(self, index: int) -> Iterator[bytes]:
        """Read the chunks from ``index`` on, those of one append at a time."""
        with self._path.open("rb") as file:
            for record in self._records_from(index):
                file.seek(record.position)
                yield from unpack_chunks(file.read(record.size), max(index - record.first, 0))

    def _records_from(self, index: int) -> Iterator[Record]:
        if self._records and index <= self.facts["tail"]:
            at = bisect_right(self._records, index, key=lambda record: record.first) - 1
            yield from islice(self._records, at, None)


def _frame(change: dict[str, Any], chunks: Sequence[bytes]) -> bytes:
    line = json.dumps({"v": FORMAT, **change}, separators=(",", ":")).encode()
    body = line + b"\n" + (pack_chunks(chunks) if chunks else b"")
    return HEAD.pack(len(body), zlib.crc32(body)) + body


def _frame_body(head: bytes, read: Callable[[int], bytes]) -> bytes | None:
    """Read the frame that begins with ``head``; None if it is not whole."""
    if len(head) < HEAD.size:
        return None
    length, checksum = HEAD.unpack(head)
    body = read(length)
    return body if len(body) == length and zlib.crc32(body) == checksum else None
