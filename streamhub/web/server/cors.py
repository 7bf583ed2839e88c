"""CORS: which pages of other origins may use the streams, and what of a response they may read."""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamhub.web.durable import RESPONSE_HEADERS
from streamhub.web.server.gates import check_origin, pages_of
from streamhub.web.server.plain import answer, header

METHODS = b"GET, HEAD, PUT, POST, DELETE"

EXPOSED = ", ".join(RESPONSE_HEADERS).encode()

MAX_AGE_SECONDS = 7200
_NAMES = re.compile(rb"[\w\-!#$%&'*+.^`|~, ]{1,1000}", re.ASCII)


class Cors:
    """Answers preflights, and lets pages of the given origins (``*``: of all) read responses. Cookies are left out."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = {check_origin(origin).encode() for origin in origins}
        self._every = b"*" in self._origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight; else add to what the app answers."""
        origin = header(scope, b"origin")
        if scope["method"] == "OPTIONS" and origin is not None and header(scope, b"access-control-request-method"):
            await self._preflight(scope, send, origin)
            return
        extra = [*self._allowed(origin), (b"access-control-expose-headers", EXPOSED)]

        async def opened(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self._app(scope, receive, opened)

    def _allowed(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        if self._every:
            return [(b"access-control-allow-origin", b"*")]
        # Said to all: a cache may keep what it got for one origin, or for none.
        varies = [(b"vary", b"Origin")]
        return [(b"access-control-allow-origin", origin), *varies] if origin in self._origins and origin else varies

    async def _preflight(self, scope: Scope, send: Send, origin: bytes) -> None:
        if not self._every and origin not in self._origins:
            await answer(
                send, 403, b"%b may not use the streams: see --cors-origin\n" % pages_of(origin), self._allowed(origin)
            )
            return
        headers = [
            *self._allowed(origin),
            (b"access-control-allow-methods", METHODS),
            (b"access-control-max-age", str(MAX_AGE_SECONDS).encode()),
        ]
        names = header(scope, b"access-control-request-headers")
        if names and _NAMES.fullmatch(names):  # "*" would not cover Authorization
            headers.append((b"access-control-allow-headers", names))
        await answer(send, 204, headers=headers)
