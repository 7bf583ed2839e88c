"""Append: what is written is prepared here; what is decided is decided by ``lua/append.lua``."""

from __future__ import annotations

from collections.abc import Sequence

from streamhub.errors import StreamHubError
from streamhub.records import encode_end, pack_chunks
from streamhub.types import Append, Appended
from streamhub_redis.answers import append_refused
from streamhub_redis.entries import short_nonce
from streamhub_redis.node import Request
from streamhub_redis.push import write_hint
from streamhub_redis.scripts import APPEND
from streamhub_redis.server import Answer
from streamhub_redis.session import Session
from streamhub_redis.stored import write_metadata


async def append(session: Session, batch: Sequence[Append]) -> list[Appended | StreamHubError]:
    """Store a batch; see ``StreamStore.append``."""
    answers = await session.ask([_request(session, item) for item in batch], lane="write", replicated=True)
    return [_result(item, answer) for item, answer in zip(batch, answers, strict=True)]


def _request(session: Session, item: Append) -> Request:
    keys = session.names.stream(item.key)
    nonce = short_nonce(item.nonce)
    record = pack_chunks(item.chunks) + nonce if item.chunks else b""
    end = b"" if item.end is None else encode_end(item.end).encode()
    command = APPEND.call(
        keys,
        b"%d" % item.generation,
        b"%d" % (item.first - 1),
        b"%d" % item.last,
        nonce,
        b"%d" % sum(map(len, item.chunks)),
        record,
        write_hint(item, end) if len(record) + len(end) <= session.options.max_push_bytes else b"",
        session.names.channel_suffix,
        end,
        write_metadata(item.metadata),
    )
    return Request(keys.meta, command, APPEND)


def _result(item: Append, answer: Answer) -> Appended | StreamHubError:
    if answer == 1:
        return Appended(item.last)
    return answer if isinstance(answer, StreamHubError) else append_refused(item, answer)
