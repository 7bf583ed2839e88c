"""Who gets through to the streams at all: bearers of a token, this machine's own clients, pages of a known origin."""

from __future__ import annotations

import re
from collections.abc import Collection
from hashlib import sha256
from hmac import compare_digest
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from streamhub.errors import ConfigError
from streamhub.web.server.plain import answer, header

_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_LOOPBACK = re.compile(rb"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_CHALLENGE = [(b"www-authenticate", b'Bearer realm="streamhub"')]


def check_token(token: str) -> str:
    """Return the token, or raise ``ConfigError``, which does not show it."""
    if not _TOKEN.fullmatch(token):
        raise ConfigError("a token consists of letters, digits and -._~+/ with = at its end, and is not empty")
    return token


class BearerGate:
    """Answers 401 to requests without ``Authorization: Bearer`` and one of the tokens."""

    def __init__(self, app: ASGIApp, tokens: Collection[str]) -> None:
        self._app = app
        # Digests: comparing them takes the same time whatever the tokens' lengths.
        self._digests = [sha256(check_token(token).encode()).digest() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or refuse it."""
        given = header(scope, b"authorization") or b""
        scheme, _, token = given.partition(b" ")
        digest = sha256(token.strip()).digest()
        known = [compare_digest(digest, each) for each in self._digests]  # each of them, wherever a match is
        if scheme.lower() == b"bearer" and any(known):
            await self._app(scope, receive, send)
        else:
            await answer(send, 401, b"a bearer token is needed\n", _CHALLENGE)


class LoopbackGate:
    """Answers 403 to requests that were not sent to a name of this machine.

    A server that lets every local program in must not let pages in whose host name points here.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or refuse it."""
        if _LOOPBACK.fullmatch(header(scope, b"host") or b""):
            await self._app(scope, receive, send)
        else:
            await answer(send, 403, b"this server is for localhost: see its options --token, --authorize and --open\n")


class OriginGate:
    """Answers 403 to requests of foreign pages that would change something.

    CORS does not do that: it keeps a page from reading the answer, but a POST of plain text is carried out, with
    cookies. Not needed where a token is, which no browser sends by itself.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = {origin.encode() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or refuse it."""
        if scope["method"] in _READING or self._knows(scope, header(scope, b"origin")):
            await self._app(scope, receive, send)
        else:
            await answer(send, 403, b"not from this origin\n")

    def _knows(self, scope: Scope, origin: bytes | None) -> bool:
        if origin is None or origin in self._origins or b"*" in self._origins:
            return True
        return origin.partition(b"://")[2] == header(scope, b"host")


def check_origin(origin: str) -> str:
    """Return an origin as browsers send it, or ``*``; else raise ``ConfigError``."""
    if origin != "*" and not _is_origin(origin):
        raise ConfigError(f"{origin!r} is not an origin: write it as https://app.example, or * for every one")
    return origin


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    whole = f"{parts.scheme}://{parts.netloc}"
    return bool(parts.scheme and parts.netloc) and text == whole == text.lower()
