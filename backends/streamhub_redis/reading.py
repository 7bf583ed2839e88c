"""Read and describe."""

from __future__ import annotations

from collections.abc import Sequence

from streamhub.errors import (
    StreamDeletedError,
    StreamExpiredError,
    StreamHubError,
    StreamNotFoundError,
)
from streamhub.types import Page, Read, StreamInfo
from streamhub_redis.answers import log_lost
from streamhub_redis.node import Request
from streamhub_redis.paging import Paging
from streamhub_redis.parts import parts
from streamhub_redis.scripts import DESCRIBE, READ
from streamhub_redis.server import Answer
from streamhub_redis.session import Session
from streamhub_redis.stored import Stored


async def read(session: Session, reads: Sequence[Read]) -> list[Page | StreamHubError]:
    """Read pages; see ``StreamStore.read``."""
    answers = await session.ask([_request(session, item) for item in reads], lane="read")
    begun = [_begun(session, item, answer) for item, answer in zip(reads, answers, strict=True)]
    unfinished = [paging for paging in begun if isinstance(paging, Paging)]
    while unfinished:
        asked = [(paging, request) for paging in unfinished if (request := paging.request()) is not None]
        unfinished = [paging for paging, _ in asked]
        more = await session.ask([request for _, request in asked], lane="read")
        for paging, answer in zip(unfinished, more, strict=True):
            paging.go_on(answer)
    return [paging.page() if isinstance(paging, Paging) else paging for paging in begun]


def _request(session: Session, item: Read) -> Request:
    keys = session.names.stream(item.key)
    command = READ.call(keys, b"%d" % item.after_index, b"%d" % item.max_chunks, b"%d" % item.max_bytes)
    return Request(keys.meta, command, READ)


def _begun(session: Session, item: Read, answer: Answer) -> Paging | StreamHubError:
    if isinstance(answer, StreamHubError):
        return answer
    try:
        return _paging(session, item, answer)
    except StreamHubError as exc:
        return exc.with_traceback(None)


def _paging(session: Session, item: Read, answer: Answer) -> Paging:
    if answer is None:
        raise StreamNotFoundError(item.key)
    now_ms, fields, what, found = answer
    stored = Stored(now_ms, fields)
    if stored.state is None:
        raise StreamNotFoundError(item.key)
    if stored.state == "deleted":
        raise StreamDeletedError(item.key)
    if stored.state == "expired":
        raise StreamExpiredError(item.key)
    if what < 0:
        raise log_lost(item.key)
    page = Page(
        run=stored.run,
        attended=stored.attended,
        spans=stored.spans,
        chunks=(),
        first=stored.first,
        tail=stored.tail,
        end=stored.end,
        metadata=stored.metadata,
    )
    return Paging(item, session.names.stream(item.key), page, found, goes_on=what > 0)


async def describe(session: Session, keys: Sequence[str], *, touch: bool) -> list[StreamInfo | None]:
    """Describe streams; see ``StreamStore.describe``."""
    session.context.check()
    infos: list[StreamInfo | None] = []
    for some in parts(keys):
        infos += await _described(session, some, touch=touch)
    return infos


async def _described(session: Session, keys: Sequence[str], *, touch: bool) -> list[StreamInfo | None]:
    requests: list[Request] = []
    for key in keys:
        names = session.names.stream(key)
        requests.append(Request(names.meta, DESCRIBE.call(names, b"%d" % touch), DESCRIBE))
    answers = await session.tell(requests, lane="write" if touch else "read")
    return [None if answer is None else Stored(*answer).info(key) for key, answer in zip(keys, answers, strict=True)]
