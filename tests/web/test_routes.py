"""``sse_routes``: starting once, resuming, cancelling, and who may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from http_client import Reply, request
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from web_server import serving, until

from streamhub import ConfigError, Hub, Producer
from streamhub.web import Answer, Asked, sse_routes
from streamhub.web.aisdk import chat_routes
from streamhub.web.durable import DurableStreams

JSON = {"Content-Type": "application/json"}


class Model:
    """Stands for what costs money: counts its calls; says its words, waiting for leave before each."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.calls: list[dict[str, Any]] = []
        self.leave = asyncio.Semaphore(0)

    async def answer(self, asked: Asked) -> Answer:
        async def source(producer: Producer) -> AsyncIterator[str]:
            self.calls.append(asked.body)
            for word in self.words:
                await self.leave.acquire()
                yield word

        return Answer(source=source, run=asked.run)


def routed(hub: Hub, model: Model | None = None, **options: Any) -> Starlette:
    answer = None if model is None else model.answer
    return Starlette(
        routes=sse_routes(hub, **{"authorize": None, "answer": answer, "path": "/s", "wait": 0, **options})
    )


async def words(reply: Reply) -> list[str]:
    return [event.data.decode() for event in await reply.events() if event.name == b"message"]


async def test_post_starts_a_run_once_however_often_and_wherever_it_comes(hub: Hub, place: str) -> None:
    model, body = Model("a", "b"), b'{"prompt": 1}'
    headers = {**JSON, "X-Run-Id": "run-1"}
    async with Hub.from_url(place) as other:
        async with serving(routed(hub, model)) as here, serving(routed(other, model)) as there:
            async with request(here, "/s/k", method="POST", headers=headers, body=body) as first:
                assert first.headers["x-run-id"] == "run-1"
                async with request(there, "/s/k", method="POST", headers=headers, body=body) as second:
                    model.leave.release()
                    model.leave.release()
                    assert (await words(first), await words(second)) == (["a", "b"], ["a", "b"])
            async with request(there, "/s/k", method="POST", headers=headers, body=body) as late:
                assert await words(late) == ["a", "b"]

    assert model.calls == [{"prompt": 1}]


async def test_post_with_last_event_id_resumes_and_never_starts(hub: Hub) -> None:
    model = Model("a", "b")
    headers = {**JSON, "X-Run-Id": "run-1"}
    async with serving(routed(hub, model)) as port:
        async with request(port, "/s/k", method="POST", headers={**headers, "Last-Event-ID": "7-1"}) as reply:
            assert [event.name for event in await reply.events()] == [b"gone"]
        assert model.calls == []
        async with request(port, "/s/k", method="POST", headers=headers) as reply:
            model.leave.release()
            assert (await reply.event()).data == b"a"
            last_id = reply.last_id
            await reply.reset()
        async with request(port, "/s/k", method="POST", headers={**headers, "Last-Event-ID": last_id}) as reply:
            model.leave.release()
            assert await words(reply) == ["b"]

    assert len(model.calls) == 1


async def test_second_run_is_refused_while_one_is_produced(hub: Hub) -> None:
    model = Model("a")
    async with serving(routed(hub, model)) as port:
        async with request(port, "/s/k", method="POST", headers={**JSON, "X-Run-Id": "one"}) as reply:
            async with request(port, "/s/k", method="POST", headers={**JSON, "X-Run-Id": "two"}) as other:
                assert other.status == 409
            model.leave.release()
            assert await words(reply) == ["a"]
        async with request(port, "/s/k", method="POST", headers={**JSON, "X-Run-Id": "two"}) as other:
            model.leave.release()
            assert await words(other) == ["a"]


async def test_draining_instance_starts_nothing_and_says_when_to_come_back(hub: Hub) -> None:
    model = Model("a")
    async with serving(routed(hub, model)) as port:
        await hub.drain(0)
        async with request(port, "/s/k", method="POST", headers=JSON) as reply:
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert model.calls == []


