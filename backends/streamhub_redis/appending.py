"""Append: what is written is prepared here; what is decided is decided by ``lua/append.lua``."""

from __future__ import annotations

from collections.abc import Sequence

from streamhub.errors import StreamHubError
from streamhub.records import encode_end
from streamhub.types import Append, Appended
from streamhub_redis.answers import append_refused
from streamhub_redis.entries import records_of, short_nonce
from streamhub_redis.node import Request
from streamhub_redis.push import write_hint
from streamhub_redis.scripts import APPEND
from streamhub_redis.server import Answer
from streamhub_redis.session import Session
from streamhub_redis.stored import write_metadata


async def append(session: Session, batch: Sequence[Append]) -> list[Appended | StreamHubError]:
    """Store a batch; see ``StreamStore.append``."""
    answers = await session.ask([_request(session, item) for item in batch], lane="write", storing=True)
    return [_result(item, answer) for item, answer in zip(batch, answers, strict=True)]


def _request(session: Session, item: Append) -> Request:
    keys = session.names.stream(item.key)
    size_bytes = sum(map(len, item.chunks))
    records = records_of(item.chunks, size_bytes)
    end = b"" if item.end is None else encode_end(item.end).encode()
    before = item.first - 1
    entries: list[bytes] = []
    for count, record in records:
        entries += (b"%d" % (before + count), record)
    command = APPEND.call(
        keys,
        b"%d" % item.generation,
        b"%d" % before,
        b"%d" % item.last,
        short_nonce(item.nonce),
        b"%d" % size_bytes,
        write_hint(item, records, end, max_bytes=session.options.max_push_bytes),
        session.names.channel_suffix,
        end,
        write_metadata(item.metadata),
        *entries,
    )
    return Request(keys.meta, command, APPEND)


def _result(item: Append, answer: Answer) -> Appended | StreamHubError:
    if answer in (1, 2):
        return Appended(item.last)
    if isinstance(answer, StreamHubError):
        return answer
    try:
        return append_refused(item, answer)
    except StreamHubError as exc:
        # It cannot be read why: a later release wrote that.
        return exc.with_traceback(None)
