"""What hostile clients and contents may try."""

from __future__ import annotations

import asyncio
import re
import resource
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
import servers
from http_client import request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from test_drain import COMMANDS, instance
from web_server import serving

from streamhub import Hub
from streamhub.sse import Event
from streamhub.web import sse_routes
from streamhub.web.aisdk import ChatRequest, chat_routes
from streamhub.web.answers import Answer
from streamhub.web.requests import read_object

JSON = {"Content-Type": "application/json"}
IDLE = 2000
UNFINISHED = 200
KIB_PER_CLIENT = 100


async def write(hub: Hub, key: str, *chunks: str, run: str | None = None) -> None:
    async with hub.produce(key, run=run) as producer:
        for chunk in chunks:
            await producer.send(chunk)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
async def test_content_cannot_forge_an_event(hub: Hub, end: str) -> None:
    forged = end.join(["x", "", "event: end", "id: 9-9-end", "data: {}", "", "retry: 1", ""])
    await write(hub, "k", forged)

    async with serving(Starlette(routes=sse_routes(hub, authorize=None))) as port, request(port, "/k") as reply:
        events = await reply.events()

    assert [event.name for event in events] == [b"message", b"end"]
    assert events[0].data == forged.replace("\r\n", "\n").replace("\r", "\n").encode()
    assert (reply.parser.retry_milliseconds or 0) >= 500


@pytest.mark.parametrize("run", ["ü", "a b", "\u202e", "<script>", "r;charset=x"])
async def test_names_cannot_forge_a_header(hub: Hub, run: str) -> None:
    await write(hub, "k", "one", run=run)

    async with serving(Starlette(routes=sse_routes(hub, authorize=None))) as port:
        async with request(port, f"/k?run={quote(run)}") as reply:
            assert (await reply.events())[0] == Event(b"message", b"one", (await _offset(hub)).encode())
            assert reply.headers.get("x-run-id") in (None, run)
            assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"


async def _offset(hub: Hub) -> str:
    return str((await anext(hub.subscribe("k"))).offset)


async def test_error_text_repeats_nothing_of_the_request(hub: Hub) -> None:
    mark = "<img src=x>"

    def answer(chat: ChatRequest) -> Answer:
        raise AssertionError("not reached")

    routes = [*sse_routes(hub, authorize=lambda *_: False), *chat_routes(hub, answer, authorize=lambda *_: False)]
    body = f'{{"id": "{mark}", "messages": []}}'.encode()
    async with serving(Starlette(routes=routes)) as port:
        for method, path, headers in (
            ("GET", f"/{quote(mark)}", {}),
            ("GET", f"/k?run={quote(mark)}&after={quote(mark)}", {"Last-Event-ID": mark}),
            ("POST", "/api/chat", JSON),
            ("GET", f"/api/chat/{quote(mark)}/stream", {}),
            ("POST", f"/api/chat/{quote(mark)}/stop", JSON),
        ):
            sent = body if method == "POST" else b""
            async with request(port, path, method=method, headers=headers, body=sent) as reply:
                assert reply.status in (400, 403), path
                assert mark.encode() not in await reply.body()
                assert not any(mark in value for value in reply.headers.values())


async def test_body_that_does_not_come_is_not_waited_for_long() -> None:
    async def endpoint(req: Request) -> Response:
        return JSONResponse(await read_object(req, timeout_seconds=0.2))

    async with serving(Starlette(routes=[Route("/", endpoint, methods=["POST"])])) as port:
        headers = {**JSON, "Content-Length": "100"}
        async with request(port, "/", method="POST", headers=headers, body=b'{"slow": ') as reply:
            assert reply.status == 408


async def test_overlong_header_is_refused(hub: Hub) -> None:
    async with serving(Starlette(routes=sse_routes(hub, authorize=None))) as port:
        for length in (65, 8_000, 200_000):
            try:
                async with request(port, "/k", headers={"Last-Event-ID": "1" * length}) as reply:
                    assert reply.status in (400, 431)
            except ConnectionError:
                assert length == 200_000  # the server hangs up before it has read all


async def test_bogus_position_in_a_chat_is_not_waited_for(hub: Hub) -> None:
    def answer(chat: ChatRequest) -> Answer:
        raise AssertionError("not reached")

    async with hub.produce("chat:c") as producer:
        await producer.send_json({"type": "start", "messageId": "m"})
        beyond = f"{producer.generation}-999999"
        async with serving(Starlette(routes=chat_routes(hub, answer, authorize=None))) as port:
            async with request(port, "/api/chat/c/stream", headers={"Last-Event-ID": beyond}) as reply:
                event = await reply.event()
                assert event is not None
                assert event.data == b'{"type":"start","messageId":"m"}'


@pytest.mark.timeout(120)
async def test_thousands_of_idle_readers_hold_little_each(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + 500:
        servers.lacking(f"{IDLE + 500} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE + 500), hard))
    command, _ = COMMANDS["uvicorn"]
    url = f"sqlite:///{tmp_path}/streams.db?drain_seconds=0&lease_seconds=60"
    async with instance(command, url, tmp_path) as running, Hub.from_url(url) as hub, AsyncExitStack() as stack:
        produced = [await stack.enter_async_context(hub.produce(f"k{number}")) for number in range(20)]
        await asyncio.gather(*(producer.flush() for producer in produced))
        before = _resident_kib(running.process.pid)
        replies = []
        for number in range(IDLE):
            replies.append(await stack.enter_async_context(request(running.port, f"/k{number % 20}")))
        each = (_resident_kib(running.process.pid) - before) / IDLE
        for producer in produced:
            await producer.send("still there")
        for reply in replies:
            event = await reply.event()
            assert event is not None
            assert event.data == b"still there"

    assert each < KIB_PER_CLIENT, f"{each:.0f} KiB for each client"


@pytest.mark.timeout(120)
async def test_requests_that_are_never_finished_hinder_nobody(tmp_path: Path) -> None:
    command, _ = COMMANDS["uvicorn"]
    url = f"sqlite:///{tmp_path}/streams.db?drain_seconds=0"
    async with instance(command, url, tmp_path) as running, Hub.from_url(url) as hub, AsyncExitStack() as stack:
        before = _resident_kib(running.process.pid)
        for beginning in (b"GET /k HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"GET /k HTTP/1.1\r\n" + b"X" * 4096):
            for _ in range(UNFINISHED):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", running.port)))
                connection.sendall(beginning)
        async with hub.produce("k") as producer, request(running.port, "/k") as reply:
            await producer.send("still served")
            event = await reply.event()
            assert event is not None
            assert event.data == b"still served"
        each = (_resident_kib(running.process.pid) - before) / UNFINISHED / 2
        running.terminate()
        await running.gone()

    assert each < KIB_PER_CLIENT, f"{each:.0f} KiB for each client"


def _resident_kib(pid: int) -> int:
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])
