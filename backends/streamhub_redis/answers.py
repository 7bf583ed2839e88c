"""What scripts answer, as streamhub's errors."""

from __future__ import annotations

from collections.abc import Sequence

from streamhub.errors import (
    DataLostError,
    LimitExceededError,
    OffsetConflictError,
    OpenConflictError,
    StaleGenerationError,
    StreamDeletedError,
    StreamEndedError,
    StreamExpiredError,
    StreamHubError,
    StreamUnfinishedError,
)
from streamhub.records import decode_end
from streamhub.types import Append, StreamState
from streamhub_redis.stored import unsupported

_STATES: dict[bytes, StreamState] = {b"open": "open", b"ended": "ended", b"deleted": "deleted", b"expired": "expired"}


def append_refused(item: Append, answer: Sequence[bytes]) -> StreamHubError:
    """Say why ``lua/append.lua`` did not store an append."""
    key, generation, code = item.key, item.generation, answer[0]
    if code == b"stale":
        return StaleGenerationError(key, generation=generation, current=int(answer[1]))
    if code == b"conflict":
        return OffsetConflictError(key, first=item.first, tail=int(answer[1]))
    if code == b"ended":
        return StreamEndedError(key, decode_end(answer[1]), run=answer[2].decode())
    if code == b"limit":
        return LimitExceededError(key, limit=answer[1].decode(), value=int(answer[2]))
    if code == b"missing":
        return DataLostError(key, f"the stream of generation {generation} is gone, without a fence")
    if code == b"behind":
        return DataLostError(key, f"generation {generation} was opened, but {int(answer[1])} is stored")
    return _gone(key, answer)


def open_refused(key: str, generation: int, answer: Sequence[bytes]) -> StreamHubError:
    """Say why ``lua/open.lua`` did not open a run."""
    code = answer[0]
    if code == b"stale":
        return StaleGenerationError(key, generation=generation, current=int(answer[1]))
    if code == b"unexpected":
        found = (int(answer[1]), _STATES[answer[2]]) if answer[1] else None
        return OpenConflictError(key, found=found)
    if code == b"unfinished":
        return StreamUnfinishedError(key, answer[1].decode())
    return _gone(key, answer)


def _gone(key: str, answer: Sequence[bytes]) -> StreamHubError:
    if answer[0] == b"deleted":
        return StreamDeletedError(key)
    if answer[0] == b"expired":
        return StreamExpiredError(key)
    if answer[0] == b"lost":
        return log_lost(key)
    return unsupported(answer[1])


def log_lost(key: str) -> DataLostError:
    """Return the error for a stream of which only the description is left."""
    return DataLostError(key, "its log is gone, but not what describes it: was it evicted?")
