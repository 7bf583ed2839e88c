"""The first to see a request: sends it where it belongs by its path."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from streamhub.errors import ConfigError
from streamhub.hub import Hub
from streamhub.web.server.lifespan import live
from streamhub.web.server.plain import answer

PREFIX = "/v1/stream/"


class Front:
    """Sends each request where it belongs by its path, and takes the server's lifespan."""

    def __init__(self, hub: Hub, streams: ASGIApp, prefix: str, others: Mapping[str, ASGIApp]) -> None:
        self._hub = hub
        self._streams = streams
        self._prefix = check_prefix(prefix)
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or live as long as the server."""
        if scope["type"] == "lifespan":
            await live(self._hub, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            root: str = scope.get("root_path", "")
            path: str = scope["path"].removeprefix(root)
            other = self._others.get(path)  # first: the streams' prefix may be the root
            if other is not None:
                await other(scope, receive, send)
            elif path.startswith(self._prefix):
                scope["root_path"] = root + self._prefix[:-1]
                await self._streams(scope, receive, send)
            else:
                await answer(send, 404, f"nothing is here: streams are under {root}{self._prefix}\n".encode())


def check_prefix(prefix: str) -> str:
    """Return a path that begins and ends with a slash, or raise ``ConfigError``."""
    if not prefix.startswith("/") or not prefix.endswith("/") or "//" in prefix or not prefix.isprintable():
        raise ConfigError(f"prefix {prefix!r} must begin and end with a slash, as in {PREFIX!r}")
    return prefix
