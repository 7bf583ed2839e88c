"""The wrappers of ``streamhub.web.server``, each alone: called as an ASGI server would."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from streamhub import BackendUnavailableError, ConfigError, Event, Hub
from streamhub.cli.serve_options import every_option
from streamhub.inputs import check_token
from streamhub.prometheus import Metrics
from streamhub.web.durable import DurableStreams
from streamhub.web.server import health as health_module
from streamhub.web.server import limits as limits_module
from streamhub.web.server import serve_app
from streamhub.web.server.cors import Cors
from streamhub.web.server.front import Front, check_prefix
from streamhub.web.server.gates import BearerGate, LoopbackGate, OriginGate, check_origin
from streamhub.web.server.health import Health
from streamhub.web.server.http_metrics import HttpMetrics
from streamhub.web.server.lifespan import live
from streamhub.web.server.limits import StreamLimit
from streamhub.web.server.plain import answer
from streamhub.web.server.traffic import AccessLog, Traffic


def test_variables_of_the_server_are_no_misspelt_ones_of_the_hub() -> None:
    Hub.from_env({"STREAMHUB_URL": "memory://", **{option.variable: "x" for option in every_option()}})


@pytest.mark.parametrize(
    ("option", "argument"),
    [("prefix", "prefix"), ("max-body", "max_body_bytes"), ("long-poll-seconds", "long_poll_seconds"),
     ("sse-seconds", "sse_seconds")],
)  # fmt: skip
def test_defaults_of_the_command_are_those_of_the_applications(option: str, argument: str) -> None:
    defaults = {each.name: each.default for each in every_option()}
    for application in (serve_app, DurableStreams):
        found = inspect.signature(application).parameters.get(argument)
        assert found is None or found.default == defaults[option]
    assert argument in inspect.signature(serve_app).parameters


@dataclass
class Answered:
    """What an app has sent."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return self.messages[0]["status"]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])


async def ask(
    app: Any, method: str = "GET", path: str = "/", query: bytes = b"", root: str = "", **headers: str
) -> Answered:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "root_path": root, "query_string": query, "headers": named}
    answered = Answered()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        answered.messages.append(message)

    await app(scope, receive, send)
    return answered


async def fine(scope: Any, _: Any, send: Any) -> None:
    """An app that says where it was mounted."""
    await answer(send, 200, f"{scope['root_path']} {scope['path']}".encode())


async def test_bearer_gate_compares_the_whole_token() -> None:
    gate = BearerGate(fine, ["abc", "x" * 100])
    allowed = ["Bearer abc", "bearer  abc", "BEARER abc ", "Bearer " + "x" * 100]
    refused = ["", "Bearer", "Bearer ", "Bearer ab", "Bearer abcd", "Bearer abc x", "Basic abc", "abc", "Bearer ABC"]

    assert [(await ask(gate, authorization=text)).status for text in allowed] == [200] * len(allowed)
    assert [(await ask(gate, authorization=text)).status for text in refused] == [401] * len(refused)
    assert (await ask(gate)).status == 401


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, b"a bearer token is needed\n"),
        ({"authorization": "abc"}, b"write it as Authorization: Bearer TOKEN\n"),
        ({"authorization": "Basic abc"}, b"write it as Authorization: Bearer TOKEN\n"),
        ({"authorization": "Bearer"}, b"write it as Authorization: Bearer TOKEN\n"),
        ({"authorization": "Bearer wrong"}, b"this bearer token is not known\n"),
    ],
)
async def test_bearer_gate_says_what_is_wrong(headers: dict[str, str], said: bytes) -> None:
    assert (await ask(BearerGate(fine, ["abc"]), **headers)).body == said


@pytest.mark.parametrize("token", ["", " ", "a b", "a\n", "=", "ü", "a=b"])
def test_token_that_no_header_could_bear_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_token(token)

    assert repr(token) not in str(caught.value)


@pytest.mark.parametrize("origin", ["https://a.example", "http://localhost:3000", "app://x", "*"])
def test_origin_is_accepted(origin: str) -> None:
    assert check_origin(origin) == origin


