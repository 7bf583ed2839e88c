"""``/healthz``: the process lives. ``/healthz/ready``: it can serve, for its backend answers."""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.types import Receive, Scope, Send

from streamhub.errors import StreamHubError
from streamhub.hub import Hub
from streamhub.web.server.plain import answer

PING_SECONDS = 2.0
FRESH_SECONDS = 1.0

logger: logging.Logger = logging.getLogger("streamhub")


class Health:
    """Answers probes. However many come, the backend is asked once a second at most."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")
        self._trouble: str | None = None

    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say that this process answers."""
        await answer(send, 200, b"live\n")

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say whether requests may be sent here: 503 while the backend is away, and once draining has begun."""
        trouble = "draining" if self._hub.draining else await self._check()
        if trouble is None:
            await answer(send, 200, b"ready\n")
        else:
            await answer(send, 503, f"{trouble}\n".encode())

    async def _check(self) -> str | None:
        async with self._asking:
            if time.monotonic() - self._asked_at >= FRESH_SECONDS:
                self._trouble = await self._ping()
                self._asked_at = time.monotonic()
            return self._trouble

    async def _ping(self) -> str | None:
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._hub.ping()
        except (TimeoutError, StreamHubError) as exc:
            if self._trouble is None:
                logger.warning("not ready: %s", str(exc) or f"no answer from the backend within {PING_SECONDS:g} s")
            return "the backend does not answer"
        return None
