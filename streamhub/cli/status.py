"""Exit statuses: what a script may rely on."""

from __future__ import annotations

from streamhub.errors import (
    LeaseLostError,
    ProducerCancelledError,
    StreamAbandonedError,
    StreamFailedError,
    StreamHubError,
    StreamUnfinishedError,
)
from streamhub.types import End

COMPLETED = 0
ERROR = 1
USAGE = 2
FAILED = 3
CANCELLED = 4
ABANDONED = 5
INTERRUPTED = 130
PIPE = 141
TERMINATED = 143

_OF_END = {"completed": COMPLETED, "failed": FAILED, "cancelled": CANCELLED}


def of_end(end: End | None) -> int:
    """Return the status of a stored end; an iteration that finished without one was cut short."""
    return ERROR if end is None else _OF_END[end.state]


def of_error(error: StreamHubError) -> int:
    """Return the status of an error that ended a command."""
    if isinstance(error, StreamFailedError):
        return FAILED
    if isinstance(error, ProducerCancelledError):
        return CANCELLED
    # A run without an end and without a producer: found so, or left so.
    if isinstance(error, (StreamAbandonedError, StreamUnfinishedError, LeaseLostError)):
        return ABANDONED
    return ERROR
