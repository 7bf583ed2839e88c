"""What is told of each request, to whom: the access log, and the figures for Prometheus."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger: logging.Logger = logging.getLogger("streamhub.access")


@dataclass(slots=True)
class Exchange:
    """A request, and what was answered. ``status`` is 0 while nothing was; ``whole`` says that the body has ended.

    There is no query in it, nor a header: those may hold secrets. ``live`` says that the client waits for what comes.
    """

    method: str
    path: str
    live: bool
    status: int = 0
    size_bytes: int = 0
    whole: bool = False
    seconds: float = 0.0


class Watcher(Protocol):
    """Is told of each request when it comes and when it is over."""

    def begun(self, exchange: Exchange) -> None:
        """Take note of a request."""
        ...

    def ended(self, exchange: Exchange) -> None:
        """Take note of what became of it."""
        ...


class Traffic:
    """Tells the watchers of each request."""

    def __init__(self, app: ASGIApp, watchers: Sequence[Watcher]) -> None:
        self._app = app
        self._watchers = watchers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and measure."""
        exchange = Exchange(scope["method"], scope["path"], b"live=" in scope["query_string"])
        start = time.perf_counter()

        async def measured(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            elif message["type"] == "http.response.body":
                exchange.size_bytes += len(message.get("body", b""))
                exchange.whole = not message.get("more_body", False)

        for watcher in self._watchers:
            watcher.begun(exchange)
        try:
            await self._app(scope, receive, measured)
        except Exception:
            exchange.status = exchange.status or 500  # which is what the server answers then
            raise
        finally:
            exchange.seconds = time.perf_counter() - start
            for watcher in self._watchers:
                watcher.ended(exchange)


class AccessLog:
    """Writes one line of JSON about each request to the logger ``streamhub.access``."""

    def begun(self, exchange: Exchange) -> None:
        """Write nothing yet."""

    def ended(self, exchange: Exchange) -> None:
        """Write the line."""
        line: dict[str, Any] = {
            "time": round(time.time(), 3),
            "method": exchange.method,
            "path": exchange.path,
            "status": exchange.status,
            "bytes": exchange.size_bytes,
            "ms": round(exchange.seconds * 1000, 2),
        }
        if exchange.live:
            line["live"] = True
        if not exchange.whole:
            line["cut"] = True
        logger.info(json.dumps(line, separators=(",", ":")))