async def test_cancel_ends_the_run_for_every_reader_and_says_so(hub: Hub, place: str) -> None:
    model = Model("a", "never")
    async with Hub.from_url(place) as other:
        async with serving(routed(hub, model)) as here, serving(routed(other)) as there:
            async with request(here, "/s/k", method="POST", headers={**JSON, "X-Run-Id": "r"}) as producing:
                model.leave.release()
                await producing.event()
                async with request(there, "/s/k?run=r") as reading:
                    body = b'{"run": "r", "reason": "enough"}'
                    async with request(there, "/s/k/cancel", method="POST", headers=JSON, body=body) as reply:
                        end = {"state": "cancelled", "reason": "enough"}
                        assert json.loads(await reply.body()) == {"state": "cancelled", "run": "r", "end": end}
                    for reader in (producing, reading):
                        events = await reader.events()
                        assert json.loads(events[-1].data) == end
                        assert reader.ending == "clean"


async def test_cancel_of_a_run_that_was_replaced_is_refused(hub: Hub) -> None:
    for run in ("old", "new"):
        async with hub.produce("k", run=run) as producer:
            await producer.send(run)
    async with serving(routed(hub)) as port:
        async with request(port, "/s/k/cancel", method="POST", headers=JSON, body=b'{"run": "old"}') as reply:
            assert reply.status == 409
        async with request(port, "/s/k/cancel", method="POST", headers=JSON, body=b'{"run": "new"}') as reply:
            assert json.loads(await reply.body())["state"] == "ended"
        async with request(port, "/s/none/cancel", method="POST", headers=JSON) as reply:
            assert json.loads(await reply.body())["state"] == "nothing"


async def test_info_tells_the_state_and_not_the_metadata(hub: Hub) -> None:
    async with hub.produce("k", run="r", metadata={"prompt": "secret"}) as producer:
        await producer.send("one")
        await producer.flush()
        async with serving(routed(hub)) as port:
            async with request(port, "/s/k/info") as reply:
                assert json.loads(await reply.body()) == {"run": "r", "state": "open", "tail": 1, "end": None}
            async with request(port, "/s/none/info") as reply:
                assert reply.status == 404


async def test_readers_that_may_not_start_may_be_all_there_are(hub: Hub) -> None:
    async with serving(routed(hub)) as port, request(port, "/s/k", method="POST", headers=JSON) as reply:
        assert (reply.status, reply.headers["allow"]) == (405, "GET")


async def test_abort_is_no_clean_end_behind_middleware_either(hub: Hub, place: str) -> None:
    async def pass_on(req: Request, call_next: Any) -> Any:
        return await call_next(req)

    middleware = [Middleware(BaseHTTPMiddleware, dispatch=pass_on), Middleware(GZipMiddleware, minimum_size=1)]
    async with Hub.from_url(place) as producing, producing.produce("k") as producer:
        await producer.send("one")
        application = Starlette(routes=sse_routes(hub, authorize=None), middleware=middleware)
        async with serving(application) as port:
            async with request(port, "/k", headers={"Accept-Encoding": "gzip"}) as reply:
                assert "content-encoding" not in reply.headers
                assert (await reply.event()).data == b"one"
                await hub.drain(0)
                assert (await reply.events(), reply.ending) == ([], "cut")


# --- who may


async def test_every_action_is_asked_for_and_only_true_allows_it(hub: Hub) -> None:
    asked: list[tuple[str, str]] = []
    answers: dict[str, Any] = {}

    async def authorize(req: Request, key: str, action: str) -> bool:
        asked.append((key, action))
        return answers[action]

    model = Model("a")
    calls = [("GET", "/s/k", "subscribe"), ("POST", "/s/k", "start"), ("POST", "/s/k/cancel", "cancel"),
             ("GET", "/s/k/info", "info"), ("HEAD", "/s/k", "subscribe")]  # fmt: skip
    async with serving(routed(hub, model, authorize=authorize)) as port:
        for method, path, action in calls:
            for answer in (False, None, 1, "yes"):
                answers[action] = answer
                async with request(port, path, method=method, headers=JSON) as reply:
                    assert reply.status == 403, (method, path, answer)
            assert asked.pop() == ("k", action)
        answers["subscribe"] = False  # resuming is subscribing
        async with request(port, "/s/k", method="POST", headers={**JSON, "Last-Event-ID": "1-1"}) as reply:
            assert reply.status == 403
    assert model.calls == []
    assert await hub.info("k") is None


