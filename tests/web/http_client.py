"""A client that shows what servers and libraries hide: how a body ended, and what a client does that does not read."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from streamhub.sse import Event, Parser

PATIENCE_SECONDS = 20.0

Ending = Literal["clean", "cut"]


@dataclass
class Reply:
    """A response under way. ``ending`` is None while the body may go on."""

    status: int
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ending: Ending | None = None
    raw: bytes = b""
    parser: Parser = field(default_factory=Parser)
    waiting: list[Event] = field(default_factory=list)

    async def piece(self) -> bytes:
        """Return the next part of the body; nothing at its end."""
        try:
            part = await self._piece()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            part, self.ending = b"", "cut"
        self.raw += part
        return part

    async def _piece(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
            part = await self.reader.readexactly(size)
            await self.reader.readexactly(2)
            if not size:
                self.ending = "clean"
            return part
        length = self.headers.get("content-length")
        part = await self.reader.readexactly(int(length)) if length else b""
        self.ending = "clean"
        return part

    async def event(self) -> Event | None:
        """Return the next event, None when the body has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self.waiting and self.ending is None:
                self.waiting += self.parser.feed(await self.piece())
        return self.waiting.pop(0) if self.waiting else None

    async def events(self) -> list[Event]:
        """Return all events up to the body's end."""
        found: list[Event] = []
        while (event := await self.event()) is not None:
            found.append(event)
        return found

    async def body(self) -> bytes:
        """Return the whole body."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.ending is None:
                await self.piece()
        return self.raw

    @property
    def last_id(self) -> str:
        """What to send as ``Last-Event-ID``."""
        return self.parser.last_id.decode()

    async def reset(self) -> None:
        """Leave by a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def request(
    port: int,
    path: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    receive_buffer: int | None = None,
) -> AsyncIterator[Reply]:
    """Send a request, and give the reply once its head is there."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    reader, writer = await asyncio.open_connection(sock=sock, limit=64 * 1024)
    try:
        given = headers or {}
        sized = method == "POST" and "Transfer-Encoding" not in given
        sent = {"Host": "test", **({"Content-Length": str(len(body))} if sized else {}), **given}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
        writer.write("\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body)
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *fields = head.split("\r\n")[:-2]
        pairs = (line.split(": ", 1) for line in fields)
        reply = Reply(int(status.split()[1]), {name.lower(): value for name, value in pairs}, reader, writer)
        if method == "HEAD" or reply.status == 204:
            reply.ending = "clean"
        yield reply
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()