@pytest.mark.parametrize(
    "host", ["127.0.0.1.evil.example", "evil.example", "1127.0.0.1", "localhost.", "[::2]", "a@localhost"]
)
async def test_loopback_gate_refuses(host: str) -> None:
    assert (await ask(LoopbackGate(fine), host=host)).status == 403
    assert (await ask(LoopbackGate(fine))).status == 403


async def test_origin_gate_lets_pages_only_read() -> None:
    gate = OriginGate(fine, ["https://a.example"])
    foreign = {"origin": "https://evil.example", "host": "streams.example"}

    assert [(await ask(gate, method, **foreign)).status for method in ("GET", "HEAD", "OPTIONS")] == [200] * 3
    assert [(await ask(gate, method, **foreign)).status for method in ("PUT", "POST", "DELETE", "PATCH")] == [403] * 4
    assert (await ask(gate, "POST", origin="https://a.example", host="streams.example")).status == 200
    assert (await ask(gate, "POST", origin="https://streams.example", host="streams.example")).status == 200
    assert (await ask(gate, "POST", origin="https://streams.example.evil", host="streams.example")).status == 403
    assert (await ask(gate, "POST", host="streams.example")).status == 200  # no browser
    assert (await ask(OriginGate(fine, ["*"]), "POST", **foreign)).status == 200


@pytest.mark.parametrize(
    ("origin", "named"),
    [
        ("https://evil.example:8443", b"https://evil.example:8443"),
        ("http://[::1]:80", b"http://[::1]:80"),
        ("null", b"this origin"),
        ("https://<b>", b"this origin"),
        ("https://a.example/?x=1", b"this origin"),
    ],
)
async def test_foreign_page_is_told_which_and_only_if_it_is_an_origin(origin: str, named: bytes) -> None:
    refused = await ask(OriginGate(fine, []), "POST", origin=origin, host="streams.example")
    preflight = await ask(
        Cors(fine, ["https://a.example"]), "OPTIONS", origin=origin, access_control_request_method="PUT"
    )

    assert refused.body == b"pages of %b may not change streams here: see --cors-origin\n" % named
    assert preflight.body == b"pages of %b may not use the streams: see --cors-origin\n" % named


async def test_cors_keeps_the_apps_headers_and_adds_its_own() -> None:
    async def varies(_: Any, __: Any, send: Any) -> None:
        await answer(send, 404, b"x", [(b"vary", b"Accept"), (b"etag", b"1")])

    answered = await ask(Cors(varies, ["https://a.example"]), origin="https://a.example")

    headers = answered.messages[0]["headers"]
    assert [value for name, value in headers if name == b"vary"] == [b"Accept", b"Origin"]
    assert answered.headers[b"access-control-allow-origin"] == b"https://a.example"
    assert b"access-control-allow-credentials" not in answered.headers
    assert (answered.status, answered.headers[b"etag"], answered.body) == (404, b"1", b"x")


async def test_preflight_repeats_no_header_that_is_none() -> None:
    cors = Cors(fine, ["*"])
    asked = {"origin": "https://a.example", "access_control_request_method": "POST"}

    odd = await ask(cors, "OPTIONS", access_control_request_headers="a\x00b", **asked)
    long = await ask(cors, "OPTIONS", access_control_request_headers="a" * 2000, **asked)

    assert (odd.status, long.status) == (204, 204)
    assert b"access-control-allow-headers" not in odd.headers | long.headers
    assert (await ask(cors, "OPTIONS", origin="https://a.example")).body == b" /"  # no preflight: the app's to answer


