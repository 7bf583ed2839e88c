"""HTTP/1.1 as ``serve`` speaks it: a protocol for uvicorn's setting ``http``, on the parser of httptools.

uvicorn's own bounds neither a request's head nor the requests that a client sends ahead, takes trailers for headers,
and costs a short request more than all that the application does for it. Sources: RFC 9110, RFC 9112; for what
applications see ASGI 3.0, HTTP version 2.3.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol, cast
from urllib.parse import unquote

import httptools
from starlette.types import ASGIApp

from streamhub.web.server.exchange import Exchange, text_response
from streamhub.web.server.heads import Head, Heads

MAX_HEAD_BYTES = 64 * 1024
MAX_WAITING_BYTES = 64 * 1024
"""So much of a body is taken before the application asks for it."""
PIECE_BYTES = 16 * 1024
"""So much is parsed before it is asked whether to read on: a thousand requests may be in it."""


class ServerConfig(Protocol):
    """What is used of ``uvicorn.Config``."""

    loaded_app: ASGIApp
    timeout_keep_alive: int
    """Seconds for which a connection may be idle, or take for a request's head."""

    @property
    def is_ssl(self) -> bool:
        """Whether connections are encrypted."""
        ...


class ServerState(Protocol):
    """What is used of uvicorn's ``ServerState``: what it waits for when it stops."""

    total_requests: int
    connections: set[Any]
    tasks: set[asyncio.Task[None]]
    default_headers: list[tuple[bytes, bytes]]


