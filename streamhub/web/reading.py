"""One client reading one stream, from its cursor to the end, or until the response must be cut off."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from streamhub.errors import (
    BackendUnavailableError,
    DrainingError,
    HubClosedError,
    InvalidOffsetError,
    OffsetTrimmedError,
    ResponseAbortedError,
    StreamAbandonedError,
    StreamDeletedError,
    StreamExpiredError,
    StreamHubError,
    StreamNotFoundError,
    StreamReplacedError,
)
from streamhub.sse import encode_retry
from streamhub.subscription import Subscription
from streamhub.types import Chunk, Offset
from streamhub.web.connection import Connection
from streamhub.web.cursors import Cursor
from streamhub.web.formats import EventFormat, Gone, Reset, Unreadable

WRITE_BYTES = 64 * 1024

Subscribe: TypeAlias = Callable[[Offset | str | None], Subscription]
"""Subscribes to what was asked for, after a position."""


class Reading:
    """One client reading one stream: subscriptions, one after another, until the body is finished or cut."""

    def __init__(
        self,
        connection: Connection,
        subscribe: Subscribe,
        event_format: EventFormat,
        *,
        cursor: Cursor,
        headers: Sequence[tuple[bytes, bytes]],
        retry_seconds: float,
        pinned: bool,
        may_refuse: bool,
    ) -> None:
        """Prepare; ``pinned``: no other run will do. ``may_refuse``: answer 204 if there is nothing to read."""
        self._connection = connection
        self._subscribe = subscribe
        self._format = event_format
        self._cursor = cursor
        self._after = cursor.after
        self._headers = headers
        self._retry_seconds = retry_seconds
        self._pinned = pinned
        self._may_refuse = may_refuse

    async def run(self, _: Connection) -> None:
        """Write the response.

        Raises:
            ResponseAbortedError: it cannot be finished now.
        """
        try:
            while not await self._subscribed():
                self._after = None
        except StreamAbandonedError as abandoned:
            await self._open(None)
            await self._connection.write(self._format.abandoned())
            raise ResponseAbortedError("the run has no producer at present") from abandoned
        except (DrainingError, HubClosedError, BackendUnavailableError) as exc:
            await self._open(None)  # an EventSource gives up at any status but 200
            raise ResponseAbortedError(f"the response was cut off: {exc}") from exc
        except Unreadable:
            await self._finish_gone("unreadable")
        except StreamHubError as exc:
            raise ResponseAbortedError(f"the response was cut off: {exc}") from exc

    async def _subscribed(self) -> bool:
        """Read until the end; False to read again, from the start."""
        try:
            await self._read()
        except StreamReplacedError:
            return await self._start_over("replaced")
        except OffsetTrimmedError:
            return await self._start_over("trimmed")
        except InvalidOffsetError:
            return await self._start_over("unknown")
        except StreamNotFoundError:
            await self._finish_gone("not_found")
        except StreamDeletedError:
            await self._finish_gone("deleted")
        except StreamExpiredError:
            await self._finish_gone("expired")
        return True

    async def _read(self) -> None:
        async with self._subscribe(self._after) as subscription:
            await self._open(subscription.position)
            async for batch in subscription.batches():
                self._after = batch[-1].offset
                for data in self._joined(batch):
                    await self._connection.write(data)
            if subscription.end is not None:
                await self._connection.finish(self._format.ended(subscription.end, subscription.position))

    def _joined(self, batch: Sequence[Chunk]) -> Iterator[bytes]:
        """Yield the chunks' events in pieces of about ``WRITE_BYTES``: a client that is slow holds one of them."""
        if len(batch) == 1:
            yield self._format.chunk(batch[0])
            return
        events: list[bytes] = []
        size = 0
        for chunk in batch:
            event = self._format.chunk(chunk)
            events.append(event)
            size += len(event)
            if size >= WRITE_BYTES:
                yield b"".join(events)
                events, size = [], 0
        if events:
            yield b"".join(events)

    async def _open(self, position: Offset | None) -> None:
        if self._connection.started:
            return
        await self._connection.start(200, self._headers)
        prime = None if self._cursor.names_position else position
        # Not all of those that are cut off together come back together.
        retry = encode_retry(max(1, round(self._retry_seconds * random.uniform(500, 1500))))
        await self._connection.write(retry + self._format.opened(prime))

    async def _start_over(self, reason: Reset) -> bool:
        if reason == "replaced" and self._pinned:
            await self._finish_gone("replaced")
            return True
        await self._open(None)
        await self._connection.write(self._format.reset(reason))
        return False

    async def _finish_gone(self, reason: Gone) -> None:
        if self._may_refuse and not self._connection.started:
            await self._connection.refuse()
            return
        await self._open(None)
        position = self._after if isinstance(self._after, Offset) else None
        await self._connection.finish(self._format.gone(reason, position))
