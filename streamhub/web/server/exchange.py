"""One request of a connection, and the answer to it, as an ASGI application has them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Protocol

from starlette.types import ASGIApp, Message, Scope

from streamhub.errors import ResponseAbortedError

Headers = Iterable[tuple[bytes, bytes]]

_STATUS_LINES: Mapping[int, bytes] = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}
_LENGTH = frozenset({b"content-length", b"transfer-encoding"})
_FRAMING = _LENGTH | {b"connection"}
_GO_AHEAD = b"HTTP/1.1 100 Continue\r\n\r\n"

logger: logging.Logger = logging.getLogger("streamhub")


class Line(Protocol):
    """The connection that an exchange goes over."""

    write_paused: bool
    """Whether the client has not read enough of what was sent."""

    @property
    def ends(self) -> bool:
        """Whether no other exchange will follow."""
        ...

    @property
    def preamble(self) -> bytes:
        """The header lines that every response begins with."""
        ...

    def write(self, data: bytes) -> None:
        """Send."""
        ...

    async def writable(self) -> None:
        """Wait while ``write_paused``; end when the client has gone, too."""
        ...

    def read_on(self) -> None:
        """Read more, for a part of the body was taken."""
        ...

    def done(self, *, ends: bool) -> None:
        """Go on with the next exchange, or end the connection."""
        ...


class Exchange:
    """Gives the application a request, and writes what it answers.

    Args:
        line: the connection.
        scope: the request's head.
        ends: whether the client wants the connection to end with this response.
        body: all of the request's body, if it is there.
    """

    def __init__(self, line: Line, scope: Scope, *, ends: bool, body: bytes | None = None) -> None:
        self._line = line
        self._scope = scope
        self._ends = ends
        self._news: asyncio.Event | None = None  # for those that wait in ``receive``
        # The request's body: what has come and was not taken, whether it is whole, and whether that was told.
        self._body: bytes | bytearray = body or b""
        self._whole = body is not None
        self._told = False
        self._invited = False  # to send it, by 100
        self._gone = False  # the client, or what was still to come of the body
        # The response.
        self._started = self._complete = False
        self._bodyless = self._chunked = False
        self._head = b""  # not sent yet
        self._left: int | None = None  # of the length that it names

    async def run(self, app: ASGIApp) -> None:
        """Have the application answer; whatever it does, the connection goes on, or ends."""
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._fail(503, "the server stops")
            raise
        except ResponseAbortedError as aborted:
            logger.warning("a response was cut off: %s", aborted)
        except Exception:
            logger.exception("the application failed")
        if not self._complete:
            self._fail(500, "the server failed")

    def _fail(self, status: int, why: str) -> None:
        if self._complete:
            return
        self._complete = True
        answers = not self._gone and (not self._started or bool(self._head))  # nothing was sent yet
        if answers:
            self._line.write(text_response(status, why, bodyless=self._scope["method"] == "HEAD"))
        self._line.done(ends=answers or self._started)

    # --- the request

    @property
    def waiting_bytes(self) -> int:
        """How much of the body has come and will be taken."""
        return 0 if self._complete else len(self._body)

    def feed(self, body: bytes) -> None:
        """Take a part of the body; when the response is complete, nobody needs it."""
        if self._complete:
            return
        if not self._body:
            self._body = body
        elif isinstance(self._body, bytearray):
            self._body += body
        else:
            self._body = bytearray(self._body + body)
        self._tell()

    def feed_end(self) -> None:
        """Take note that the body is whole."""
        self._whole = True
        self._tell()

    def reopen(self) -> bytes:
        """Take back that the body is whole; return the headers that say how it ends: none if there is no body."""
        framing = b"".join(b"%b: %b\r\n" % header for header in self._scope["headers"] if header[0] in _LENGTH)
        self._whole = not framing
        return framing

    def lose(self) -> None:
        """Take note that the client has gone, or what it sends does not end the body."""
        self._gone = True
        self._tell()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    async def receive(self) -> Message:
        """Return what has come of the body, or wait for it; after its end, wait for that of the exchange."""
        while not self._gone and not self._complete:
            if self._body or (self._whole and not self._told):
                return self._taken()
            self._invite()
            if self._news is None:
                self._news = asyncio.Event()
            await self._news.wait()
        return {"type": "http.disconnect"}

    def _taken(self) -> Message:
        body, self._body = bytes(self._body), b""
        self._told = self._whole
        if not self._whole:
            self._line.read_on()
        return {"type": "http.request", "body": body, "more_body": not self._whole}

    def _invite(self) -> None:
        if not self._invited and not self._whole and self._waits_for_invitation():
            self._line.write(_GO_AHEAD)
        self._invited = True

    def _waits_for_invitation(self) -> bool:
        return self._scope["http_version"] == "1.1" and any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in self._scope["headers"]
        )

    # --- the response

    async def send(self, message: Message) -> None:
        """Send a part of the response; nothing, once the client has gone."""
        if self._line.write_paused:
            await self._line.writable()
        if self._gone:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self._started:
            self._start(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and self._started and not self._complete:
            self._go_on(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind!r} is out of order")

    def _start(self, status: int, headers: Headers) -> None:
        if not (self._whole or self._invited) and self._waits_for_invitation():
            self._invited = self._ends = True  # whether its body comes now, or its next request, nobody can tell
        parts: list[bytes] = []
        for name, value in headers:
            if name not in _FRAMING or self._is_passed_on(name, value):
                parts += (name, b": ", value, b"\r\n")
        block = b"".join(parts)
        if not len(parts) // 4 == block.count(b"\n") == block.count(b"\r") or b"\0" in block:
            self._left = None
            raise ValueError("a header of the response has a line break in it")
        self._started = True
        status_line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        self._head = status_line + self._line.preamble + block + self._framing(status) + b"\r\n"
        if self._left is None and not self._bodyless:
            self._flush(b"")  # else the body, or its absence, follows at once

    def _is_passed_on(self, name: bytes, value: bytes) -> bool:
        """Take note of what the application says of how the response ends; say whether the client shall know."""
        if name == b"content-length":
            self._left = int(value)
            return True
        if name == b"connection" and b"close" in value.lower():
            self._ends = True
        return False

    def _framing(self, status: int) -> bytes:
        """Decide how the client will know where the body ends; return the headers that say it."""
        lines = b""
        if status in (204, 304) or self._scope["method"] == "HEAD":
            self._bodyless = True
        elif self._left is None:
            if self._scope["http_version"] == "1.1":
                self._chunked = True
                lines = b"transfer-encoding: chunked\r\n"
            else:
                self._ends = True
        return lines + b"connection: close\r\n" if self._ends or self._line.ends else lines

    def _go_on(self, body: bytes, *, more: bool) -> None:
        if self._bodyless:
            self._flush(b"")
        elif self._chunked:
            self._flush((b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n"))
        else:
            if self._left is not None:
                self._left -= len(body)
                if self._left < 0 or (self._left and not more):
                    raise RuntimeError("the response's body is not as long as its Content-Length")
            self._flush(body)
        if not more:
            self._complete = True
            self._tell()
            self._line.done(ends=self._ends)

    def _flush(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        if data:
            self._line.write(data)


def text_response(status: int, text: str, *, bodyless: bool = False) -> bytes:
    """Write the last response of a connection, for what never reaches an application, or does not come from it."""
    head = b"content-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\nconnection: close\r\n"
    body = f"{text}\n".encode()
    return b"%bcontent-length: %d\r\n%b\r\n%b" % (_STATUS_LINES[status], len(body), head, b"" if bodyless else body)
