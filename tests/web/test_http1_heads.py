"""Requests whose head a connection has had before: what is not parsed again is what the parser would have found."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from http1_wire import GET, App, Call, Wire, echo, post, speaking
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from streamhub.web.server.heads import MAX_HEADS, Heads
from streamhub.web.server.http1 import Http1

SCOPE: dict[str, Any] = {"headers": [(b"host", b"test"), (b"content-length", b"2")]}
KEPT = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n"


class Server:
    """What the protocol uses of uvicorn."""

    is_ssl = False
    timeout_keep_alive = 60

    def __init__(self, app: ASGIApp) -> None:
        self.loaded_app = app
        self.total_requests = 0
        self.connections: set[Any] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.default_headers: list[tuple[bytes, bytes]] = []


class Sink(asyncio.Transport):
    """Takes what is written."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return False


async def test_head_that_came_before_is_not_parsed_again() -> None:
    app = App(echo)
    server = Server(app)
    protocol = Http1(server, server, {})
    protocol.connection_made(Sink())
    try:
        protocol.data_received(KEPT + b"ab")
        await asyncio.gather(*server.tasks)
        vars(protocol)["_parser"] = None
        protocol.data_received(KEPT + b"cd")
        await asyncio.gather(*server.tasks)
    finally:
        protocol.connection_lost(None)
    assert [call.body for call in app.calls] == [b"ab", b"cd"]


async def answers(wire: Wire, *requests: bytes) -> list[bytes]:
    """Send requests one after another, and return the bodies that are answered."""
    bodies: list[bytes] = []
    for request in requests:
        await wire.send(request)
        bodies.append((await wire.reply()).body)
    return bodies


async def test_scope_is_as_the_first_time_whatever_became_of_that() -> None:
    seen: list[dict[str, Any]] = []

    async def spoiling(call: Call) -> None:
        seen.append({**call.scope, "headers": list(call.scope["headers"]), "state": dict(call.scope["state"])})
        call.scope["root_path"] = "/elsewhere"
        call.scope["state"]["spoilt"] = True
        call.scope["headers"].append((b"spoilt", b"yes"))
        await echo(call)

    request = b"POST /a%20b?c=d HTTP/1.1\r\nHost: test\r\nX-Two: 2\r\nContent-Length: 5\r\n\r\n"
    async with speaking(App(spoiling)) as wire:
        assert await answers(wire, request + b"first", request + b"other", request + b"third") == [
            b"first",
            b"other",
            b"third",
        ]
    assert seen[1] == seen[2] == seen[0]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([post(b"hello")[:-5], b"hello"], id="body later"),
        pytest.param([post(b"hello")[:-1], b"o"], id="last byte later"),
        pytest.param([post(b"hello")[:20], post(b"hello")[20:]], id="head in two"),
        pytest.param([b"\r\n" + post(b"hello")], id="line before"),
        pytest.param([post(b"5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked", sized=False)], id="chunked"),
        pytest.param([post(b"hello", "Connection: upgrade", "Upgrade: h2c")], id="upgrade"),
        pytest.param([post(b"hello", "Connection: keep-alive")], id="keep-alive"),
    ],
)
async def test_request_that_comes_otherwise_is_read_as_ever(pieces: list[bytes]) -> None:
    app = App(echo)
    async with speaking(app) as wire:
        for _ in range(3):
            await wire.send(post(b"hello"))
            assert (await wire.reply()).body == b"hello"
            for piece in pieces:
                await wire.send(piece)
                await asyncio.sleep(0.01)  # it shall come in pieces; if it does not, this shows less
            assert (await wire.reply()).body == b"hello"
    assert len(app.calls) == 6


async def test_body_that_looks_like_a_request_that_came_before_is_a_body() -> None:
    app = App(echo)
    async with speaking(app) as wire:
        assert await answers(wire, GET, GET) == [b"", b""]
        outer = post(GET)
        await wire.send(outer[: -len(GET)])
        while len(app.calls) < 3:  # the head was read, and its body awaited
            await asyncio.sleep(0)
        await wire.send(GET)
        assert (await wire.reply()).body == GET
    assert len(app.calls) == 3


