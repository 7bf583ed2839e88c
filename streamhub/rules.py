"""The store's decisions as pure functions, for backends that decide in Python.

A backend calls them inside its own atomic step, with what it has just read there. A backend that decides on its
server (in Lua or SQL) writes the same order down in its own language; the conformance suite holds both to it.
An expired stream must be shown to these functions with ``state="expired"``, swept or not.
"""

from __future__ import annotations

from streamhub.errors import (
    DataLostError,
    LimitExceededError,
    OffsetConflictError,
    OpenConflictError,
    StaleGenerationError,
    StreamDeletedError,
    StreamEndedError,
    StreamExpiredError,
    StreamUnfinishedError,
)
from streamhub.types import Append, Appended, Metadata, Retention, Seen, Span, StreamInfo


def check_present(info: StreamInfo) -> None:
    """Raise if ``info`` is a fence: ``StreamDeletedError`` or ``StreamExpiredError``."""
    if info.state == "deleted":
        raise StreamDeletedError(info.key)
    if info.state == "expired":
        raise StreamExpiredError(info.key)


def admit_open(
    info: StreamInfo | None,
    stored_owner: str | None,
    *,
    key: str,
    generation: int,
    owner: str,
    run: str,
    expect: Seen | None,
    resume: bool,
    attended: bool,
) -> bool:
    """Decide ``StreamStore.open``: True to go on, False if this very open has happened already; else it raises."""
    if info is not None and generation <= info.generation:
        if generation < info.generation or owner != stored_owner:
            raise StaleGenerationError(key, generation=generation, current=info.generation)
        check_present(info)
        return False
    found = None if info is None else info.seen
    unfinished = info if info is not None and info.state == "open" else None
    if found != expect or (resume and (unfinished is None or unfinished.run != run)):
        raise OpenConflictError(key, found=found)
    if unfinished is not None and unfinished.attended and not attended:
        raise StreamUnfinishedError(key, unfinished.run)
    return True


def opened(
    info: StreamInfo | None,
    *,
    key: str,
    generation: int,
    run: str,
    resume: bool,
    attended: bool,
    metadata: Metadata | None,
    retention: Retention,
) -> StreamInfo:
    """Say what is stored after an admitted open."""
    resumed = info if resume else None
    if resumed is None:
        spans, first, tail, size = (Span(generation, 1),), 1, 0, 0
    else:
        spans = (*resumed.spans, Span(generation, resumed.tail + 1))
        first, tail, size = resumed.first, resumed.tail, resumed.size_bytes
    if metadata is None:
        metadata = {} if resumed is None else resumed.metadata
    return StreamInfo(
        key=key,
        generation=generation,
        state="open",
        run=run,
        attended=attended,
        spans=spans,
        first=first,
        tail=tail,
        size_bytes=size,
        end=None,
        metadata=metadata,
        retention=retention,
    )


def admit_append(
    info: StreamInfo | None, append: Append, *, nonce_at_first: bytes | None, end_nonce: bytes | None
) -> Appended | None:
    """Decide one item of ``StreamStore.append``: None to store it, ``Appended`` if it is stored already; else raise.

    Args:
        info: the stream as stored, or None.
        append: the item.
        nonce_at_first: the nonce of the record that holds index ``append.first``, None if there is none.
        end_nonce: the nonce stored with the end, None if there is none.
    """
    key, generation = append.key, append.generation
    if info is None:
        raise DataLostError(key, f"the stream of generation {generation} is gone, without a fence")
    check_present(info)
    if generation < info.generation:
        raise StaleGenerationError(key, generation=generation, current=info.generation)
    if generation > info.generation:
        raise DataLostError(key, f"generation {generation} was opened, but {info.generation} is stored")
    if append.nonce in (nonce_at_first, end_nonce):
        return Appended(append.last)
    if info.end is not None:
        raise StreamEndedError(key, info.end, run=info.run)
    if append.first != info.tail + 1:
        raise OffsetConflictError(key, first=append.first, tail=info.tail)
    check_caps(info.retention, append, first=info.first, size_bytes=info.size_bytes)
    return None


def check_caps(retention: Retention, append: Append, *, first: int, size_bytes: int) -> None:
    """Raise ``LimitExceededError`` if a run that keeps so much has no room for an append."""
    if retention.overflow == "trim" or not append.chunks:
        return
    if size_bytes + sum(map(len, append.chunks)) > retention.max_bytes:
        raise LimitExceededError(append.key, limit="max_bytes", value=retention.max_bytes)
    if retention.max_chunks is not None and append.last - first + 1 > retention.max_chunks:
        raise LimitExceededError(append.key, limit="max_chunks", value=retention.max_chunks)
