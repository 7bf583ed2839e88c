"""How many streams there may be."""

from __future__ import annotations

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamhub.errors import StreamHubError
from streamhub.hub import Hub
from streamhub.web.server.plain import answer

RECOUNT_SECONDS = 30.0
FRESH_SECONDS = 1.0
_RETRY_AFTER = [(b"retry-after", b"30")]


class StreamLimit:
    """Answers 429 to a PUT that would make a new stream when the backend holds as many as are allowed.

    The streams in the backend are counted, whoever made them: now and then, and before anything is refused. In between
    an instance counts what it creates itself. So one instance keeps the limit; of several, each may create what is left
    of it since its last count (``RECOUNT_SECONDS``).

    Args:
        app: the streams.
        hub: where they are counted.
        max_streams: the limit.
    """

    def __init__(self, app: ASGIApp, hub: Hub, max_streams: int) -> None:
        self._app = app
        self._hub = hub
        self._max_streams = max_streams
        self._counting = asyncio.Lock()
        self._count = 0  # that were counted, and those created here since
        self._creating = 0  # being created now
        self._created = 0  # here, in all
        self._counted_at = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or refuse it."""
        if scope["method"] != "PUT":
            await self._app(scope, receive, send)
            return
        try:
            refused = await self._is_full() and await self._is_new(scope)
        except StreamHubError:
            refused = False  # the streams themselves say what is wrong with the backend
        if refused:
            await answer(send, 429, b"there are too many streams\n", _RETRY_AFTER)
        else:
            await self._create(scope, receive, send)

    async def _create(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            nonlocal created
            if message["type"] == "http.response.start":
                created = message["status"] == 201
            await send(message)

        created = False
        self._creating += 1
        try:
            await self._app(scope, receive, counted)
        finally:
            self._creating -= 1
            self._count += created
            self._created += created

    async def _is_full(self) -> bool:
        async with self._counting:
            if time.monotonic() - self._counted_at >= (FRESH_SECONDS if self._full else RECOUNT_SECONDS):
                before = self._created
                self._count = await self._counted() + self._created - before  # rather one too many
                self._counted_at = time.monotonic()
        return self._full

    @property
    def _full(self) -> bool:
        return self._count + self._creating >= self._max_streams

    async def _counted(self) -> int:
        count = 0
        async for _ in self._hub.keys():
            count += 1
        return count

    async def _is_new(self, scope: Scope) -> bool:
        key = scope["path"].removeprefix(scope["root_path"])[1:]
        return await self._hub.info(key) is None
