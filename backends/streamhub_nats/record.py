"""What is stored of a stream: records, each with all that is needed to judge the stream by its newest one.

A record is a line of JSON, and a body. Version 1 of the line::

    {"v": 1, "kind": "open" | "append" | "touch" | "part" | "fence",
     "generation": …, "state": "open" | "ended" | "deleted" | "expired",
     "first": …, "tail": …, "size": …,      as they are once this record is stored
     "open": [sequence, id],                the record that began the generation; sequence 0 is this one
     "metadata": sequence,                  the record with the newest metadata; 0 is the one that began the generation
     "life": ms, "fence": ms,               how long the stream lives from now, and its fence after that
     "until": ms,                           this record is void if it was stored later (server's time)
     "begins": index, "nonce": hex,         of an append
     "head": bytes,                         how much of its body is metadata
     "parts": sequence,                     its body begins in parts before it, the first one there
     "end": {…},
     "marks": [[level, sequence, last], …]}

Bodies: of ``open`` and ``fence`` JSON (see ``Opening``), of ``append`` its metadata and its packed chunks.
"""

from __future__ import annotations

import json
import re
from binascii import unhexlify
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from streamhub.errors import UnsupportedFormatError
from streamhub.records import decode_end, decode_retention, decode_spans, encode_end, encode_retention, encode_spans
from streamhub.types import End, Metadata, Retention, Span, StreamState
from streamhub_nats.marks import Mark

FORMAT = 1

_MARK: Callable[[Iterable[int]], Mark] = partial(tuple.__new__, Mark)  # pyright: ignore[reportUnknownMemberType]
_DECODE = json.JSONDecoder().raw_decode  # faster than json.loads, for it guesses no encoding
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_PLAIN = re.compile(
    rb'\{"v":1,"kind":"append","generation":(\d+),"state":"open","first":\d+,"tail":\d+,"size":\d+'
    rb',"open":\[\d+,"[^"\\]*"\],"life":\d+,"fence":\d+(?:,"metadata":\d+)?,"until":(\d+),"begins":(\d+)'
    rb',"nonce":"([0-9a-f]+)"(?:,"marks":[][0-9,]+)?\}\n'
)

Kind: TypeAlias = Literal["open", "append", "touch", "part", "fence"]


class Record(NamedTuple):
    """A record, its body apart. Zero stands for what it does not have.

    A tuple, because one is made for each append and for each hint: a frozen dataclass takes five times as long.
    """

    kind: Kind
    generation: int
    state: StreamState
    first: int
    tail: int
    size_bytes: int
    opened_at: int
    opening_id: str
    metadata_at: int
    life_ms: int
    fence_ms: int
    until_ms: int = 0
    begins: int = 0
    nonce: bytes = b""
    head_bytes: int = 0
    parts_at: int = 0
    end: End | None = None
    marks: tuple[Mark, ...] = ()

    @property
    def has_chunks(self) -> bool:
        """Whether its body holds chunks."""
        return self.kind == "append" and 0 < self.begins <= self.tail


def read_versioned(data: bytes, known: int, what: str) -> dict[str, Any]:
    """Read a JSON object whose format version, under ``"v"``, must be ``known``."""
    try:
        text = data.decode()
        found, end = _DECODE(text)
    except ValueError:
        found = None
    else:
        found = None if text[end:].strip() else found
    facts = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if facts.get("v") != known:
        raise UnsupportedFormatError(what, found=facts.get("v"), known=known)
    return facts


@lru_cache(maxsize=16 * 1024)  # a record has nearly the same ones as the one before
def _written(mark: Mark) -> str:
    return f"[{mark.level},{mark.sequence},{mark.last}]"


