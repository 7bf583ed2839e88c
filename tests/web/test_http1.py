"""The messages of HTTP/1.1 as ``serve`` reads and writes them: raw bytes to small applications."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from http1_wire import GET, App, Call, echo, post, speaking
from starlette.types import Message
from web_server import until

CHUNKED = b"5;of=two\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"


def chunked(body: bytes, *headers: str) -> bytes:
    return post(b"", "Transfer-Encoding: chunked", *headers, sized=False) + body


def in_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


# --- requests


@pytest.mark.parametrize("upgrade", [[], ["Connection: upgrade", "Upgrade: h2c"]], ids=["plain", "upgrade"])
@pytest.mark.parametrize("split", [lambda data: [data], in_bytes], ids=["at once", "in bytes"])
async def test_body_is_whole_and_ends_where_it_says(upgrade: list[str], split: Callable[[bytes], list[bytes]]) -> None:
    app = App(echo)
    sent = post(b"hello world", *upgrade) + chunked(CHUNKED, *upgrade) + post(b"", *upgrade) + post(GET, *upgrade) + GET
    async with speaking(app, *split(sent)) as wire:
        bodies = [(await wire.reply()).body for _ in range(5)]
    assert bodies == [b"hello world", b"hello world", b"", GET, b""]
    assert len(app.calls) == 5  # the body that looks like a request is none


async def test_large_body_is_whole() -> None:
    body = bytes(range(256)) * 16384
    async with speaking(App(echo), post(body), GET) as wire:
        assert (await wire.reply()).body == body
        assert (await wire.reply()).status == 200


async def test_trailers_reach_neither_their_request_nor_the_next() -> None:
    app = App(echo)
    async with speaking(app, chunked(b"1\r\nx\r\n0\r\nTrailer-Of: it\r\n\r\n") + GET) as wire:
        assert ((await wire.reply()).body, (await wire.reply()).body) == (b"x", b"")
    assert b"trailer-of" not in [name for call in app.calls for name, _ in call.scope["headers"]]


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        ("/a/b?c=%20d?e", "/a/b", b"/a/b", b"c=%20d?e"),
        ("/a%2Fb%C3%BC", "/a/bü", b"/a%2Fb%C3%BC", b""),
        ("/%ff", "/\ufffd", b"/%ff", b""),
        ("//a/../b", "//a/../b", b"//a/../b", b""),
        ("http://test/a?b", "/a", b"/a", b"b"),
        ("http://test", "/", b"/", b""),
        ("*", "*", b"*", b""),
    ],
)
async def test_target_is_taken_apart(target: str, path: str, raw_path: bytes, query: bytes) -> None:
    app = App(echo)
    async with speaking(app, f"OPTIONS {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode()) as wire:
        assert (await wire.reply()).status == 200
    scope = app.calls[0].scope
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw_path, query)
    assert (scope["method"], scope["http_version"], scope["scheme"]) == ("OPTIONS", "1.1", "http")


async def test_whitespace_around_values_is_no_part_of_them() -> None:
    app = App(echo)
    async with speaking(app, b"GET / HTTP/1.1\r\nHost:\t test \t\r\nX-Empty: \r\nX-TWO: a b\r\n\r\n") as wire:
        await wire.reply()
    assert app.calls[0].scope["headers"] == [(b"host", b"test"), (b"x-empty", b""), (b"x-two", b"a b")]


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: test\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: test\r\nHost: other\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT test:443 HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET no-path HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: test\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : test\r\n\r\n",
        b"GET / HTTP/1.1\nHost: test\n\n",
        b"GET / HTTP/1.1\r\nHost: te\0st\r\n\r\n",
        post(b"hello", "Content-Length: 5"),
        post(b"hello", "Content-Length: +5", sized=False),
        post(b"0\r\n\r\n", "Transfer-Encoding: chunked"),
        post(b"0\r\n\r\n", "Transfer-Encoding: chunked, gzip", sized=False),
    ],
)
async def test_what_is_no_request_is_refused_and_nobody_sees_it(sent: bytes) -> None:
    app = App(echo)
    async with speaking(app, sent) as wire:
        refusal = await wire.reply()
        assert (refusal.status, refusal.headers["connection"], await wire.rest()) == (400, "close", b"")
    assert not app.calls


@pytest.mark.parametrize("broken", [b"1\r\nx\r\nno size\r\n", b"1\r\nxyz\r\n", b"0\r\nno trailer\r\n\r\n"])
async def test_error_in_a_body_is_told_to_both_sides(broken: bytes) -> None:
    async def behaviour(call: Call) -> None:
        await call.read()
        await call.answer()

    app = App(behaviour)
    async with speaking(app, chunked(b""), broken) as wire:
        assert ((await wire.reply()).status, await wire.rest()) == (400, b"")
    assert app.calls[0].left


async def test_requests_before_an_error_are_answered_and_the_refusal_is_expected() -> None:
    release = asyncio.Event()

    async def behaviour(call: Call) -> None:
        await release.wait()
        await call.answer(b"%d" % len(app.calls))

    app = App(behaviour)
    async with speaking(app, GET, GET + b"nonsense\r\n\r\n") as wire:
        release.set()
        replies = [await wire.reply() for _ in range(3)]
    assert [(reply.status, reply.body) for reply in replies[:2]] == [(200, b"1"), (200, b"2")]
    assert [reply.headers.get("connection") for reply in replies] == [None, None, "close"]
    assert replies[2].status == 400


async def test_what_follows_an_error_costs_nobody_an_answer() -> None:
    release = asyncio.Event()

    async def behaviour(call: Call) -> None:
        await release.wait()
        await call.answer()

    async with speaking(App(behaviour), GET + b"nonsense\r\n\r\n", b"x" * 16_000_000) as wire:
        release.set()
        assert (await wire.reply()).status == 200


async def test_request_with_a_broken_body_behind_another_does_not_begin() -> None:
    release = asyncio.Event()

    async def behaviour(call: Call) -> None:
        await release.wait()
        await call.answer()

    app = App(behaviour)
    async with speaking(app, GET + chunked(b"no size\r\n")) as wire:
        release.set()
        assert [(await wire.reply()).status, (await wire.reply()).status] == [200, 400]
    assert len(app.calls) == 1


# --- Expect: 100-continue


def expecting(*, version: str = "1.1") -> bytes:
    head = f"POST / HTTP/{version}\r\nHost: test\r\nExpect: 100-Continue \r\nContent-Length: 5\r\n\r\n"
    return head.encode()


async def test_client_is_told_to_go_on_once_the_application_reads() -> None:
    async with speaking(App(echo), expecting()) as wire:
        assert (await wire.reply()).status == 100
        await wire.send(b"hello", GET)
        reply = await wire.reply()
        assert (reply.status, reply.body, "connection" in reply.headers) == (200, b"hello", False)
        assert (await wire.reply()).status == 200


async def test_client_that_has_not_been_told_to_go_on_cannot_go_on() -> None:
    async with speaking(App(Call.answer), expecting()) as wire:
        reply = await wire.reply()
        assert (reply.status, reply.headers["connection"], await wire.rest()) == (200, "close", b"")


async def test_client_is_not_told_to_go_on_amid_a_response() -> None:
    async def behaviour(call: Call) -> None:
        await call.start()
        await call.give(b"first", more=True)
        reading = asyncio.create_task(call.read())
        await asyncio.sleep(0)
        await call.give(b"last")
        await reading

    async with speaking(App(behaviour), expecting()) as wire:
        assert ((await wire.reply()).body, await wire.rest()) == (b"firstlast", b"")


async def test_client_of_http_1_0_is_not_told_to_go_on() -> None:
    app = App(echo)
    async with speaking(app, expecting(version="1.0")) as wire:
        await until(lambda: len(app.calls) == 1)
        await wire.send(b"hello")
        assert (await wire.reply()).body == b"hello"


# --- responses


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def part(body: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def sending(*sent: Message) -> App:
    async def behaviour(call: Call) -> None:
        for message in sent:
            await call.send(message)

    return App(behaviour)


FIVE = (b"content-length", b"5")
TEXT = start(), part(b"he", more=True), part(more=True), part(b"llo")


@pytest.mark.parametrize(
    ("request_line", "sent", "framing", "body"),
    [
        ("GET / HTTP/1.1", TEXT, "transfer-encoding: chunked", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        ("GET / HTTP/1.1", (start(200, FIVE), *TEXT[1:]), "content-length: 5", b"hello"),
        ("GET / HTTP/1.1", (start(200, (b"transfer-encoding", b"gzip"), FIVE), part(b"hello")), "content-length: 5",
         b"hello"),
        ("GET / HTTP/1.0", TEXT, "", b"hello"),
        ("GET / HTTP/1.0\r\nConnection: keep-alive", (start(200, FIVE), part(b"hello")), "content-length: 5", b"hello"),
        ("HEAD / HTTP/1.1", TEXT, "", b""),
        ("HEAD / HTTP/1.1", (start(200, FIVE), part(b"hello")), "content-length: 5", b""),
        ("HEAD / HTTP/1.1", (start(200, FIVE), part()), "content-length: 5", b""),
        ("GET / HTTP/1.1", (start(204), part(b"none")), "", b""),
        ("GET / HTTP/1.1", (start(304, FIVE), part()), "content-length: 5", b""),
        ("GET / HTTP/1.1", (start(599, FIVE), part(b"hello")), "content-length: 5", b"hello"),
    ],
)  # fmt: skip
async def test_client_knows_where_the_response_ends(
    request_line: str, sent: list[Message], framing: str, body: bytes
) -> None:
    async with speaking(sending(*sent), f"{request_line}\r\nHost: test\r\nConnection: close\r\n\r\n".encode()) as wire:
        head, _, rest = (await wire.rest()).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0].startswith(f"HTTP/1.1 {sent[0]['status']} ")
    assert [line for line in lines if line.startswith(("content-length", "transfer"))] == ([framing] if framing else [])
    assert "connection: close" in lines
    assert rest == body


async def test_application_may_end_the_connection() -> None:
    async with speaking(sending(start(200, FIVE, (b"connection", b"Close")), part(b"hello")), GET) as wire:
        reply = await wire.reply()
        assert (reply.body, reply.headers["connection"], await wire.rest()) == (b"hello", "close", b"")


BROKEN = {
    "nothing": (),
    "a body first": (part(b"x"),),
    "an unknown message": ({"type": "http.response.trailers"},),
    "a start alone": (start(200, FIVE),),
    "too little": (start(200, FIVE), part(b"x")),
    "too much": (start(200, FIVE), part(b"too much")),
    "a line break": (start(200, FIVE, (b"x", b"a\r\nset-cookie: b")), part(b"hello")),
    "a line break in a name": (start(200, FIVE, (b"x\ny", b"a")), part(b"hello")),
    "a bad length": (start(200, (b"content-length", b"five")), part(b"hello")),
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
async def test_failure_before_anything_was_sent_is_told(sent: list[Message]) -> None:
    async with speaking(sending(*sent), GET) as wire:
        reply = await wire.reply()
        assert (reply.status, reply.headers["connection"], await wire.rest()) == (500, "close", b"")


async def test_failure_has_no_body_for_a_request_that_wants_none() -> None:
    async with speaking(sending(), GET.replace(b"GET", b"HEAD")) as wire:
        assert ((await wire.reply(bodyless=True)).status, await wire.rest()) == (500, b"")


CUT = {
    "a chunk": (start(), part(b"x", more=True)),
    "a start": (start(),),
    "a part": (start(200, FIVE), part(b"x", more=True)),
    "too little": (start(200, FIVE), part(b"x", more=True), part(b"y")),
    "two starts": (start(), start(), part(b"x")),
}


@pytest.mark.parametrize("sent", CUT.values(), ids=CUT)
async def test_failure_within_a_response_cuts_it(sent: list[Message]) -> None:
    async with speaking(sending(*sent), GET + GET) as wire:
        reply = await wire.reply()
        assert (reply.status, reply.whole, await wire.rest()) == (200, False, b"")


async def test_what_an_application_does_after_its_response_harms_nobody() -> None:
    app = sending(start(200, FIVE), part(b"hello"), part(b"more"))
    async with speaking(app, GET + GET) as wire:
        assert [(await wire.reply()).body, (await wire.reply()).body] == [b"hello", b"hello"]


async def test_application_may_answer_after_a_header_was_refused() -> None:
    async def behaviour(call: Call) -> None:
        with pytest.raises(ValueError, match="line break"):
            await call.start(200, [FIVE, (b"x", b"\n")])
        await call.start()
        await call.give(b"another")

    async with speaking(App(behaviour), GET) as wire:
        assert (await wire.reply()).body == b"another"
