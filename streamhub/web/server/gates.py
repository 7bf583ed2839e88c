"""Who gets through to the streams at all: bearers of a token, this machine's own clients, pages of a known origin."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Collection
from hashlib import sha256
from hmac import compare_digest
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from streamhub.errors import ConfigError
from streamhub.inputs import check_token
from streamhub.web.server.plain import answer, header

_LOOPBACK = re.compile(rb"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)
_ORIGIN = re.compile(rb"[a-z][a-z0-9+.\-]{0,30}://[a-z0-9\-._:\[\]]{1,300}")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_CHALLENGE = [(b"www-authenticate", b'Bearer realm="streamhub"')]


class BearerGate:
    """Answers 401 to requests without ``Authorization: Bearer`` and one of the tokens."""

    def __init__(self, app: ASGIApp, tokens: Collection[str]) -> None:
        self._app = app
        # Digests: comparing them takes the same time whatever the tokens' lengths.
        self._digests = [sha256(check_token(token).encode()).digest() for token in tokens]

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Let the request through, or refuse it."""
        given = header(scope, b"authorization") or b""
        scheme, _, token = given.partition(b" ")
        digest = sha256(token.strip()).digest()
        known = [compare_digest(digest, each) for each in self._digests]  # each of them, wherever a match is
        if scheme.lower() == b"bearer" and any(known):
            return self._app(scope, receive, send)
        return answer(send, 401, _what_is_missing(scheme, token), _CHALLENGE)


def _what_is_missing(scheme: bytes, token: bytes) -> bytes:
    if not scheme:
        return b"a bearer token is needed\n"
    if scheme.lower() != b"bearer" or not token.strip():
        return b"write it as Authorization: Bearer TOKEN\n"
    return b"this bearer token is not known\n"


class LoopbackGate:
    """Answers 403 to requests that were not sent to a name of this machine.

    A server that lets every local program in must not let pages in whose host name points here.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Let the request through, or refuse it."""
        if _LOOPBACK.fullmatch(header(scope, b"host") or b""):
            return self._app(scope, receive, send)
        return answer(send, 403, b"this server is for localhost: see its options --token, --authorize and --open\n")


class OriginGate:
    """Answers 403 to requests of foreign pages that would change something.

    CORS does not do that: it keeps a page from reading the answer, but a POST of plain text is carried out, with
    cookies. Not needed where a token is, which no browser sends by itself.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = {origin.encode() for origin in origins}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Let the request through, or refuse it."""
        origin = header(scope, b"origin")
        if origin is None or scope["method"] in _READING or self._knows(scope, origin):
            return self._app(scope, receive, send)
        return answer(send, 403, b"%b may not change streams here: see --cors-origin\n" % pages_of(origin))

    def _knows(self, scope: Scope, origin: bytes) -> bool:
        if origin in self._origins or b"*" in self._origins:
            return True
        return origin.partition(b"://")[2] == header(scope, b"host")


def pages_of(origin: bytes | None) -> bytes:
    """Name the pages of an origin; not by a text that is none."""
    return b"pages of " + (origin if origin and _ORIGIN.fullmatch(origin) else b"this origin")


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