def write_line(record: Record) -> tuple[str, str, str]:
    """Write what of a record's line is known before an append is: what stands before, between and behind the rest."""
    # Written by hand, for this is done for each append: nothing but numbers, words of ours and hexadecimal digits.
    before = (
        f'{{"v":{FORMAT},"kind":"{record.kind}","generation":{record.generation},"state":"{record.state}"'
        f',"first":{record.first},"tail":'
    )
    between = (
        f',"open":[{record.opened_at},{_ENCODE(record.opening_id)}],"life":{record.life_ms},"fence":{record.fence_ms}'
    )
    if record.metadata_at:
        between += f',"metadata":{record.metadata_at}'
    if record.until_ms:
        between += f',"until":{record.until_ms}'
    marks = ",".join(map(_written, record.marks))
    return before, between, f',"marks":[{marks}]' if marks else ""


def write_record(record: Record, body: bytes = b"") -> bytes:
    """Write a record with its body."""
    before, between, marks = write_line(record)
    line = f'{before}{record.tail},"size":{record.size_bytes}{between}'
    if record.begins:
        line += f',"begins":{record.begins}'
    if record.head_bytes:
        line += f',"head":{record.head_bytes}'
    if record.parts_at:
        line += f',"parts":{record.parts_at}'
    if record.nonce:
        line += f',"nonce":"{record.nonce.hex()}"'
    line += marks
    if record.end is not None:
        line += f',"end":{encode_end(record.end)}'
    return f"{line}}}\n".encode() + body


class Pushed(NamedTuple):
    """What a subscriber needs of an append, where all of its chunks are in its body."""

    generation: int
    until_ms: int
    begins: int
    nonce: bytes
    body: bytes
    end: End | None = None


def read_pushed(data: bytes) -> Pushed | None:
    """Read a plain append, as ``write_record`` writes it; None for anything else, which ``read_record`` can read.

    Most are plain, and each is read before its chunks are delivered. It takes a fourth of the time.
    """
    found = _PLAIN.match(data)
    if found is None:
        return None
    generation, until_ms, begins, nonce = found.groups()
    return Pushed(int(generation), int(until_ms), int(begins), unhexlify(nonce), data[found.end() :])


def read_record(data: bytes) -> tuple[Record, bytes]:
    """Read what ``write_record`` wrote.

    Raises:
        UnsupportedFormatError: a later release wrote it, or something else did.
    """
    line, _, body = data.partition(b"\n")
    found = read_versioned(line, FORMAT, "a stream in nats")
    opened_at, opening_id = found["open"]
    record = Record(
        kind=found["kind"],
        generation=found["generation"],
        state=found["state"],
        first=found["first"],
        tail=found["tail"],
        size_bytes=found["size"],
        opened_at=opened_at,
        opening_id=opening_id,
        metadata_at=found.get("metadata", 0),
        life_ms=found["life"],
        fence_ms=found["fence"],
        until_ms=found.get("until", 0),
        begins=found.get("begins", 0),
        nonce=bytes.fromhex(found.get("nonce", "")),
        head_bytes=found.get("head", 0),
        parts_at=found.get("parts", 0),
        end=decode_end(json.dumps(found["end"])) if "end" in found else None,
        marks=tuple(map(_MARK, found.get("marks", ()))),
    )
    return record, body


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What stays the same for a generation."""

    owner: str
    run: str
    attended: bool
    spans: tuple[Span, ...]
    retention: Retention
    metadata: Metadata


def write_opening(opening: Opening) -> bytes:
    """Write the body of a record that begins a generation, or of a fence."""
    facts = {
        "owner": opening.owner,
        "run": opening.run,
        "attended": opening.attended,
        "spans": encode_spans(opening.spans),
        "retention": json.loads(encode_retention(opening.retention)),
        "metadata": opening.metadata,
    }
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()


def read_opening(body: bytes) -> Opening:
    """Read what ``write_opening`` wrote."""
    facts: dict[str, Any] = json.loads(body)
    return Opening(
        owner=facts["owner"],
        run=facts["run"],
        attended=facts["attended"],
        spans=decode_spans(facts["spans"]),
        retention=decode_retention(json.dumps(facts["retention"])),
        metadata=facts["metadata"],
    )
