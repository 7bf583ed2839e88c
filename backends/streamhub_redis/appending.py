"""Append: what is written is prepared here; what is decided is decided by ``lua/append.lua``."""

from __future__ import annotations

from functools import lru_cache

from streamhub.errors import StreamHubError
from streamhub.records import encode_end
from streamhub.types import Append, Appended
from streamhub_redis.answers import append_refused
from streamhub_redis.entries import LONE, records_of, short_nonce
from streamhub_redis.names import StreamKeys
from streamhub_redis.node import Request
from streamhub_redis.push import write_hint
from streamhub_redis.resp import bulks
from streamhub_redis.scripts import APPEND
from streamhub_redis.server import Answer
from streamhub_redis.session import Session
from streamhub_redis.stored import write_metadata

# The command for one chunk: what such commands of a run begin with, and the arguments that each has of its own.
_OWN = 7
_LONE = b"%b" + b"$%d\r\n%b\r\n" * _OWN


def append_request(session: Session, item: Append) -> Request:
    """Ask for an append."""
    keys = session.names.stream(item.key)
    lone = len(item.chunks) == 1 and item.end is None and item.metadata is None
    command = (_lone_command if lone else _command)(session, keys, item)
    return Request(keys.meta, command, APPEND)


def _command(session: Session, keys: StreamKeys, item: Append) -> bytes:
    size_bytes = sum(map(len, item.chunks))
    records = records_of(item.chunks, size_bytes)
    lengths = [len(record) for _, record in records]
    end = b"" if item.end is None else encode_end(item.end).encode()
    pushed = item.metadata is None and sum(lengths) + len(end) <= session.options.max_push_bytes
    before = item.first - 1
    entries: list[bytes] = []
    for count, record in records:
        entries += (b"%d" % (before + count), record)
    return APPEND.call(
        keys,
        b"%d" % item.generation,
        session.names.channel_suffix,
        end,
        write_metadata(item.metadata),
        b"%d" % before,
        b"%d" % item.last,
        short_nonce(item.nonce),
        b"%d" % size_bytes,
        write_hint(item, b",".join([b"%d" % length for length in lengths]), end) if pushed else b"",
        *entries,
    )


def _lone_command(session: Session, keys: StreamKeys, item: Append) -> bytes:
    """Write the same for one chunk and nothing else, as most appends are, in half of the time."""
    chunk = item.chunks[0]
    before, index, size = b"%d" % (item.first - 1), b"%d" % item.first, b"%d" % len(chunk)
    nonce, record = short_nonce(item.nonce), LONE + chunk
    length = len(record)
    hint = write_hint(item, b"%d" % length, b"") if length <= session.options.max_push_bytes else b""
    digits = len(index)
    return _LONE % (
        _beginning(keys, item.generation, session.names.channel_suffix),
        *(len(before), before, digits, index, len(nonce), nonce, len(size), size, len(hint), hint),
        *(digits, index, length, record),
    )


@lru_cache(maxsize=1024)
def _beginning(keys: StreamKeys, generation: int, suffix: bytes) -> bytes:
    """Write what the commands of a run begin with that bring one chunk, no end and no metadata."""
    arguments = (b"%d" % generation, suffix, b"", b"")
    return APPEND.begin(keys, len(arguments) + _OWN) + bulks(*arguments)


def append_result(item: Append, answer: Answer) -> Appended | StreamHubError:
    """Say what became of it."""
    if answer in (1, 2):
        return Appended(item.last)
    if isinstance(answer, StreamHubError):
        return answer
    try:
        return append_refused(item, answer)
    except StreamHubError as exc:
        # It cannot be read why: a later release wrote that.
        return exc.with_traceback(None)