async def test_request_after_one_that_came_before_is_answered_too() -> None:
    async with speaking(App(echo)) as wire:
        assert await answers(wire, post(b"a"), post(b"b")) == [b"a", b"b"]
        await wire.send(post(b"c") + post(b"d") + GET)
        assert [(await wire.reply()).body for _ in range(3)] == [b"c", b"d", b""]


async def test_requests_ahead_wait_for_their_turn() -> None:
    go = asyncio.Event()

    async def slow(call: Call) -> None:
        await go.wait()
        await echo(call)

    app = App(slow)
    async with speaking(app) as wire:
        go.set()
        assert await answers(wire, post(b"a")) == [b"a"]
        go.clear()
        await wire.send(post(b"b"))
        while len(app.calls) < 2:
            await asyncio.sleep(0)
        await wire.send(post(b"c"))
        go.set()
        assert [(await wire.reply()).body for _ in range(2)] == [b"b", b"c"]


async def test_connection_that_ends_with_a_response_ends_each_time() -> None:
    app = App(echo)
    for _ in range(2):
        async with speaking(app, post(b"a", "Connection: close")) as wire:
            assert ((await wire.reply()).body, await wire.rest()) == (b"a", b"")


KINDS = [
    GET,
    post(b"ab"),
    post(b"cd"),
    post(b"abc"),
    post(GET),
    post(b"x" * 40, "X-More: yes"),
    post(b"2\r\nab\r\n0\r\n\r\n", "Transfer-Encoding: chunked", sized=False),
    post(b"ab", "Connection: upgrade", "Upgrade: h2c"),
    *(post(b"ab", f"X-Number: {number}") for number in range(10)),
]
BODIES = [b"", b"ab", b"cd", b"abc", GET, b"x" * 40, b"ab", b"ab", *[b"ab"] * 10]


@given(
    st.lists(st.integers(0, len(KINDS) - 1), min_size=1, max_size=30),
    st.lists(st.integers(1, 200), max_size=30),
)
@settings(max_examples=60, deadline=None)
async def test_any_requests_in_any_pieces_are_answered_in_their_order(kinds: list[int], sizes: list[int]) -> None:
    sent = b"".join(KINDS[kind] for kind in kinds)
    async with speaking(App(echo), *pieces_of(sent, sizes)) as wire:
        assert [(await wire.reply()).body for _ in kinds] == [BODIES[kind] for kind in kinds]


def pieces_of(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    pieces: list[bytes] = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in [*pieces, data] if piece]


# --- what is remembered


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (KEPT + b"a", [(b"content-length", b"2")]),
        (KEPT + b"abc", [(b"content-length", b"2")]),
        (KEPT + b"ab" + KEPT + b"ab", [(b"content-length", b"2")]),
        (b"POST / HTTP/1.1\nContent-Length: 6\n\nab\r\n\r\n", [(b"content-length", b"6")]),
        (KEPT + b"ab", [(b"content-length", b"2"), (b"upgrade", b"h2c")]),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", [(b"transfer-encoding", b"chunked")]),
        (b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % (b"x" * 1024), []),
    ],
)
def test_what_is_not_a_head_and_its_body_is_not_remembered(data: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    heads = Heads()
    heads.learn(data, {"headers": headers})
    for size in range(10):
        assert heads.find(data[: data.index(b"\r\n\r\n") + 4] + b"x" * size) is None


def test_few_heads_are_remembered() -> None:
    heads = Heads()
    requests = [KEPT.replace(b"test", b"test%d" % number) + b"ab" for number in range(2 * MAX_HEADS)]
    for request in requests:
        heads.learn(request, SCOPE)
        assert heads.find(request) is not None
    assert len([request for request in requests if heads.find(request)]) <= MAX_HEADS
