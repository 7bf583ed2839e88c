"""Raw HTTP/1.1 to a server of a test, and small applications that say what they were given."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send
from web_server import PATIENCE_SECONDS, serving

from streamhub.web.server.http1 import Http1

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
Headers = Iterable[tuple[bytes, bytes]]
Behaviour = Callable[["Call"], Awaitable[None]]


def post(body: bytes, *headers: str, sized: bool = True) -> bytes:
    """Write a request."""
    lines = ["POST /posted HTTP/1.1", "Host: test", *headers, *([f"Content-Length: {len(body)}"] if sized else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Call:
    """One call of the application."""

    scope: Scope
    receive: Receive
    send: Send
    body: bytes = b""
    left: bool = False
    """Whether the application was told that the client has gone, or that the exchange is over."""

    async def read(self) -> bytes:
        """Read the whole body, or up to where the client has gone."""
        more = True
        while more:
            message = await self.receive()
            self.left = message["type"] == "http.disconnect"
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
        return self.body

    async def start(self, status: int = 200, headers: Headers = ()) -> None:
        """Begin the response."""
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def give(self, body: bytes, *, more: bool = False) -> None:
        """Send a part of the response."""
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(self, body: bytes = b"ok", headers: Headers = ()) -> None:
        """Respond with a body of known length."""
        await self.start(200, [(b"content-length", b"%d" % len(body)), *headers])
        await self.give(body)


@dataclass
class App:
    """Does the same for every request, and keeps what it was given."""

    behaviour: Behaviour
    calls: list[Call] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        self.calls.append(call)
        await self.behaviour(call)


async def echo(call: Call) -> None:
    """Answer with what came."""
    await call.answer(await call.read())


@dataclass
class Reply:
    """A response. ``whole`` says that its body ended as its head said."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    whole: bool = True


@dataclass
class Wire:
    """The client's end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes) -> None:
        """Send each in a packet of its own, as far as that is in one's hands."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def reply(self, *, bodyless: bool = False) -> Reply:
        """Read one response."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            headers = dict(line.lower().split(": ", 1) for line in lines)
            assert len(headers) == len(lines), lines
            assert not {"content-length", "transfer-encoding"} <= set(headers)
            reply = Reply(int(status.split()[1]), headers)
            if not bodyless and reply.status not in (100, 204, 304):
                await self._body(reply)
            return reply

    async def _body(self, reply: Reply) -> None:
        try:
            if "content-length" in reply.headers:
                reply.body = await self.reader.readexactly(int(reply.headers["content-length"]))
            elif "transfer-encoding" in reply.headers:
                parts = list[bytes]()
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    parts.append((await self.reader.readexactly(size + 2))[:-2])
                reply.body = b"".join(parts)
                assert await self.reader.readexactly(2) == b"\r\n"
            else:
                reply.body = await self.reader.read()
        except asyncio.IncompleteReadError as cut:
            reply.body += cut.partial
            reply.whole = False

    async def rest(self) -> bytes:
        """Return all that comes before the server closes."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.read()


@asynccontextmanager
async def connected(port: int, *, trusted: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """Connect inside the block."""
    name = None if trusted is None else "localhost"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusted, server_hostname=name)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def speaking(app: App, *sent: bytes, **config: Any) -> AsyncIterator[Wire]:
    """Serve the application, connect to it, and send that."""
    async with serving(app, **{"http": Http1, **config}) as port, connected(port) as wire:
        await wire.send(*sent)
        yield wire