async def test_front_gives_the_streams_their_root_wherever_it_is_mounted(hub: Hub) -> None:
    front = Front(hub, fine, "/s/", {"/healthz": fine})

    assert (await ask(front, path="/s/a/b")).body == b"/s /s/a/b"
    assert (await ask(front, path="/app/s/a", root="/app")).body == b"/app/s /app/s/a"
    assert (await ask(front, path="/app/healthz", root="/app")).body == b"/app /app/healthz"
    assert [(await ask(front, path=path)).status for path in ("/", "/s", "/healthz/", "/metrics")] == [404] * 4
    assert (await ask(front, path="/app/x", root="/app")).body == b"nothing is here: streams are under /app/s/\n"
    everywhere = Front(hub, fine, "/", {"/healthz": fine})
    assert (await ask(everywhere, path="/a")).body == b" /a"
    assert (await ask(everywhere, path="/app/healthz", root="/app")).body == b"/app /app/healthz"


@pytest.mark.parametrize("prefix", ["", "s/", "/s", "//", "/s//", "/\n/"])
def test_prefix_that_is_none_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError):
        check_prefix(prefix)


# --- health


class Pinged:
    """A hub whose ping the test decides."""

    def __init__(self, ping: Any) -> None:
        self.draining = False
        self.pings = 0
        self._ping = ping

    async def ping(self) -> None:
        self.pings += 1
        await self._ping()


async def _away() -> None:
    raise BackendUnavailableError("redis://secret cannot be reached")


async def test_probes_share_one_ping_and_tell_no_details(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    hub: Any = Pinged(_away)
    health = Health(hub)

    replies = await asyncio.gather(*(ask(health.ready) for _ in range(100)))

    assert {(reply.status, reply.body) for reply in replies} == {(503, b"the backend does not answer\n")}
    assert hub.pings == 1
    monkeypatch.setattr(health_module, "FRESH_SECONDS", 0.0)
    for _ in range(3):
        await ask(health.ready)
    assert hub.pings == 4
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # once, while it is away


async def test_ready_is_bounded_in_time_and_live_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "PING_SECONDS", 0.05)
    hub: Any = Pinged(asyncio.Event().wait)
    health = Health(hub)

    async with asyncio.timeout(5):
        assert (await ask(health.live)).status == 200
        assert hub.pings == 0
        assert (await ask(health.ready)).status == 503


async def test_draining_hub_is_live_and_not_ready(hub: Hub) -> None:
    health = Health(hub)
    assert (await ask(health.ready)).status == 200

    await hub.drain(0)

    assert ((await ask(health.ready)).status, (await ask(health.ready)).body) == (503, b"draining\n")
    assert (await ask(health.live)).status == 200


# --- the limit