async def test_application_may_refuse_in_its_own_way(hub: Hub) -> None:
    def authorize(req: Request, key: str, action: str) -> bool:
        if "authorization" not in req.headers:
            raise HTTPException(401, headers={"www-authenticate": "Bearer"})
        return key == "mine"

    async with serving(routed(hub, authorize=authorize)) as port:
        async with request(port, "/s/mine") as reply:
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
        async with request(port, "/s/theirs", headers={"Authorization": "x"}) as reply:
            assert reply.status == 403
        async with request(port, "/s/mine", headers={"Authorization": "x"}) as reply:
            assert reply.status == 204


def test_authorization_must_be_written_out(hub: Hub) -> None:
    with pytest.raises(TypeError, match="authorize"):
        sse_routes(hub)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="authorize"):
        chat_routes(hub, lambda chat: Answer(source=list))  # pyright: ignore[reportCallIssue]


def test_authorization_must_be_a_function(hub: Hub) -> None:
    wrong: Any = True
    for make in (
        lambda: sse_routes(hub, authorize=wrong),
        lambda: chat_routes(hub, lambda chat: Answer(source=list), authorize=wrong),
        lambda: DurableStreams(hub, authorize=wrong),
    ):
        with pytest.raises(ConfigError, match="or None to let everybody do everything"):
            make()


async def test_authorization_that_says_neither_yes_nor_no_is_told_once(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    answers: Any = iter([False, "yes", None, False])

    async with serving(routed(hub, authorize=lambda *_: next(answers))) as port:
        for _ in range(4):
            async with request(port, "/s/k") as reply:
                assert reply.status == 403

    assert [record.getMessage() for record in caplog.records] == ["authorize returned 'yes': only True allows"]


async def test_authorization_that_fails_allows_nothing_and_tells_nothing(hub: Hub) -> None:
    def authorize(req: Request, key: str, action: str) -> bool:
        raise LookupError("the secret of the session store")

    model = Model("a")
    async with serving(routed(hub, model, authorize=authorize)) as port:
        for method, path in (("GET", "/s/k"), ("POST", "/s/k"), ("POST", "/s/k/cancel"), ("GET", "/s/k/info")):
            async with request(port, path, method=method, headers=JSON) as reply:
                assert (reply.status, await reply.body()) == (500, b"Internal Server Error")
    assert model.calls == []
    assert await hub.info("k") is None


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH"])
async def test_other_methods_open_no_stream(hub: Hub, method: str) -> None:
    async with hub.produce("k"), serving(routed(hub)) as port, request(port, "/s/k", method=method) as reply:
        assert reply.status == 405


async def test_another_origin_gets_what_the_applications_own_cors_middleware_gives(hub: Hub) -> None:
    cors = Middleware(
        CORSMiddleware, allow_origins=["https://a.example"], allow_headers=["*"], expose_headers=["X-Run-Id"]
    )
    application = Starlette(routes=sse_routes(hub, authorize=None), middleware=[cors])
    async with hub.produce("k", run="r") as producer, serving(application) as port:
        await producer.send("one")
        asked = {"Origin": "https://a.example", "Access-Control-Request-Headers": "last-event-id",
                 "Access-Control-Request-Method": "GET"}  # fmt: skip
        async with request(port, "/k", method="OPTIONS", headers=asked) as reply:
            assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "https://a.example")
        async with request(port, "/k?run=r", headers={"Origin": "https://a.example"}) as reply:
            assert reply.headers["access-control-expose-headers"] == "X-Run-Id"
            assert (await reply.event()).data == b"one"


