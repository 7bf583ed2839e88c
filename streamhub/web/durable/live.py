"""Live reading: long-poll, which answers with the next messages or with none, and event streams."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from streamhub.errors import (
    BackendUnavailableError,
    DrainingError,
    HubClosedError,
    InvalidOffsetError,
    ResponseAbortedError,
    ResumeRefusedError,
    StreamAbandonedError,
    StreamHubError,
    StreamNotFoundError,
)
from streamhub.hub import Hub
from streamhub.sse import encode_tight_event
from streamhub.subscription import Subscription
from streamhub.types import Chunk, End
from streamhub.web.connection import Connection
from streamhub.web.durable.bodies import body_of
from streamhub.web.durable.headers import SANDBOX, SECURITY, Header
from streamhub.web.durable.offsets import next_cursor, write_offset
from streamhub.web.durable.reader import Piece, Reader
from streamhub.web.durable.stored import Configuration, moment_of

SHORTEST_SECONDS = 0.1
QUIET = (
    BackendUnavailableError,
    DrainingError,
    HubClosedError,
    InvalidOffsetError,
    ResumeRefusedError,
    StreamNotFoundError,
)
"""What ends an event stream as its time does."""

EVENT_STREAM: Header = (b"content-type", b"text/event-stream")
NO_CACHE: Header = (b"cache-control", b"no-cache, no-transform")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a live answer lasts at most: a stream that may expire meanwhile is asked for anew before it does."""

    seconds: float

    def until(self, configuration: Configuration) -> float:
        """Return the moment, on the loop's clock, at which to answer."""
        seconds = self.seconds
        if configuration.ttl is not None:
            seconds = min(seconds, configuration.ttl / 2)
        if configuration.expires is not None:
            seconds = min(seconds, moment_of(configuration.expires) - time.time())
        return asyncio.get_running_loop().time() + max(seconds, SHORTEST_SECONDS)


async def wait_for_more(hub: Hub, key: str, piece: Piece, deadline: float) -> Piece:
    """Return what is stored after a piece, as soon as there is something.

    The piece is empty at the deadline, and at the end of the stream, which it then tells.
    """
    async with hub.subscribe(key, after=piece.next, strict=False) as subscription:
        batch = await next_batch(subscription, subscription.batches(), deadline)
        if batch:
            return _following(piece, batch, subscription)
        return _empty(piece, subscription.end)


async def next_batch(
    subscription: Subscription, batches: AsyncIterator[list[Chunk]], deadline: float
) -> list[Chunk] | None:
    """Return the next messages; empty at the end of the stream, None at the deadline.

    What a dead producer of the application left is waited on like any other stream: it may be resumed.
    """
    try:
        async with asyncio.timeout_at(deadline):
            try:
                return await anext(batches)
            except StopAsyncIteration:
                return []
            except StreamAbandonedError:
                await asyncio.get_running_loop().create_future()
                return None
    except TimeoutError:
        return None


def _following(piece: Piece, batch: Sequence[Chunk], subscription: Subscription) -> Piece:
    return Piece(
        piece.run,
        piece.configuration,
        piece.next,
        batch[-1].offset,
        tuple(chunk.data for chunk in batch),
        subscription.caught_up,
        subscription.known_end,
    )


def _empty(piece: Piece, end: End | None) -> Piece:
    return Piece(piece.run, piece.configuration, piece.next, piece.next, (), up_to_date=True, end=end)


class EventBody:
    """One event stream: what is stored after a place, then what comes, each batch with its ``control`` event."""

    def __init__(
        self, hub: Hub, reader: Reader, key: str, first: Piece, *, cursor: str | None, patience: Patience
    ) -> None:
        self._hub = hub
        self._reader = reader
        self._key = key
        self._first = first
        self._cursor = next_cursor(cursor)
        self._patience = patience

    async def run(self, connection: Connection) -> None:
        """Write the response. Its end, unless the stream's has been told, only asks the client to come again.

        The errors in ``QUIET`` end it so as well.

        Raises:
            ResponseAbortedError: the response breaks off, for another error or a client that does not read.
        """
        headers = [*SECURITY, SANDBOX, EVENT_STREAM, NO_CACHE, (b"x-accel-buffering", b"no")]
        if not self._first.configuration.is_text:
            headers.append((b"stream-sse-data-encoding", b"base64"))
        await connection.start(200, headers)
        try:
            await self._write(connection)
        except QUIET:
            pass  # the client comes again, and is told
        except ResponseAbortedError:
            raise
        except StreamHubError as exc:
            raise ResponseAbortedError(f"the response was cut off: {exc}") from exc
        await connection.finish()

    async def _write(self, connection: Connection) -> None:
        deadline = self._patience.until(self._first.configuration)
        piece = self._first
        await connection.write(self._events(piece))
        while not piece.up_to_date:
            piece = await self._reader.read(self._key, piece.next)
            await connection.write(self._events(piece))
        if piece.end is not None:
            return
        async with self._hub.subscribe(self._key, after=piece.next, strict=False) as subscription:
            batches = subscription.batches()
            while piece.end is None:
                batch = await next_batch(subscription, batches, deadline)
                if batch is None:
                    return
                piece = _following(piece, batch, subscription) if batch else _empty(piece, subscription.end)
                await connection.write(self._events(piece))

    def _events(self, piece: Piece) -> bytes:
        """Write a piece: its messages as one event, and where that leaves the client. They are sent together."""
        control = encode_tight_event(self._control(piece), "control")
        if not piece.chunks:
            return control
        configuration = piece.configuration
        body = body_of(piece.chunks, configuration)
        data = body if configuration.is_text else base64.b64encode(body)
        return encode_tight_event(data, "data") + control

    def _control(self, piece: Piece) -> bytes:
        said: dict[str, Any] = {"streamNextOffset": write_offset(piece.next)}
        if piece.end is None:
            said["streamCursor"] = self._cursor
        if piece.up_to_date:
            said["upToDate"] = True
        if piece.end is not None:
            said["streamClosed"] = True
            if piece.end.state != "completed":
                said["streamhubEnd"] = piece.end.state
        return json.dumps(said, separators=(",", ":")).encode()
