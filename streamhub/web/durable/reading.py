"""What a GET asks for, and what it is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import parse_qs

from streamhub.web.durable.bodies import body_of
from streamhub.web.durable.headers import NO_STORE, SANDBOX, UP_TO_DATE, Given, Header
from streamhub.web.durable.offsets import BadQueryError, Place, next_cursor, read_place, write_offset
from streamhub.web.durable.reader import Piece
from streamhub.web.durable.responses import Reply, end_headers

Mode: TypeAlias = Literal["catch-up", "long-poll", "sse"]

MAX_QUERY_FIELDS = 64
CACHE_SECONDS = 60
REVALIDATE_SECONDS = 300
VARY: Header = (b"vary", b"authorization, cookie")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader asks for; ``cursor`` is that of the answer before."""

    place: Place
    mode: Mode
    cursor: str | None


def wanted_in(query: bytes) -> Wanted:
    """Read a request's query.

    Raises:
        BadQueryError: the offset is malformed, given twice, or missing in a live mode; or there is no such mode.
    """
    try:
        fields = parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise BadQueryError("too many parameters") from None
    offsets, modes = fields.get("offset", []), fields.get("live", ["catch-up"])
    if len(offsets) > 1:
        raise BadQueryError("more than one offset")
    place = read_place(offsets[0] if offsets else None)
    cursor = fields.get("cursor", [None])[0]
    match modes:
        case ["catch-up"]:
            return Wanted(place, "catch-up", cursor)
        case ["long-poll" | "sse" as mode]:
            if not offsets:
                raise BadQueryError("a live read needs an offset: offset=-1 is the start, offset=now the end")
            return Wanted(place, mode, cursor)
        case _:
            raise BadQueryError("live is sse or long-poll")


def reply_to_catch_up(piece: Piece, wanted: Wanted, given: Given, *, shared: bool) -> Reply:
    """Answer with a piece; ``shared``: caches may keep it for everybody."""
    if wanted.place == "now":
        return _whole(piece, [NO_STORE])
    etag = piece.etag.encode()
    headers = [(b"etag", etag), *_caching(piece, shared=shared)]
    if _matches(given.get(b"if-none-match"), etag):
        return Reply(304, [*headers, *_position(piece)])
    return _whole(piece, headers)


def reply_to_long_poll(piece: Piece, wanted: Wanted, *, shared: bool) -> Reply:
    """Answer with a piece, or that nothing came."""
    cursor = (b"stream-cursor", next_cursor(wanted.cursor).encode())
    if not piece.chunks:
        return Reply(204, [NO_STORE, cursor, *_position(piece)])
    etag = (b"etag", piece.etag.encode())
    caching = [NO_STORE] if wanted.place == "now" else _caching(piece, shared=shared)
    return _whole(piece, [etag, *caching, cursor])


def _whole(piece: Piece, headers: list[Header]) -> Reply:
    content_type = (b"content-type", piece.configuration.content_type.encode())
    body = body_of(piece.chunks, piece.configuration)
    return Reply(200, [content_type, SANDBOX, *headers, *_position(piece)], body)


def _position(piece: Piece) -> list[Header]:
    headers: list[Header] = [(b"stream-next-offset", write_offset(piece.next).encode())]
    if piece.up_to_date:
        headers.append(UP_TO_DATE)
    return headers + end_headers(piece.end)


def _caching(piece: Piece, *, shared: bool) -> list[Header]:
    """Say what caches may keep; a browser's own, too, must not give it to who comes next."""
    cache_control = _cache_control(piece, shared=shared)
    return [cache_control] if shared else [cache_control, VARY]


def _cache_control(piece: Piece, *, shared: bool) -> Header:
    """Let caches keep what has messages: they never change. That there are none yet must be asked anew."""
    if not piece.chunks or piece.configuration.expires is not None:
        return (b"cache-control", b"no-cache")
    ttl = piece.configuration.ttl
    seconds = CACHE_SECONDS if ttl is None else min(ttl, CACHE_SECONDS)
    whose = b"public" if shared else b"private"
    stale = 0 if ttl is not None else REVALIDATE_SECONDS
    return (b"cache-control", b"%b, max-age=%d, stale-while-revalidate=%d" % (whose, seconds, stale))


def _matches(given: bytes | None, etag: bytes) -> bool:
    if given is None:
        return False
    return any(tag.strip().removeprefix(b"W/") in (etag, b"*") for tag in given.split(b","))