@pytest.mark.parametrize("key", ["ü", "日本", "a b", "%", "?&#=", "..", "a:b", "\u202e", "🎉" * 128])
async def test_key_of_any_characters_is_reached_by_its_encoded_path(hub: Hub, key: str) -> None:
    async with hub.produce(key) as producer:
        await producer.send("one")
    async with serving(routed(hub)) as port:
        path = quote(key, safe="").replace(".", "%2E")
        async with request(port, f"/s/{path}") as reply:
            assert await words(reply) == ["one"]
        async with request(port, f"/s/{path}/info") as reply:
            assert json.loads(await reply.body())["state"] == "ended"


async def test_tenants_do_not_meet_under_one_name(hub: Hub) -> None:
    def key(req: Request) -> str:
        return f"{req.headers['x-tenant']}:{req.path_params['key']}"

    model = Model("a")
    async with serving(routed(hub, model, key=key)) as port:
        mine, theirs = {"X-Tenant": "mine"}, {"X-Tenant": "theirs"}
        async with request(port, "/s/k", method="POST", headers={**JSON, **mine}) as reply:
            model.leave.release()
            last_id = (await reply.events())[0].id.decode()
        async with request(port, "/s/k", headers={**theirs}) as reply:
            assert reply.status == 204
        async with request(port, "/s/k", headers={**theirs, "Last-Event-ID": last_id}) as reply:
            assert [event.name for event in await reply.events()] == [b"gone"]


# --- what comes from outside


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"run=r", 415),
        ({}, b"", 415),
        (JSON, b"[]", 400),
        (JSON, b"{", 400),
        (JSON, b"\xff", 400),
        (JSON, b"[" * 100_000, 400),
        (JSON, b'{"run": 1}', 400),
        (JSON, b'{"run": "' + b"x" * 600 + b'"}', 400),
        (JSON, b'{"reason": "' + b"x" * 5000 + b'"}', 400),
        ({**JSON, "Content-Length": str(2**40)}, b"{", 413),
    ],
)
async def test_bad_body_is_refused(hub: Hub, headers: dict[str, str], body: bytes, status: int) -> None:
    async with hub.produce("k"), serving(routed(hub)) as port:
        async with request(port, "/s/k/cancel", method="POST", headers=headers, body=body) as reply:
            assert reply.status == status
        assert (await hub.info("k")).end is None


async def test_body_of_unknown_length_is_cut_at_the_limit(hub: Hub) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    headers = {**JSON, "Transfer-Encoding": "chunked"}
    async with serving(routed(hub)) as port:
        async with request(port, "/s/k/cancel", method="POST", headers=headers, body=chunk * 40) as reply:
            assert reply.status == 413


@pytest.mark.parametrize("name", ["%00", "a%0d%0ab", "x" * 513, "%e2%80%a8", "%7f"])
async def test_bad_key_or_run_is_refused_and_not_repeated(hub: Hub, name: str) -> None:
    async with serving(routed(hub)) as port:
        async with request(port, f"/s/{name}") as reply:
            assert (reply.status, await reply.body()) == (400, b"invalid key")
        async with request(port, f"/s/k?run={name}") as reply:
            assert (reply.status, await reply.body()) == (400, b"invalid run")


async def test_client_that_leaves_does_not_stop_the_run(hub: Hub) -> None:
    model = Model("a", "b")
    async with serving(routed(hub, model)) as port:
        async with request(port, "/s/k", method="POST", headers=JSON) as reply:
            model.leave.release()
            await reply.event()
            await reply.reset()
        model.leave.release()

        async def ended() -> bool:
            info = await hub.info("k")
            return info is not None and info.end is not None

        await until(ended)
        async with request(port, "/s/k") as reply:
            assert await words(reply) == ["a", "b"]
