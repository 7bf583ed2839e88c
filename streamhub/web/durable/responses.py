"""Whole responses: status, headers and body, sent with two messages; and what errors answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from starlette.types import Send

from streamhub.errors import (
    BackendUnavailableError,
    ChunkTooLargeError,
    DrainingError,
    HubClosedError,
    InvalidKeyError,
    InvalidOffsetError,
    LeaseHeldError,
    LimitExceededError,
    OffsetTrimmedError,
    StreamDeletedError,
    StreamExpiredError,
    StreamHubError,
    StreamNotFoundError,
    StreamReplacedError,
)
from streamhub.types import End
from streamhub.web.connection import Connection
from streamhub.web.durable.creation import OVERTAKEN
from streamhub.web.durable.headers import CLOSED, NO_STORE, SECURITY, Header
from streamhub.web.durable.writer import OverloadedError

ANSWERS: tuple[tuple[type[StreamHubError] | tuple[type[StreamHubError], ...], int, str], ...] = (
    ((StreamNotFoundError, StreamDeletedError, StreamExpiredError), 404, "there is no such stream"),
    ((StreamReplacedError, OffsetTrimmedError, InvalidOffsetError), 410, "the offset is of what is not kept any more"),
    (InvalidKeyError, 400, "invalid path"),
    (ChunkTooLargeError, 413, "the body is too large"),
    (LimitExceededError, 507, "the stream is full"),
    (
        (BackendUnavailableError, DrainingError, HubClosedError, LeaseHeldError, OverloadedError, *OVERTAKEN),
        503,
        "try again",
    ),
)
RETRY_AFTER: Header = (b"retry-after", b"1")


class Reply(NamedTuple):
    """A response to be sent."""

    status: int
    headers: Sequence[Header] = ()
    body: bytes = b""


async def send_reply(send: Send, reply: Reply, *, head: bool = False) -> None:
    """Send a response; with ``head`` without its body."""
    headers = _all_headers(reply, head=head)
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else reply.body})


async def send_guarded(reply: Reply, connection: Connection) -> None:
    """Send a response to a client that may not read it: a body for ``Connection.serve``."""
    await connection.start(reply.status, _all_headers(reply, head=False))
    await connection.write(reply.body)
    await connection.finish()  # servers wait for what was sent before they take more


def _all_headers(reply: Reply, *, head: bool) -> list[Header]:
    headers = [*SECURITY, *reply.headers]
    if reply.status not in (204, 304) and not head:
        headers.append((b"content-length", b"%d" % len(reply.body)))
    return headers


def refusal(status: int, why: str, *headers: Header) -> Reply:
    """Return a response that says in words why not."""
    return Reply(status, [(b"content-type", b"text/plain; charset=utf-8"), NO_STORE, *headers], f"{why}\n".encode())


def reply_to_error(error: StreamHubError) -> Reply:
    """Return what a client is told of an error; its message, which may name keys, stays inside."""
    for kinds, status, why in ANSWERS:
        if isinstance(error, kinds):
            return refusal(status, why, RETRY_AFTER) if status == 503 else refusal(status, why)
    return refusal(500, "the server failed")


def end_headers(end: End | None) -> list[Header]:
    """Return the headers of a stream that is closed; one that was not completed says how it ended."""
    if end is None:
        return []
    return [CLOSED] if end.state == "completed" else [CLOSED, (b"streamhub-end", end.state.encode())]
