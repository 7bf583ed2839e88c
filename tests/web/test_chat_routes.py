"""``chat_routes`` over HTTP, where a script for useChat would not show what goes over the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from http_client import Reply, request
from starlette.applications import Starlette
from web_server import serving

from streamhub import Hub, HubSettings, Producer, StreamFailure, open_backend
from streamhub.conformance.drive import until
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.waiting import settle
from streamhub.web import Answer
from streamhub.web.aisdk import ChatRequest, chat_routes

JSON = {"Content-Type": "application/json"}
SETTINGS = HubSettings(lease_seconds=1, poll_seconds=0.2)


class Model:
    """Says the words it is given leave for; the word ``fail`` it fails at."""

    def __init__(self) -> None:
        self.asked: list[ChatRequest] = []
        self.words: asyncio.Queue[str] = asyncio.Queue()

    def answer(self, chat: ChatRequest) -> Answer:
        self.asked.append(chat)
        return Answer(source=self.source)

    async def source(self, producer: Producer) -> AsyncIterator[Any]:
        while (word := await self.words.get()) != "done":
            if word == "fail":
                raise StreamFailure("no more words", code="empty")
            yield word


def routed(hub: Hub, model: Model, **options: Any) -> Starlette:
    return Starlette(routes=chat_routes(hub, model.answer, **{"authorize": None, **options}))


def message(identifier: str = "m1", **more: Any) -> bytes:
    messages = [{"id": identifier, "role": "user", "parts": [{"type": "text", "text": "hi"}]}]
    return json.dumps({"id": "c", "messages": messages, "trigger": "submit-message", **more}).encode()


def post(port: int, body: bytes, path: str = "/api/chat", **headers: str) -> Any:
    return request(port, path, method="POST", headers={**JSON, **headers}, body=body)


async def chunks(reply: Reply) -> list[dict[str, Any]]:
    """Return the rest, which must end with [DONE]."""
    *parts, done = await reply.events()
    assert done.data == b"[DONE]"
    assert reply.ending == "clean"
    return [json.loads(part.data) for part in parts]


async def answered(port: int) -> list[str]:
    """Send the message; return the types of the chunks that answer it."""
    async with post(port, message()) as reply:
        return [chunk["type"] for chunk in await chunks(reply)]


@pytest.mark.parametrize("before", [None, "m0"])
async def test_who_joins_an_answer_waits_for_it_to_begin(place: str, before: str | None) -> None:
    """One instance has the lease and has not opened the stream yet, when the other is asked the same."""
    faults, model = Faults(), Model()
    async with open_backend(place) as backend, Hub.from_url(place, settings=SETTINGS) as there:
        slow = faulty(backend, faults)
        async with Hub(store=slow.store, leases=slow.leases, cancels=slow.cancels, settings=SETTINGS) as here:
            if before is not None:  # an answer of the same chat that has ended
                async with there.produce("chat:c", run=before):
                    pass
            async with serving(routed(here, model)) as one, serving(routed(there, model)) as other:
                opening = faults.pause("open")
                first = asyncio.create_task(answered(one))
                await opening.reached.wait()
                second = asyncio.create_task(answered(other))
                await until(lambda: len(model.asked) == 2)
                await settle(200)  # what follows needs no socket before it answers
                assert not second.done()
                opening.resume()
                model.words.put_nowait("done")
                assert await asyncio.gather(first, second) == [["start", "finish"]] * 2


@pytest.mark.parametrize("end", ["stop", "fail"])
async def test_reader_of_the_tail_alone_gets_the_open_part_ended(hub: Hub, end: str) -> None:
    model = Model()
    async with serving(routed(hub, model)) as port:
        async with post(port, message()) as reply:
            model.words.put_nowait("one")
            events = [await reply.event() for _ in range(3)]
            assert [json.loads(event.data)["type"] for event in events if event] == [
                "start",
                "text-start",
                "text-delta",
            ]
            last_id = reply.last_id
        async with request(port, "/api/chat/c/stream", headers={"Last-Event-ID": last_id}) as tail:
            if end == "stop":
                async with post(port, b"{}", "/api/chat/c/stop") as stopped:
                    assert json.loads(await stopped.body())["state"] == "cancelled"
                last = {"type": "abort", "reason": "stopped"}
            else:
                model.words.put_nowait("fail")
                last = {"type": "error", "errorText": "no more words"}
            assert await chunks(tail) == [{"type": "text-end", "id": "part-1"}, last]


async def test_no_protocol_is_stored_with_the_answer(hub: Hub) -> None:
    model = Model()
    for word in ("one", "done"):
        model.words.put_nowait(word)
    async with serving(routed(hub, model)) as port, post(port, message()) as reply:
        shown = await chunks(reply)
        assert reply.headers["x-run-id"] == "m1"

    stored = [chunk.json() async for chunk in hub.subscribe("chat:c")]
    assert stored == shown
    assert (stored[0], stored[-1]) == ({"type": "start", "messageId": "chat:c:m1"}, {"type": "finish"})


async def test_another_message_is_refused_while_one_is_answered(hub: Hub) -> None:
    model = Model()
    async with serving(routed(hub, model)) as port, post(port, message("m1")):
        async with post(port, message("m2")) as reply:
            assert reply.status == 409


async def test_post_with_a_position_resumes_and_never_starts(hub: Hub) -> None:
    model = Model()
    async with serving(routed(hub, model)) as port:
        async with post(port, message(), **{"Last-Event-ID": "7-1"}) as reply:
            assert [chunk["type"] for chunk in await chunks(reply)] == ["error"]
    assert model.asked == []
    assert await hub.info("chat:c") is None


async def test_regenerated_answer_is_a_new_run(hub: Hub) -> None:
    model = Model()
    async with serving(routed(hub, model)) as port:
        runs = []
        for trigger in ("submit-message", "regenerate-message"):
            for word in (trigger, "done"):
                model.words.put_nowait(word)
            async with post(port, message(trigger=trigger)) as reply:
                runs.append(reply.headers["x-run-id"])
                assert trigger in [chunk.get("delta") for chunk in await chunks(reply)]
    assert runs[0] != runs[1]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", 400),
        (b'{"id": 1}', 400),
        (b'{"id": "c", "messages": "x"}', 400),
        (b'{"id": "c", "messages": [1]}', 400),
        (b'{"id": "\\u0000", "messages": []}', 400),
        (b'{"id": "' + b"x" * 3000 + b'"}', 413),
    ],
)
async def test_bad_request_is_refused_before_anything_starts(hub: Hub, body: bytes, status: int) -> None:
    model = Model()
    async with serving(routed(hub, model, max_body_bytes=2000)) as port, post(port, body) as reply:
        assert reply.status == status
    assert model.asked == []


async def test_authorization_sees_the_tenants_key_and_every_action(hub: Hub) -> None:
    asked: list[tuple[str, str]] = []

    def authorize(req: Any, key: str, action: str) -> bool:
        asked.append((key, action))
        return False

    def key(req: Any, chat: str) -> str:
        return f"{req.headers['x-tenant']}:{chat}"

    async with serving(routed(hub, Model(), authorize=authorize, key=key)) as port:
        tenant = {"X-Tenant": "t"}
        async with post(port, message(), **tenant) as reply:
            assert reply.status == 403
        async with post(port, message(), **tenant, **{"Last-Event-ID": "7-1"}) as reply:
            assert reply.status == 403
        async with request(port, "/api/chat/c/stream", headers=tenant) as reply:
            assert reply.status == 403
        async with post(port, b"{}", "/api/chat/c/stop", **tenant) as reply:
            assert reply.status == 403
    assert asked == [("t:c", "start"), ("t:c", "subscribe"), ("t:c", "subscribe"), ("t:c", "cancel")]