class Http1(asyncio.Protocol):
    """One connection. Its requests are answered one after another, in their order."""

    def __init__(
        self,
        config: ServerConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.write_paused: bool = False
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._server = server_state
        self._app = config.loaded_app
        self._parser: Any = httptools.HttpRequestParser(self)
        self._about: MutableMapping[str, Any] = {  # what every request's scope has
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "scheme": "https" if config.is_ssl else "http",
            "root_path": "",
        }
        self._app_state = app_state
        self._heads = Heads()
        self._between = True  # requests: what comes next begins one
        self._newest: Mapping[str, Any] | None = None  # scope of the last one, if the connection goes on after it
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._unparsed: bytes = b""  # until there is need to read on
        self._unfinished_bytes = 0  # of a head, or between the pieces of a body
        self._incoming: Exchange | None = None  # whose body is being read
        self._current: Exchange | None = None  # which is being answered
        self._ahead: deque[Exchange] = deque()
        self._last_words: bytes | None = None  # to be sent after all that came, and then no more
        self._preamble, self._preamble_of = b"", list[tuple[bytes, bytes]]()
        self._read_paused = False
        self._may_write: asyncio.Event | None = None
        self._quiet_seconds = config.timeout_keep_alive
        self._quiet_since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0  # when the timer looked last

    # --- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._about["server"] = _address(transport, "sockname")
        self._about["client"] = _address(transport, "peername")
        self._server.connections.add(self)
        self._timer = self._loop.call_later(self._quiet_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the applications know."""
        self._server.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        for exchange in (self._current, self._incoming):
            if exchange is not None:
                exchange.lose()
        self._incoming = None
        self._ahead.clear()
        self._unparsed = b""
        self.resume_writing()
        self._parser = None  # it refers to this object

    def data_received(self, data: bytes) -> None:
        """Parse."""
        if self._unparsed or self._unfinished_bytes + len(data) > PIECE_BYTES:
            self._unparsed += data
            self._parse_pieces()
        elif not self._between or self._last_words is not None:
            self._unfinished_bytes += len(data)
            self._parse(data)
        elif (known := self._heads.find(data)) is not None:
            self._repeat(*known)
        else:
            self._parse_new(data)

    def _repeat(self, head: Head, body: bytes) -> None:
        """Have a request answered whose head came before."""
        self._quiet_since = self._loop.time()
        scope = {**head.scope, "headers": [*head.headers], "state": self._app_state.copy()}
        self._answer(Exchange(self, scope, ends=False, body=body))

    def _parse_new(self, data: bytes) -> None:
        """Parse the beginning of a request, and remember its head if that is all there is."""
        self._unfinished_bytes += len(data)
        self._parse(data)
        if self._between and self._newest is not None:
            self._heads.learn(data, self._newest)

    def _parse_pieces(self) -> None:
        while self._unparsed and not self._read_paused:
            piece, self._unparsed = self._unparsed[:PIECE_BYTES], self._unparsed[PIECE_BYTES:]
            self._unfinished_bytes += len(piece)
            self._parse(piece)
            if self._unfinished_bytes > MAX_HEAD_BYTES:
                self._unparsed = b""
                self._transport.abort()
        if not self._read_paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def _parse(self, data: bytes) -> None:
        try:
            while data:
                data = self._parsed(data)
        except httptools.HttpParserError:
            self._refuse()

    def _parsed(self, data: bytes) -> bytes:
        """Parse; return what follows a request to speak another protocol, which is not taken up."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline()
            return data[upgrade.args[0] :]
        return b""

    def _decline(self) -> None:
        """Go on with HTTP/1.1: have the body read which the parser leaves to the other protocol."""
        exchange = self._ahead[-1] if self._ahead else self._current
        if self._last_words is None and exchange is not None and (framing := exchange.reopen()):
            self._incoming, self._last_words = exchange, b""  # so that no request begins with this head
            self._parser = httptools.HttpRequestParser(self)
            try:
                self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)
            finally:
                self._last_words = None

    def pause_writing(self) -> None:
        """Let applications wait."""
        self.write_paused = True
        self._may_write = asyncio.Event()

    def resume_writing(self) -> None:
        """Let them go on."""
        self.write_paused = False
        if self._may_write is not None:
            self._may_write.set()

    async def writable(self) -> None:
        """See ``Line``."""
        while self.write_paused and self._may_write is not None:
            await self._may_write.wait()

    # --- what the parser calls

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._between = False
        self._newest = None
        self._target = b""
        self._headers = []
        self._quiet_since = self._loop.time()

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; or a trailer, which nobody will see."""
        self._headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        """Have the request answered, after those before it."""
        self._unfinished_bytes = 0
        if self._last_words is not None:
            return
        scope = self._scope()
        self._headers = []  # trailers must not join what the application is given, and checks
        version = scope["http_version"]
        if version == "1.1":
            ends = not self._parser.should_keep_alive()
            if [name for name, _ in scope["headers"]].count(b"host") != 1:
                raise httptools.HttpParserError("there must be one Host")
        elif version == "1.0":
            ends = True
        else:
            raise httptools.HttpParserError(f"HTTP/{version} is another protocol")
        self._newest = None if ends else {**scope, "headers": [*scope["headers"]]}
        self._incoming = Exchange(self, scope, ends=ends)
        self._answer(self._incoming)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._unfinished_bytes = 0
        if self._incoming is not None:
            self._incoming.feed(body)
            if self._incoming.waiting_bytes > MAX_WAITING_BYTES:
                self.read_on()

    def on_message_complete(self) -> None:
        """End a request."""
        self._between = True
        self._unfinished_bytes = 0
        if self._incoming is not None:
            self._incoming.feed_end()
            self._incoming = None
            if self._read_paused:
                self.read_on()

    def _scope(self) -> MutableMapping[str, Any]:
        target = httptools.parse_url(self._target)
        raw_path = target.path or b"/"
        path = raw_path.decode("ascii")
        return {
            **self._about,
            "http_version": self._parser.get_http_version(),
            "method": self._parser.get_method().decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": target.query or b"",
            "headers": self._headers,
            "state": self._app_state.copy(),
        }

    # --- one exchange after another

    def _answer(self, exchange: Exchange) -> None:
        if self._current is None:
            self._begin(exchange)
        else:
            self._ahead.append(exchange)
            self.read_on()

    def _begin(self, exchange: Exchange) -> None:
        self._current = exchange
        task = self._loop.create_task(exchange.run(self._app), name="streamhub request")
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    @property
    def ends(self) -> bool:
        """See ``Line``."""
        return self._last_words == b"" and not self._ahead

    @property
    def preamble(self) -> bytes:
        """See ``Line``."""
        headers = self._server.default_headers  # another list each second
        if headers is not self._preamble_of:
            self._preamble_of = headers
            self._preamble = b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._preamble

    def write(self, data: bytes) -> None:
        """See ``Line``."""
        self._transport.write(data)

    def done(self, *, ends: bool) -> None:
        """See ``Line``."""
        self._server.total_requests += 1
        self._current = None
        self._quiet_since = self._loop.time()
        if ends:
            self._close(b"")
        elif self._ahead:
            self._begin(self._ahead.popleft())
        elif self._last_words is not None:
            self._close(self._last_words)
        if self._read_paused:
            self.read_on()

    def read_on(self) -> None:
        """Read from the client, but while requests wait for one before them, or much of a body for its application."""
        much = self._incoming is not None and self._incoming.waiting_bytes > MAX_WAITING_BYTES
        paused = much or bool(self._ahead)
        if paused is not self._read_paused and not self._transport.is_closing():
            self._read_paused = paused
            if paused:
                self._transport.pause_reading()
            elif self._unparsed:
                self._loop.call_soon(self._parse_pieces)
            else:
                self._transport.resume_reading()

    def _refuse(self) -> None:
        """Tell the client that what it sent is no request, or no body of the last one."""
        self._unfinished_bytes = 0  # whatever comes now is thrown away
        if self._incoming is not None:
            self._incoming.lose()
            if self._ahead:
                self._ahead.pop()  # it has not begun
        if self._last_words is None:
            self._end(text_response(400, "this is not HTTP/1.1"))

    def shutdown(self) -> None:
        """End the connection once what has come is answered: uvicorn stops."""
        if self._last_words is None:
            self._end(b"")

    def _end(self, last_words: bytes) -> None:
        self._last_words = last_words
        if self._current is None:
            self._close(last_words)

    def _close(self, last_words: bytes) -> None:
        if last_words:
            self._transport.write(last_words)
        self._last_words = b""  # what is yet to be parsed begins no request
        self._transport.close()

    def _look(self) -> None:
        """End a connection that was quiet for too long: one timer for all its requests."""
        quiet = 0.0 if self._current is not None else self._loop.time() - self._quiet_since
        if quiet >= self._quiet_seconds:
            self._end_quiet()
            quiet = 0.0
        self._timer = self._loop.call_later(self._quiet_seconds - quiet, self._look)

    def _end_quiet(self) -> None:
        unsent_bytes = self._transport.get_write_buffer_size()
        if unsent_bytes and unsent_bytes == self._unsent_bytes:
            self._transport.abort()  # the client is frozen: to close would be to wait for it
        elif not self._transport.is_closing():
            self._close(b"")
        self._unsent_bytes = unsent_bytes


def _address(transport: asyncio.BaseTransport, name: str) -> tuple[str, int] | None:
    match transport.get_extra_info(name):
        case (str(host), int(port), *_):
            return host, port
        case _:
            return None