class Creator:
    """An app that creates a stream on PUT, once it may."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.allowed = asyncio.Event()
        self.status = 201

    async def __call__(self, scope: Any, _: Any, send: Any) -> None:
        await self.allowed.wait()
        key = scope["path"].removeprefix(scope["root_path"])[1:]
        if scope["method"] == "PUT" and self.status == 201:
            async with self.hub.produce(key, unfinished="replace"):
                pass
        await answer(send, self.status)


async def put(limit: StreamLimit, key: str) -> int:
    return (await ask(limit, "PUT", f"/s/{key}", root="/s")).status


async def test_limit_holds_for_many_at_once(hub: Hub) -> None:
    creator = Creator(hub)
    limit = StreamLimit(creator, hub, 3)
    putting = [asyncio.create_task(put(limit, f"k{number}")) for number in range(10)]
    async with asyncio.timeout(5):
        while sum(task.done() for task in putting) < 7:
            await asyncio.sleep(0)
    creator.allowed.set()

    assert sorted(await asyncio.gather(*putting)) == [201] * 3 + [429] * 7
    created = [key async for key in hub.keys("k")]
    assert len(created) == 3


async def test_what_was_not_created_does_not_count(hub: Hub) -> None:
    creator = Creator(hub)
    creator.allowed.set()
    limit = StreamLimit(creator, hub, 1)

    creator.status = 409
    assert [await put(limit, "a") for _ in range(3)] == [409] * 3
    creator.status = 201
    assert [await put(limit, "a"), await put(limit, "b")] == [201, 429]
    assert (await ask(limit, "POST", "/s/a", root="/s")).status == 201  # not the limit's business


async def test_streams_of_others_count_and_an_existing_one_passes(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("a", "b"):
        async with hub.produce(key):
            pass
    creator = Creator(hub)
    creator.allowed.set()
    limit = StreamLimit(creator, hub, 2)

    assert await put(limit, "c") == 429
    assert await put(limit, "a") == 201
    await hub.delete("b")
    monkeypatch.setattr(limits_module, "FRESH_SECONDS", 0.0)
    assert await put(limit, "c") == 201


# --- traffic


async def test_traffic_tells_of_what_failed_and_what_was_cut(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(*_: Any) -> None:
        raise RuntimeError("not for clients")

    async def cut(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"12", "more_body": True})
        raise RuntimeError("cut")

    async def gone(*_: Any) -> None:
        """Answer nothing: the client has left."""

    metrics = Metrics(CollectorRegistry())
    watchers = [AccessLog(), HttpMetrics(metrics.registry)]
    with caplog.at_level(logging.INFO, "streamhub.access"):
        for app in (fails, cut):
            with pytest.raises(RuntimeError):
                await ask(Traffic(app, watchers), path="/a\r\nb", query=b"live=sse&token=secret")
        await ask(Traffic(gone, watchers), "DELETE")

    lines = [json.loads(record.getMessage()) for record in caplog.records]
    assert [(line["status"], line["bytes"], line.get("cut"), line.get("live")) for line in lines] == [
        (500, 0, True, True),
        (200, 2, True, True),
        (0, 0, True, None),
    ]
    assert all("\n" not in record.getMessage() and "secret" not in record.getMessage() for record in caplog.records)
    text = metrics.render().decode()
    assert 'streamhub_http_requests_total{method="GET",status="500"} 1.0' in text
    assert 'streamhub_http_requests_active{kind="live",method="GET"} 0.0' in text


# --- metrics and the lifespan


async def test_every_event_is_counted(place: str) -> None:
    metrics = Metrics(CollectorRegistry())
    async with Hub.from_url(place, observer=metrics) as hub:
        metrics.watch(hub)
        async with hub.produce("k") as producer:
            await producer.send("abc")
            await producer.flush()
            async with hub.subscribe("k") as subscription:
                await anext(subscription)
                text = metrics.render().decode()
    for name in ("cancel", "lease_lost", "takeover", "fenced_write", "reconnect", "drain"):
        metrics(Event(name=name))

    assert "streamhub_producers 1.0\n" in text
    assert "streamhub_subscribers 1.0\n" in text
    found = {name: float(value) for name, value in map(str.split, _samples(metrics))}
    for name in ("cancels", "leases_lost", "takeovers", "fenced_writes", "reconnects", "drains", "subscriptions"):
        assert found[f"streamhub_{name}_total"] == 1, name
    assert found["streamhub_appended_bytes_total"] == found["streamhub_replayed_bytes_total"] == 3
    assert found["streamhub_first_chunk_seconds_count"] == 1
    assert found["streamhub_append_seconds_count"] == 2  # the chunk's, and the end's
    assert found["streamhub_producers"] == found["streamhub_subscribers"] == 0


def _samples(metrics: Metrics) -> list[str]:
    return [line for line in metrics.render().decode().splitlines() if not line.startswith("#") and "{" not in line]


async def _lived(hub: Hub) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    asked = iter(("lifespan.startup", "lifespan.shutdown"))

    async def receive() -> dict[str, Any]:
        return {"type": next(asked)}

    async def send(message: Any) -> None:
        said.append(message)

    await live(hub, receive, send)
    return said


async def test_lifespan_opens_and_closes_the_hub(place: str) -> None:
    hub = Hub.from_url(place)

    said = await _lived(hub)

    assert [message["type"] for message in said] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert hub.draining


async def test_lifespan_tells_why_the_hub_does_not_open() -> None:
    (failed,) = await _lived(Hub.from_url("redis://127.0.0.1:1"))

    assert failed["type"] == "lifespan.startup.failed"
    assert "127.0.0.1:1" in failed["message"]
