"""A TCP proxy for faults between a client and a server: cuts connections, swallows bytes, loses replies.

    async with proxied("127.0.0.1", port) as proxy:
        connect("127.0.0.1", proxy.port)
        proxy.cut()                              # every connection is reset
        proxy.swallow()                          # both directions are dead, and nobody is told
        proxy.heal()                             # connections made from now on work; those that were dead stay dead
        lost = proxy.lose_reply(b"marker")       # the next request with this in it is made, and its reply is lost
        await lost.wait()                        # it was executed

Bytes are passed as they come. Only to know that a request was answered are both directions read along, as Redis
commands and replies; not with ``proxied(…, opaque=True)``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

import hiredis

_READ_BYTES = 65536

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset, not in order


class _Loss:
    """One request whose reply is to be lost."""

    def __init__(self, marker: bytes) -> None:
        self.marker = marker
        self.happened = asyncio.Event()


class Connection:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._writers = (client, server)
        self._requests, self._replies = hiredis.Reader(), hiredis.Reader()
        self._asked = self._answered = 0
        self._loss: _Loss | None = None
        self._lost_number = 0
        self.dead = False

    def swallow(self) -> None:
        """Drop every byte from now on, in both directions, and leave the connection up."""
        self.dead = True

    def cut(self) -> None:
        """Reset both sides."""
        for writer in self._writers:
            connected = writer.get_extra_info("socket")
            if connected is not None and not writer.transport.is_closing():
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def ask(self, data: bytes) -> bytes:
        """Return what of the client's bytes goes on to the server."""
        if self.dead:
            return b""
        if self._proxy.opaque:
            return data
        for number, command in enumerate(_read(self._requests, data), self._asked + 1):
            self._asked = number
            if self._loss is None and (loss := self._proxy.loss_for(command)) is not None:
                self._loss, self._lost_number = loss, number
        return data

    def answer(self, data: bytes) -> bytes:
        """Return what of the server's bytes goes on to the client."""
        if self.dead:
            return b""
        if self._proxy.opaque:
            return data
        self._answered += sum(1 for _ in _read(self._replies, data))
        if self._loss is None:
            return data
        if self._answered >= self._lost_number:
            self._loss.happened.set()
            self.cut()
        return b""


class Proxy:
    """Listens on a free port, and connects each that comes with the server."""

    def __init__(
        self, host: str, port: int, *, opaque: bool = False, kind: Callable[..., Connection] = Connection
    ) -> None:
        self.target = (host, port)
        self.opaque = opaque
        self._kind = kind
        self.port = 0
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._seconds_per_byte = 0.0
        self._dead = False
        self._refusing = False
        self._losses: list[_Loss] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, client: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            if not self._refusing:
                await self._serve(client, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the server is not there, or the proxy closes: streams would log a cancelled handler
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve(self, client: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        server, server_writer = await asyncio.open_connection(*self.target)
        connection = self._kind(self, client_writer, server_writer)
        connection.dead = self._dead
        self.connections.add(connection)
        pumps = [
            asyncio.create_task(_pump(client, server_writer, connection.ask, self.flowing)),
            asyncio.create_task(_pump(server, client_writer, connection.answer, self.flowing, self._slow)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.connections.discard(connection)
            server_writer.transport.abort()

    async def _slow(self, size_bytes: int) -> None:
        await asyncio.sleep(size_bytes * self._seconds_per_byte)

    def loss_for(self, command: object) -> _Loss | None:
        """Return, once, the loss that is planned for a command."""
        parts = [part for part in command if isinstance(part, bytes)] if isinstance(command, list) else []
        for loss in self._losses:
            if any(loss.marker in part for part in parts):
                self._losses.remove(loss)
                return loss
        return None

    # What tests do to all connections.

    def cut(self) -> None:
        """Reset every connection; new ones pass."""
        for connection in list(self.connections):
            connection.cut()

    def swallow(self, *, new: bool = True) -> None:
        """Let every connection go dead without a word; with ``new``, those made until ``heal`` as well."""
        self._dead = new
        for connection in self.connections:
            connection.swallow()

    def refuse(self) -> None:
        """Cut every connection, and each new one at once, until ``heal``."""
        self._refusing = True
        self.cut()

    def hold(self) -> None:
        """Read nothing more of any connection, until ``release``: who sends, is kept waiting."""
        self.flowing.clear()

    def release(self) -> None:
        """Read again."""
        self.flowing.set()

    def slow_down(self, bytes_per_second: float) -> None:
        """Let answers pass no faster than that, all connections' one beside the other."""
        self._seconds_per_byte = 1 / bytes_per_second

    def heal(self) -> None:
        """Let new connections pass. What is dead stays dead: its bytes are gone."""
        self._dead = self._refusing = False

    def lose_reply(self, marker: bytes) -> asyncio.Event:
        """Lose the reply of the next command with ``marker`` in it: it is executed, then its connection is cut.

        The event is set once the server has answered it.
        """
        loss = _Loss(marker)
        self._losses.append(loss)
        return loss.happened

    async def aclose(self) -> None:
        """End every connection."""
        self.cut()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _read(reader: hiredis.Reader, data: bytes) -> Iterable[object]:
    reader.feed(data)
    while (item := reader.gets()) is not False:
        yield item


async def _pump(
    source: asyncio.StreamReader,
    sink: asyncio.StreamWriter,
    through: Callable[[bytes], bytes],
    flowing: asyncio.Event,
    pace: Callable[[int], Awaitable[None]] | None = None,
) -> None:
    with contextlib.suppress(OSError):
        while await flowing.wait() and (data := await source.read(_READ_BYTES)):
            if pace is not None:
                await pace(len(data))
            passed = through(data)
            if passed:
                sink.write(passed)
                await sink.drain()


@contextlib.asynccontextmanager
async def proxied(
    host: str, port: int, *, opaque: bool = False, kind: Callable[..., Connection] = Connection
) -> AsyncGenerator[Proxy]:
    """Run a proxy before a server, inside the block; ``opaque``: what passes is no Redis commands.

    ``kind`` is a subclass of ``Connection`` that reads another protocol along.
    """
    proxy = Proxy(host, port, opaque=opaque, kind=kind)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.aclose()
