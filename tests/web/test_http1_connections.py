"""Connections of HTTP/1.1 as ``serve`` keeps them: many requests, slow and frozen clients, the end."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from http1_wire import GET, App, Behaviour, Call, connected, echo, post, speaking
from web_server import PATIENCE_SECONDS, serving, until

from streamhub.web.server.exchange import Exchange
from streamhub.web.server.http1 import PIECE_BYTES, Http1

LARGE = 8 * 1024 * 1024
SOON = 0.2
"""Seconds for which a connection of these tests may be quiet."""


class Gate:
    """An application that begins to answer when it is told to."""

    def __init__(self, body: bytes = b"ok") -> None:
        self.app = App(self._answer)
        self.opened = asyncio.Event()
        self._body = body

    async def _answer(self, call: Call) -> None:
        await self.opened.wait()
        await call.answer(self._body)

    async def begun(self, count: int = 1) -> None:
        """Wait for so many requests."""
        await until(lambda: len(self.app.calls) >= count)


async def waiting(call: Call) -> None:
    """Answer nothing, until the client has gone."""
    await call.read()
    while not call.left:
        await call.read()


class Lost(Http1):
    """Counts the connections that are over."""

    count = 0

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        Lost.count += 1


@pytest.fixture(autouse=True)
def _none_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lost, "count", 0)


# --- requests that are sent ahead


async def test_ten_thousand_requests_sent_at_once_are_answered_in_order() -> None:
    many = 10_000
    app = App(echo)
    async with speaking(app) as wire:
        sending = asyncio.create_task(wire.send(b"".join(post(b"%d" % number) for number in range(many))))
        assert [int((await wire.reply()).body) for _ in range(many)] == list(range(many))
        await sending
    assert len(app.calls) == many


async def test_requests_that_wait_for_one_before_them_take_little_memory() -> None:
    def exchanges() -> int:
        gc.collect()
        return sum(isinstance(one, Exchange) for one in gc.get_objects())

    before = exchanges()
    gate = Gate()
    async with speaking(gate.app) as wire:
        wire.writer.write(GET * 100_000)
        await gate.begun()
        assert exchanges() - before < 1000
        gate.opened.set()
        for _ in range(2000):
            await wire.reply()
    assert len(gate.app.calls) >= 2000


async def test_requests_behind_the_last_are_not_begun() -> None:
    async def behaviour(call: Call) -> None:
        await call.answer(headers=[(b"connection", b"close")])

    app = App(behaviour)
    async with speaking(app, GET * 3) as wire:
        await wire.reply()
        assert await wire.rest() == b""
    assert len(app.calls) == 1


async def test_requests_that_are_yet_to_be_parsed_are_not_begun_behind_the_last() -> None:
    last = PIECE_BYTES // len(GET)

    async def behaviour(call: Call) -> None:
        await call.answer(headers=[(b"connection", b"close")] if len(app.calls) == last else [])

    app = App(behaviour)
    async with speaking(app, GET * last * 2) as wire:
        for _ in range(last):
            await wire.reply()
        with suppress(ConnectionError):
            assert await wire.rest() == b""
    assert len(app.calls) == last


async def test_http_1_0_has_one_request_a_connection() -> None:
    request = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    app = App(echo)
    async with speaking(app, request * 2) as wire:
        assert (await wire.reply()).headers["connection"] == "close"
        assert await wire.rest() == b""
    assert len(app.calls) == 1


# --- bodies that nobody reads


async def test_body_that_nobody_reads_is_no_obstacle_to_the_next_request() -> None:
    app = App(Call.answer)
    async with speaking(app) as wire:
        sending = asyncio.create_task(wire.send(post(b"x" * LARGE), GET))
        assert [(await wire.reply()).status, (await wire.reply()).status] == [200, 200]
        await sending
    assert [call.scope["method"] for call in app.calls] == ["POST", "GET"]


async def test_body_is_not_read_before_the_application_asks_for_it() -> None:
    opened = asyncio.Event()

    async def behaviour(call: Call) -> None:
        await opened.wait()
        await echo(call)

    body = b"y" * LARGE
    async with speaking(App(behaviour)) as wire:
        sending = asyncio.create_task(wire.send(post(body)))
        unsent = wire.writer.transport.get_write_buffer_size
        await until(lambda: unsent() > 0)
        for _ in range(1000):  # turns, in which all of it could be read
            await asyncio.sleep(0)
        assert not sending.done()
        opened.set()
        assert (await wire.reply()).body == body
        await sending


# --- clients that go


@pytest.mark.parametrize("half", [False, True], ids=["closed", "half-closed"])
@pytest.mark.parametrize(
    "sent", [GET, post(b""), post(b"x" * 200_000), post(b"half")[:-2]], ids=["GET", "POST", "much", "in the body"]
)
async def test_application_learns_that_the_client_has_gone(sent: bytes, *, half: bool) -> None:
    app = App(waiting)
    async with speaking(app, http=Lost) as wire:
        await wire.send(sent)
        await until(lambda: len(app.calls) == 1 and len(app.calls[0].body) >= len(sent.partition(b"\r\n\r\n")[2]))
        if half:
            wire.writer.write_eof()
        else:
            wire.writer.close()
        await until(lambda: app.calls[0].left and Lost.count == 1)


async def test_sending_to_a_client_that_has_gone_is_no_error() -> None:
    done = asyncio.Event()

    async def behaviour(call: Call) -> None:
        await waiting(call)
        await call.answer(b"x" * LARGE)
        done.set()

    async with speaking(App(behaviour), GET) as wire:
        wire.writer.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await done.wait()


async def test_application_that_waits_to_send_is_freed_when_the_client_goes() -> None:
    done = asyncio.Event()

    async def behaviour(call: Call) -> None:
        await call.start()
        while not call.left:
            await call.give(b"x" * 65536, more=True)
            call.left = Lost.count > 0
        done.set()

    async with speaking(App(behaviour), GET, http=Lost) as wire:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await wire.reader.readuntil(b"\r\n\r\n")
            wire.writer.transport.abort()
            await done.wait()


async def test_client_that_does_not_read_is_not_sent_more() -> None:
    sent = 0

    async def behaviour(call: Call) -> None:
        nonlocal sent
        await call.start()
        for _ in range(256):
            await call.give(b"x" * 65536, more=True)
            sent += 1
        await call.give(b"")

    async with speaking(App(behaviour), send_buffer=65536) as wire:
        wire.writer.transport.pause_reading()
        await wire.send(GET)
        await until(lambda: sent > 0)
        for _ in range(2000):  # turns, in which all could be sent
            await asyncio.sleep(0)
        assert sent < 200
        wire.writer.transport.resume_reading()
        assert len((await wire.reply()).body) == 256 * 65536


# --- the time it may take


@pytest.mark.parametrize("sent", [b"", GET, b"GET / HT", post(b"")[:-2]], ids=["nothing", "idle", "line", "headers"])
async def test_connection_that_is_quiet_is_closed(sent: bytes) -> None:
    async with speaking(App(echo), sent, timeout_keep_alive=SOON) as wire:
        if sent == GET:
            await wire.reply()
        assert await wire.rest() == b""


async def test_answer_may_take_longer() -> None:
    async def behaviour(call: Call) -> None:
        body = await call.read()
        await call.start()
        for _ in range(3):
            await asyncio.sleep(SOON)
            await call.give(body, more=True)
        await call.give(b"")

    async with speaking(App(behaviour), timeout_keep_alive=SOON) as wire:
        for piece in (post(b"ab")[:-1], b"b", GET):
            await wire.send(piece)
            await asyncio.sleep(SOON if piece != GET else 0)
        assert (await wire.reply()).body == b"ababab"
        assert (await wire.reply()).whole


async def test_client_that_reads_slowly_gets_all() -> None:
    size = 0
    async with _asked(Http1) as slow, asyncio.timeout(PATIENCE_SECONDS):
        while data := await asyncio.get_running_loop().sock_recv(slow, 400_000):
            size += len(data)
            await asyncio.sleep(SOON / 10)
    assert size > LARGE


async def test_client_that_is_frozen_is_let_go() -> None:
    async with _asked(Lost):
        await until(lambda: Lost.count == 1)


@asynccontextmanager
async def _asked(http: type[Http1]) -> AsyncIterator[socket.socket]:
    """Ask a server for much that is there at once, over a socket that holds little."""
    gate = Gate(b"x" * LARGE)
    gate.opened.set()
    async with serving(gate.app, http=http, timeout_keep_alive=SOON, send_buffer=65536) as port:
        with _slow_socket(port) as sock:
            sock.sendall(GET)
            yield sock


def _slow_socket(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


@pytest.mark.parametrize("head", [b"GET /", b"GET / HTTP/1.1\r\nX-Long: ", GET[:-2], b"\r\n", post(b"")[:-4]])
async def test_head_is_bounded(head: bytes) -> None:
    app = App(echo)
    async with speaking(app, http=Lost, timeout_keep_alive=60) as wire:
        wire.writer.write(head + (b"\r\n" if head == b"\r\n" else b"x") * 200_000)
        await until(lambda: Lost.count == 1)
    assert not app.calls


async def test_trailers_are_bounded() -> None:
    async with speaking(App(echo), http=Lost, timeout_keep_alive=60) as wire:
        wire.writer.write(post(b"0\r\n", "Transfer-Encoding: chunked", sized=False) + b"X: y\r\n" * 50_000)
        await until(lambda: Lost.count == 1)


async def test_head_of_what_is_allowed_may_come_in_any_pieces() -> None:
    head = b"GET / HTTP/1.1\r\nHost: test\r\nX-Long: " + b"x" * 60_000 + b"\r\n\r\n"
    async with speaking(App(echo), *(head[i : i + 7] for i in range(0, len(head), 7)), head * 3) as wire:
        for _ in range(4):
            assert (await wire.reply()).status == 200


# --- the server's end


async def test_server_that_stops_answers_what_has_come_and_closes() -> None:
    gate = Gate()
    async with AsyncExitStack() as clients:
        async with serving(gate.app, http=Http1, timeout_graceful_shutdown=10) as port:
            idle = await clients.enter_async_context(connected(port))
            wire = await clients.enter_async_context(connected(port))
            await idle.send(b"GET / HT")
            await wire.send(GET * 2)
            await gate.begun()

            async def open_once_it_stops() -> None:
                assert await idle.rest() == b""
                gate.opened.set()

            opening = asyncio.create_task(open_once_it_stops())
        await opening
        assert [(await wire.reply()).headers.get("connection") for _ in range(2)] == [None, "close"]
        assert await wire.rest() == b""


async def test_body_that_comes_while_the_server_stops_is_taken_and_no_request_after_it() -> None:
    app = App(echo)
    async with AsyncExitStack() as clients:
        async with serving(app, http=Http1, timeout_graceful_shutdown=10) as port:
            idle = await clients.enter_async_context(connected(port))
            wire = await clients.enter_async_context(connected(port))
            await wire.send(post(b"hello")[:-2])
            await until(lambda: len(app.calls) == 1)

            async def go_on_once_it_stops() -> None:
                assert await idle.rest() == b""
                await wire.send(b"lo" + GET)

            going_on = asyncio.create_task(go_on_once_it_stops())
        await going_on
        reply = await wire.reply()
        assert (reply.body, reply.headers["connection"], await wire.rest()) == (b"hello", "close", b"")
    assert len(app.calls) == 1


async def test_application_that_does_not_end_is_cancelled_and_the_client_told() -> None:
    gate = Gate()
    async with AsyncExitStack() as clients:
        async with serving(gate.app, http=Http1, timeout_graceful_shutdown=0.1) as port:
            wire = await clients.enter_async_context(connected(port))
            await wire.send(GET * 2)
            await gate.begun()
        reply = await wire.reply()
        assert (reply.status, reply.headers["connection"], await wire.rest()) == (503, "close", b"")
    assert len(gate.app.calls) == 1


class Known(Http1):
    """Tells which tasks the server knows of."""

    tasks: set[asyncio.Task[None]]

    def __init__(self, *, server_state: Any, **rest: Any) -> None:
        super().__init__(server_state=server_state, **rest)
        Known.tasks = server_state.tasks


@pytest.mark.parametrize("behaviour", [echo, Call.read], ids=["answered", "failed"])
async def test_request_that_is_over_is_forgotten(behaviour: Behaviour) -> None:
    async with speaking(App(behaviour), *([post(b"hello")] * 3), http=Known) as wire:
        await wire.reply()
        await until(lambda: not Known.tasks)


async def test_request_is_known_for_as_long_as_its_application_runs() -> None:
    ends = asyncio.Event()

    async def go_on(call: Call) -> None:
        await call.answer()
        await ends.wait()

    async with speaking(App(go_on), GET, http=Known) as wire:
        assert (await wire.reply()).body == b"ok"
        assert len(Known.tasks) == 1
        ends.set()
        await until(lambda: not Known.tasks)


async def test_client_that_is_frozen_does_not_hold_the_server() -> None:
    app = App(lambda call: call.answer(b"x" * LARGE))
    async with asyncio.timeout(PATIENCE_SECONDS), serving(app, http=Http1, send_buffer=65536) as port:
        with _slow_socket(port) as frozen:
            frozen.sendall(GET * 2)
            await until(lambda: len(app.calls) == 2)


# --- TLS


@pytest.fixture
def certified(tmp_path: Path) -> tuple[dict[str, Any], ssl.SSLContext]:
    """Return settings of the server, and what a client needs."""
    authority, trusted = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trusted)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "pem"))
    return {"ssl_certfile": tmp_path / "pem"}, trusted


async def test_tls(certified: tuple[dict[str, Any], ssl.SSLContext]) -> None:
    config, trusted = certified
    app = App(echo)
    async with serving(app, http=Http1, **config) as port, connected(port, trusted=trusted) as wire:
        sending = asyncio.create_task(wire.send(post(b"z" * LARGE), GET, b"nonsense\r\n\r\n"))
        assert (await wire.reply()).body == b"z" * LARGE
        assert [(await wire.reply()).status, (await wire.reply()).status] == [200, 400]
        assert await wire.rest() == b""
        await sending
    assert app.calls[0].scope["scheme"] == "https"
