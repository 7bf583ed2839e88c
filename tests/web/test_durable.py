"""The Durable Streams server in one process: what the protocol's own suite leaves out."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from asgi_client import Answer, Client
from durable_http import claim
from http_client import Reply, request
from places import DURABLE_KINDS, fresh_place
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Mount
from web_server import serving, until

from streamhub import BackendUnavailableError, Event, Hub, HubSettings, Retention
from streamhub.errors import ResponseAbortedError, UnsupportedFormatError
from streamhub.inputs import check_retention
from streamhub.types import Append, Offset, StreamInfo
from streamhub.web import routes
from streamhub.web.durable import DurableStreams
from streamhub.web.durable.admission import MAX_PRODUCERS
from streamhub.web.durable.creation import Creation, Creator
from streamhub.web.durable.headers import MAX_TTL_SECONDS
from streamhub.web.durable.offsets import next_cursor, write_offset
from streamhub.web.durable.reader import Reader
from streamhub.web.durable.stored import KEY, Configuration

TEXT = {"content_type": "text/plain"}
JSON = {"content_type": "application/json"}


def serve(hub: Hub, **options: Any) -> Client:
    return Client(DurableStreams(hub, **{"authorize": None, "long_poll_seconds": 5.0, **options}))


async def tail(client: Client, path: str = "/s") -> str:
    return (await client("HEAD", path)).headers["stream-next-offset"]


async def awaited(hub: Hub, key: str = "s") -> None:
    """Wait until a reader of this process waits for more of a stream."""
    feeds = hub._core.feeds._feeds
    await until(lambda: key in feeds and feeds[key].awaited)


# --- bad input


@pytest.mark.parametrize("name", ["content-type", "authorization", "stream-closed", "stream-seq", "producer-id"])
async def test_header_given_twice_is_refused_before_anybody_is_asked_about_it(hub: Hub, name: str) -> None:
    asked: list[str] = []

    def allowed(_: Request, __: str, action: str) -> bool:
        asked.append(action)
        return True

    streams = DurableStreams(hub, authorize=allowed)
    given = {"content-type": "text/plain", "stream-seq": "1", "producer-id": "a"}

    async def twice(scope: Any, receive: Any, send: Any) -> None:
        extra = [
            (b"accept", b"a"),
            (b"accept", b"b"),
            *([(name.encode(), b"x")] * 2 if scope["method"] == "POST" else []),
        ]
        await streams({**scope, "headers": [*scope["headers"], *extra]}, receive, send)

    client = Client(twice)
    assert (await client("PUT", "/s", **TEXT)).status == 201
    assert (await client("POST", "/s", b"x", **given)).status == 400
    assert asked == ["start"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("POST", "/s", {"content_type": "text/plain"}, b"", 400),
        ("POST", "/s", {}, b"x", 400),
        ("POST", "/s", {"content_type": "text/plain", "producer_id": "a"}, b"x", 400),
        ("POST", "/s", {**TEXT, "producer_epoch": "0"}, b"x", 400),
        ("POST", "/s", {**TEXT, "producer_seq": "0"}, b"x", 400),
        ("POST", "/s", {**TEXT, **claim("a", 0, 0), "producer_seq": "9007199254740992"}, b"x", 400),
        ("POST", "/s", {**TEXT, **claim("a", 0, 0), "producer_epoch": "-1"}, b"x", 400),
        ("POST", "/s", {**TEXT, "stream_seq": "x" * 257}, b"x", 400),
        ("POST", "/s", {**TEXT, "stream_seq": ""}, b"x", 400),
        ("POST", "/s", JSON, b"[1,2", 400),
        ("POST", "/s", JSON, b"[1,]", 400),
        ("POST", "/s", JSON, b"[1] 2", 400),
        ("POST", "/s", JSON, b"1 2", 400),
        ("POST", "/s", JSON, b"[NaN]", 400),
        ("POST", "/s", JSON, b"Infinity", 400),
        ("POST", "/s", JSON, b"\xff", 400),
        ("POST", "/s", JSON, b"[" * 100_000, 400),
        ("POST", "/s", JSON, b" \n", 400),
        ("PUT", "/new", {"content_type": "text/plain\x7f"}, b"", 400),
        ("PUT", "/new", {"content_type": "x" * 257}, b"", 400),
        ("PUT", "/new", {"content_type": "garbage"}, b"", 400),
        ("PUT", "/new", {"content_type": "text/plain/x"}, b"", 400),
        ("PUT", "/new", {"stream_ttl": "36000000000"}, b"", 400),
        ("PUT", "/new", {"stream_ttl": "\xb2"}, b"", 400),
        ("PUT", "/new", {"stream_expires_at": "2026-13-01T00:00:00Z"}, b"", 400),
        ("PUT", "/new", {"stream_expires_at": "2026-01-01"}, b"", 400),
        ("PUT", "/new", {"stream_ttl": "1", "stream_expires_at": "2099-01-01T00:00:00Z"}, b"", 400),
        ("PUT", "/new", {"stream_forked_from": "/s"}, b"", 501),
        ("PUT", "/new", {"stream_fork_offset": "x"}, b"", 501),
        ("PUT", "/a\x00b", {}, b"", 400),
        ("PUT", "/" + "x" * 513, {}, b"", 400),
        ("PUT", "/new/cancel", {}, b"", 400),
        ("PUT", "/a\ufffd", {}, b"", 400),
        ("PUT", "/", {}, b"", 404),
        ("PUT", "/__ds/subscriptions/x", {}, b"", 501),
        ("GET", "/a/__ds/jwks.json", {}, b"", 501),
        ("GET", "/s?offset=", {}, b"", 400),
        ("GET", "/s?offset=-1&offset=-1", {}, b"", 400),
        ("GET", "/s?live=sse", {}, b"", 400),
        ("GET", "/s?offset=-1&live=poll", {}, b"", 400),
        ("GET", "/s?offset=1_2", {}, b"", 400),
        ("GET", "/s?" + "&".join(f"a{number}=" for number in range(100)), {}, b"", 400),
        ("PATCH", "/s", {}, b"", 405),
    ],
)
async def test_bad_requests_are_refused_in_words_and_change_nothing(
    hub: Hub, method: str, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    client = serve(hub)
    await client("PUT", "/s", **TEXT)
    before = await tail(client)

    answer = await client(method, path, body, **headers)

    assert answer.status == status
    assert answer.body.endswith(b"\n")
    assert answer["x-content-type-options"] == "nosniff"
    assert answer["cache-control"] == "no-store"
    assert await tail(client) == before
    assert (await client("HEAD", "/new")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "headers", "said"),
    [
        ("POST", "/s", {"content_type": "application/x-www-form-urlencoded"},
         "the stream's content type is text/plain, not application/x-www-form-urlencoded"),
        ("PUT", "/s", JSON, "the stream exists, and its Content-Type is another"),
        ("PUT", "/s", {**TEXT, "stream_ttl": "60"}, "the stream exists, and its Stream-TTL is another"),
        ("PUT", "/s", {**TEXT, "stream_expires_at": "2099-01-01T00:00:00Z"},
         "the stream exists, and its Stream-Expires-At is another"),
        ("PUT", "/s", {**TEXT, "stream_closed": "true"}, "the stream exists, and its Stream-Closed is another"),
        ("PUT", "/s/cancel", TEXT, "a stream's name may not end in /cancel"),
        ("PUT", "/new", {"content_type": "garbage"}, "Content-Type must be a type and a subtype, as in text/plain"),
        ("GET", "/s?live=sse", {}, "a live read needs an offset: offset=-1 is the start, offset=now the end"),
        ("GET", "/s?offset=-1&live=foo", {}, "live is sse or long-poll"),
        ("GET", "/s?offset=5", {}, "malformed offset: use -1, now or a Stream-Next-Offset"),
    ],
)  # fmt: skip
async def test_refusal_says_what_is_wrong(hub: Hub, method: str, path: str, headers: dict[str, str], said: str) -> None:
    client = serve(hub)
    await client("PUT", "/s", **TEXT)

    assert (await client(method, path, b"1", **headers)).body.decode() == f"{said}\n"


async def test_offset_of_a_generation_that_never_was_is_gone(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", b"x", **TEXT)

    assert (await client("GET", f"/s?offset={'9' * 16}_{'0' * 16}")).status == 410
    assert (await client("GET", f"/s?offset={'0' * 16}_{'0' * 16}")).status == 410


async def test_offset_beyond_the_tail_is_gone_for_what_it_names_was_lost(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", b"x", **TEXT)
    generation = (await tail(client)).split("_")[0]

    for live in ("", "&live=long-poll", "&live=sse"):
        assert (await client("GET", f"/s?offset={generation}_{9:016}{live}")).status == 410


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        (b" [ 1 , 1.10 , 1e400 ] ", [b"1", b"1.10", b"1e400"]),
        (b'[{"a" : 1}, "\\ud800", "\xc3\xa9", null, [], [[2]]]',
         [b'{"a" : 1}', b'"\\ud800"', b'"\xc3\xa9"', b"null", b"[]", b"[[2]]"]),
        (b'\n{"a": 12345678901234567890}\n', [b'{"a": 12345678901234567890}']),
    ],
)  # fmt: skip
async def test_json_messages_keep_the_bytes_they_came_with(hub: Hub, body: bytes, messages: list[bytes]) -> None:
    client = serve(hub)
    await client("PUT", "/s", **JSON)

    assert (await client("POST", "/s", body, **JSON)).status == 204

    assert [chunk.data async for chunk in first(hub, len(messages))] == messages
    assert (await client("GET", "/s")).body == b"[" + b",".join(messages) + b"]"


async def first(hub: Hub, count: int, key: str = "s") -> AsyncIterator[Any]:
    async with hub.subscribe(key) as subscription:
        for _ in range(count):
            yield await anext(subscription)


# --- limits


@pytest.mark.parametrize("declared", [True, False])
async def test_body_beyond_the_limit_is_refused_and_nothing_stored(hub: Hub, declared: bool) -> None:
    client = serve(hub, max_body_bytes=1000)
    await client("PUT", "/s", **TEXT)
    length = {"content_length": "1001"} if declared else {}

    assert (await client("POST", "/s", b"x" * 1001, parts=7, **TEXT, **length)).status == 413
    assert (await client("PUT", "/t", b"x" * 1001, parts=7, **TEXT, **length)).status == 413
    assert (await client("POST", "/s", b"x" * 1000, parts=7, **TEXT)).status == 204
    assert (await client("HEAD", "/t")).status == 404


async def test_too_many_messages_in_one_body_are_refused(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", **JSON)

    assert (await client("POST", "/s", b"[" + b"1," * 16_384 + b"1]", **JSON)).status == 413
    assert (await client("POST", "/s", b"[" + b"1," * 16_383 + b"1]", **JSON)).status == 204


async def test_slow_body_is_not_waited_for(hub: Hub) -> None:
    app = DurableStreams(hub, authorize=None, body_seconds=0.05)
    await Client(app)("PUT", "/s", **TEXT)
    async with serving(app) as port:
        headers = {"Content-Type": "text/plain", "Content-Length": "10"}
        async with request(port, "/s", method="POST", headers=headers, body=b"half") as reply:
            assert reply.status == 408


async def test_full_stream_answers_507_and_can_still_be_closed(hub: Hub) -> None:
    client = serve(hub, retention=Retention(max_bytes=100))
    await client("PUT", "/s", **TEXT)
    assert (await client("POST", "/s", b"x" * 60, **TEXT)).status == 204

    assert (await client("POST", "/s", b"x" * 60, **TEXT)).status == 507
    assert (await client("POST", "/s", b"x" * 40, **TEXT)).status == 204
    assert (await client("POST", "/s", stream_closed="true")).status == 204


async def test_first_content_that_can_never_fit_creates_nothing(hub: Hub) -> None:
    client = serve(hub, retention=Retention(max_bytes=100, max_chunks=2))

    assert (await client("PUT", "/s", b"x" * 101, **TEXT)).status == 413
    assert (await client("PUT", "/s", b"[1,2,3]", **JSON)).status == 413
    assert (await client("PUT", "/s", b"[1,2]", **JSON)).status == 201


async def test_one_producer_too_many_gets_429_and_the_others_go_on(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", **TEXT)
    joined = await asyncio.gather(
        *(client("POST", "/s", b"x", **TEXT, **claim(f"p{number}", 0, 0)) for number in range(MAX_PRODUCERS))
    )
    assert {answer.status for answer in joined} == {200}

    assert (await client("POST", "/s", b"x", **TEXT, **claim("late", 0, 0))).status == 429
    assert (await client("POST", "/s", b"x", **TEXT, **claim("p7", 0, 1))).status == 200
    assert (await client("POST", "/s", b"x", **TEXT)).status == 204


# --- who may


async def test_application_decides_by_key_and_action(hub: Hub) -> None:
    asked: list[tuple[str, str]] = []

    async def authorize(request: Request, key: str, action: str) -> bool:
        asked.append((key, action))
        if request.headers.get("authorization") is None:
            raise HTTPException(401, "who are you", headers={"WWW-Authenticate": "Bearer"})
        return action != "delete"

    client = serve(hub, authorize=authorize, key=lambda path: f"tenant:{path}")
    nobody = await client("PUT", "/s", **TEXT)
    assert (nobody.status, nobody["www-authenticate"]) == (401, "Bearer")

    client.base["authorization"] = "x"
    statuses = [
        (await client(method, path, body, **TEXT)).status
        for method, path, body in [
            ("PUT", "/s", b""), ("POST", "/s", b"x"), ("GET", "/s", b""), ("HEAD", "/s", b""),
            ("POST", "/s/cancel", b""), ("DELETE", "/s", b""),
        ]
    ]  # fmt: skip

    assert statuses == [201, 204, 200, 200, 200, 403]
    assert [action for _, action in asked[1:]] == ["start", "append", "subscribe", "info", "cancel", "delete"]
    assert {key for key, _ in asked} == {"tenant:s"}
    assert await hub.info("tenant:s") is not None
    assert (await client("GET", "/s"))["cache-control"].startswith("private")


@pytest.mark.parametrize("shared", [True, False])
async def test_what_depends_on_who_asks_varies_with_what_tells_it(hub: Hub, shared: bool) -> None:
    client = serve(hub, shared_caches=shared)
    await client("PUT", "/s", b"x", **TEXT)

    caught_up = await client("GET", "/s")
    polled = await client("GET", "/s?offset=-1&live=long-poll")
    same = await client("GET", "/s", if_none_match=caught_up.headers["etag"])
    now = await client("GET", "/s?offset=now")

    assert same.status == 304
    varies = None if shared else "authorization, cookie"
    assert [answer["vary"] for answer in (caught_up, polled, same, now)] == [varies, varies, varies, None]


async def test_application_that_has_no_time_to_decide_is_not_told_as_a_slow_body(hub: Hub) -> None:
    async def late(_: Request, __: str, ___: str) -> bool:
        raise TimeoutError("who knows")

    with pytest.raises(TimeoutError, match="who knows"):
        await serve(hub, authorize=late)("POST", "/s", b"x", **TEXT)


async def test_mounted_application_names_streams_below_its_mount(hub: Hub) -> None:
    inner = DurableStreams(hub, authorize=None)
    client = Client(Starlette(routes=[Mount("/v1/stream", inner)]))

    created = await client("PUT", "/v1/stream/a/b c", b"x", **TEXT)

    assert (created.status, created["location"]) == (201, "http://test/v1/stream/a/b%20c")
    assert await hub.info("a/b c") is not None
    assert (await Client(inner)("GET", "/a/b c", root="/v1/stream")).body == b"x"


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/streams.db", "redis://127.0.0.1:1"])
async def test_hub_that_nobody_opened_is_told_and_logged_once(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(Hub.from_url(url.format(tmp_path)))

    for method, path, body in (
        ("PUT", "/s", b""), ("POST", "/s", b"x"), ("GET", "/s", b""), ("GET", "/s?offset=-1&live=sse", b""),
        ("HEAD", "/s", b""), ("DELETE", "/s", b""),
    ):  # fmt: skip
        answer = await client(method, path, body, **TEXT)
        assert answer.status == 500
        assert b"lifespan=hub.lifespan" in answer.body or method == "HEAD"
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_hub_that_was_open_asks_to_come_again(place: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Hub.from_url(place) as hub:
        client = serve(hub)
        assert (await client("PUT", "/s", **TEXT)).status == 201

    for method, path in (("PUT", "/t"), ("POST", "/s"), ("GET", "/s"), ("DELETE", "/s")):
        answer = await client(method, path, b"x", **TEXT)
        assert (answer.status, answer["retry-after"]) == (503, "1")
    assert not caplog.records


# --- one after another


async def test_deleted_and_recreated_stream_refuses_the_old_offset(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", b"old", **TEXT)
    old = await tail(client)
    assert (await client("DELETE", "/s")).status == 204
    assert (await client("GET", f"/s?offset={old}")).status == 404
    assert (await client("DELETE", "/s")).status == 404
    await client("PUT", "/s", b"new", **TEXT)

    for live in ("", "&live=long-poll", "&live=sse"):
        assert (await client("GET", f"/s?offset={old}{live}")).status == 410
    assert (await client("GET", "/s?offset=-1")).body == b"new"


async def test_writer_remembers_nothing_of_a_stream_that_another_instance_replaced(hub: Hub, place: str) -> None:
    here = serve(hub)
    await here("PUT", "/s", **TEXT)
    assert (await here("POST", "/s", b"a", **TEXT, **claim("p", 0, 0))).status == 200
    async with Hub.from_url(place) as other:
        there = serve(other)
        await there("DELETE", "/s")
        await there("PUT", "/s", **JSON)

    assert (await here("POST", "/s", b"b", **TEXT)).status == 409
    assert (await here("POST", "/s", b"2", **JSON, **claim("p", 0, 1))).status == 409
    assert (await here("POST", "/s", b"1", **JSON, **claim("p", 0, 0))).status == 200
    assert (await here("GET", "/s")).body == b"[1]"


async def test_refusal_is_never_answered_from_memory(hub: Hub, place: str) -> None:
    here = serve(hub)
    await here("PUT", "/s", **TEXT)
    await here("POST", "/s", b"a", **TEXT, stream_seq="5")
    async with Hub.from_url(place) as other:
        there = serve(other)
        await there("DELETE", "/s")
        await there("PUT", "/s", **TEXT)

    assert (await here("POST", "/s", b"b", **TEXT, stream_seq="1")).status == 204
    assert (await here("GET", "/s")).body == b"b"


async def test_trimmed_offset_is_gone_and_the_start_is_what_is_left(hub: Hub) -> None:
    client = serve(hub, retention=Retention(max_chunks=3, overflow="trim"))
    await client("PUT", "/s", **TEXT)
    begin = await tail(client)
    for number in range(6):
        await client("POST", "/s", str(number).encode(), **TEXT)

    for live in ("", "&live=long-poll", "&live=sse"):
        assert (await client("GET", f"/s?offset={begin}{live}")).status == 410
    whole = await client("GET", "/s?offset=-1")
    assert (whole.status, whole.body, whole["stream-up-to-date"]) == (200, b"345", "true")


async def test_expected_offset_lets_one_of_many_win(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", **TEXT)
    expected = await tail(client)

    answers = await asyncio.gather(
        *(client("POST", "/s", b"%d" % number, **TEXT, stream_expected_offset=expected) for number in range(20))
    )

    assert sorted(answer.status for answer in answers) == [204] + [409] * 19
    now = await tail(client)
    assert {answer["stream-next-offset"] for answer in answers} == {now}


async def test_expired_stream_is_gone_for_all_and_its_path_free(hub: Hub) -> None:
    client = serve(hub)
    past = "2020-01-01T00:00:00+01:00"
    assert (await client("PUT", "/s", b"x", **TEXT, stream_expires_at=past)).status == 201

    for method, body in (("GET", b""), ("HEAD", b""), ("POST", b"x"), ("DELETE", b"")):
        assert (await client(method, "/s", body, **TEXT)).status == 404
    assert (await client("PUT", "/s", **JSON)).status == 201


async def test_store_keeps_a_stream_no_longer_than_its_moment_and_its_life_after_the_last_write(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", **TEXT, stream_expires_at="2099-01-01T00:00:00Z")
    await client("PUT", "/t", **TEXT, stream_ttl="100")
    await client("PUT", "/u", **TEXT)

    kept = [info.retention for key in "stu" if (info := await hub.info(key)) is not None]

    assert kept[0].unfinished_seconds < 90 * 366 * 86_400
    assert 100 <= kept[1].unfinished_seconds == kept[1].ended_seconds <= 103
    assert kept[2].unfinished_seconds > 99 * 365 * 86_400


async def test_same_moment_written_differently_is_the_same_configuration(hub: Hub) -> None:
    client = serve(hub)
    moments = ["2099-01-01T12:00:00Z", "2099-01-01T13:00:00.000+01:00", "2099-01-01T12:00:01Z"]

    statuses = [(await client("PUT", "/s", **TEXT, stream_expires_at=moment)).status for moment in moments]

    assert statuses == [201, 200, 409]
    assert (await client("HEAD", "/s"))["stream-expires-at"] == moments[0]


def test_cursor_always_exceeds_the_one_given() -> None:
    now = next_cursor(None)

    assert next_cursor(str(int(now) - 5)) == now
    assert all(int(next_cursor(now)) > int(now) for _ in range(100))
    assert int(next_cursor(str(int(now) + 10**6))) > int(now) + 10**6
    assert all(next_cursor(text) == now for text in ("", "x", "-1", "9" * 400, "\xb2"))


async def test_etag_changes_when_the_stream_closes_and_when_it_is_made_anew(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", b"x", **TEXT)
    tags = [(await client("GET", "/s")).headers["etag"]]
    unchanged = await client("GET", "/s", if_none_match=f'"other", W/{tags[0]}')
    assert (unchanged.status, unchanged.body, unchanged["etag"]) == (304, b"", tags[0])

    await client("POST", "/s", stream_closed="true")
    closed = await client("GET", "/s", if_none_match=tags[0])
    assert (closed.status, closed["stream-closed"]) == (200, "true")
    tags.append(closed.headers["etag"])
    await client("DELETE", "/s")
    await client("PUT", "/s", b"x", **TEXT)
    tags.append((await client("GET", "/s")).headers["etag"])
    assert len(set(tags)) == 3


# --- creation that died


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the next creation of a stream stop between its two steps, as a process that dies there does."""

    def arm() -> None:
        fill = Creator._fill

        async def die(self: Creator, creation: Creation, opened: Any) -> Any:
            monkeypatch.setattr(Creator, "_fill", fill)
            raise KeyboardInterrupt

        monkeypatch.setattr(Creator, "_fill", die)

    return arm


async def test_stream_whose_creation_died_is_not_there_until_the_next_creation_replaces_it(
    hub: Hub, dying: Callable[[], None]
) -> None:
    client = serve(hub)
    dying()
    with pytest.raises(KeyboardInterrupt):
        await client("PUT", "/s", b"first", **TEXT)
    info = await hub.info("s")
    assert info is not None
    assert info.metadata[KEY]["creating"] is True

    for method, body in (("GET", b""), ("HEAD", b""), ("POST", b"x")):
        assert (await client(method, "/s", body, **TEXT)).status == 404
    created = await client("PUT", "/s", b'["second"]', **JSON, stream_closed="true")
    assert created.status == 201
    found = await client("GET", "/s")
    assert (found.body, found["content-type"], found["stream-closed"]) == (b'["second"]', "application/json", "true")
    assert found["stream-next-offset"] == created["stream-next-offset"]


async def test_creation_without_content_replaces_one_that_died_with_some(hub: Hub, dying: Callable[[], None]) -> None:
    client = serve(hub)
    dying()
    with pytest.raises(KeyboardInterrupt):
        await client("PUT", "/s", b"first", **TEXT)

    assert (await client("PUT", "/s", **TEXT)).status == 201
    begin = await tail(client)
    assert (await client("POST", "/s", b"x", **TEXT)).status == 204
    assert (await client("GET", f"/s?offset={begin}")).body == b"x"
    assert (await client("GET", f"/s?offset={begin}&live=long-poll")).body == b"x"


async def test_creation_overtaken_between_its_steps_begins_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    client, fill = serve(hub), Creator._fill

    async def overtaken(self: Creator, creation: Creation, opened: Any) -> Any:
        monkeypatch.setattr(Creator, "_fill", fill)
        await hub.leases.release(lease_of(hub, opened.key))  # as after its holder's death
        winner = Creation("s", Configuration("text/plain"), (b"winner",), closed=False)
        assert (await self.create(winner)).outcome == "created"
        return await fill(self, creation, opened)

    monkeypatch.setattr(Creator, "_fill", overtaken)
    answer = await client("PUT", "/s", b"loser", **TEXT)

    assert answer.status == 200  # it is there, as it was asked for; what a PUT brings along is not compared
    assert (await client("GET", "/s")).body == b"winner"


def lease_of(hub: Hub, key: str) -> Any:
    """Return the lease of a key in memory, whoever holds it."""
    return hub.leases._session.namespace.leases[key].lease


async def test_delete_that_found_nothing_deletes_nothing_that_was_created_meanwhile(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, describe = serve(hub), Reader.describe

    async def overtaken(self: Reader, key: str) -> Any:
        monkeypatch.setattr(Reader, "describe", describe)
        found = await describe(self, key)
        assert (await client("PUT", "/s", b"x", **TEXT)).status == 201
        return found

    monkeypatch.setattr(Reader, "describe", overtaken)

    assert (await client("DELETE", "/s")).status == 404
    assert (await client("GET", "/s")).body == b"x"


async def test_many_creations_at_once_make_one_stream(hub: Hub) -> None:
    client = serve(hub)

    answers = await asyncio.gather(*(client("PUT", "/s", b"x", **TEXT) for _ in range(20)))

    assert sorted(answer.status for answer in answers) == [200] * 19 + [201]
    assert (await client("GET", "/s")).body == b"x"


# --- many writers


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_thousand_producers_of_one_stream_are_stored_once_and_in_order(kind: str, tmp_path: Path) -> None:
    appends: list[Event] = []
    async with fresh_place(kind, tmp_path) as url, Hub.from_url(url, observer=appends.append) as hub:
        client = serve(hub)
        await client("PUT", "/s", **JSON)
        appends.clear()

        async def produce(number: int) -> None:
            for seq in range(3):
                body = json.dumps([number, seq]).join("[]").encode()
                for status in (200, 204):  # each is sent twice
                    answer = await client("POST", "/s", body, **JSON, **claim(f"p{number}", 0, seq))
                    assert answer.status == status, answer

        await asyncio.gather(*(produce(number) for number in range(1000)))

        messages: list[list[int]] = json.loads(await whole(client))
        assert len(messages) == 3000
        for number in range(1000):
            assert [seq for name, seq in messages if name == number] == [0, 1, 2]
        stored = [event for event in appends if event.name == "append"]
        assert sum(event.count for event in stored) == 3000
        assert len(stored) < 300  # they rode together


async def whole(client: Client, path: str = "/s") -> bytes:
    """Read a stream of JSON page by page."""
    parts: list[bytes] = []
    offset = "-1"
    while True:
        page = await client("GET", f"{path}?offset={offset}")
        parts.append(page.body.removeprefix(b"[").removesuffix(b"]"))
        offset = page.headers["stream-next-offset"]
        if page["stream-up-to-date"]:
            return b"[" + b",".join(filter(None, parts)) + b"]"


async def test_writes_of_one_turn_ride_together_where_nothing_is_waited_for(place: str) -> None:
    appends: list[Event] = []
    async with Hub.from_url(place, observer=appends.append) as hub:
        client = serve(hub)
        await client("PUT", "/s", **TEXT)
        for _ in range(40):  # so long a write has been alone that not every one looks for others
            assert (await client("POST", "/s", b"-", **TEXT)).status == 204
            await asyncio.sleep(0)
        for most in (17, 2):
            appends.clear()
            answers = await asyncio.gather(*(client("POST", "/s", b"%02d" % n, **TEXT) for n in range(64)))

            assert {answer.status for answer in answers} == {204}
            assert len({answer["stream-next-offset"] for answer in answers}) == 64
            assert len([event for event in appends if event.name == "append"]) <= most
        assert (await client("GET", "/s")).body == b"-" * 40 + b"".join(b"%02d" % n for n in range(64)) * 2


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_cancelled_request_harms_no_other_of_its_batch(kind: str, tmp_path: Path) -> None:
    async with fresh_place(kind, tmp_path) as url, Hub.from_url(url) as hub:
        client = serve(hub)
        await client("PUT", "/s", **TEXT)
        for victim in range(4):  # the first, which appends by itself, and ones that ride along
            tasks = [
                asyncio.create_task(client("POST", "/s", b"x", **TEXT, **claim(f"{victim}-{number}", 0, 0)))
                for number in range(8)
            ]
            for _ in range(victim + 1):
                await asyncio.sleep(0)
            tasks[victim].cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)

            others = [answer for number, answer in enumerate(answers) if number != victim]
            assert [isinstance(answer, Answer) and answer.status for answer in others] == [200] * 7
            again = await client("POST", "/s", b"x", **TEXT, **claim(f"{victim}-{victim}", 0, 0))
            assert again.status in (200, 204)
            assert len((await client("GET", "/s")).body) == 8 * (victim + 1)


async def test_append_too_large_together_is_stored_apart(hub: Hub) -> None:
    """What fits is stored though it waited beside what does not."""
    client = serve(hub, retention=Retention(max_bytes=100))
    await client("PUT", "/s", **TEXT)
    append, tried = hub.store.append, list[int]()

    async def noted(batch: list[Append]) -> Any:
        tried.append(len(batch[0].chunks))
        return await append(batch)

    hub.store.append = noted
    held = hold(hub)
    sizes = [10, 95, 20, 90, 30]
    tasks = [asyncio.create_task(client("POST", "/s", b"x" * size, **TEXT)) for size in sizes]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    held.set()

    assert [(await task).status for task in tasks] == [204, 507, 204, 507, 204]
    assert tried == [1, 4, 1, 1, 1, 1]
    assert len((await client("GET", "/s")).body) == 60


def hold(hub: Hub) -> asyncio.Event:
    """Let the store's next append wait until the event is set; the ones after it do not."""
    go = asyncio.Event()
    append = hub.store.append

    async def slow(batch: Any) -> Any:
        hub.store.append = append
        await go.wait()
        return await append(batch)

    hub.store.append = slow
    return go


async def test_too_many_waiting_bytes_are_turned_away(hub: Hub) -> None:
    client = serve(hub, max_waiting_bytes=1000)
    await client("PUT", "/s", **TEXT)
    held = hold(hub)
    tasks = [asyncio.create_task(client("POST", "/s", b"x" * 400, **TEXT)) for _ in range(4)]
    async with asyncio.timeout(5):
        turned_away = await tasks[3]
    held.set()

    assert (turned_away.status, turned_away["retry-after"]) == (503, "1")
    assert [(await task).status for task in tasks[:3]] == [204, 204, 204]


async def test_append_without_answer_is_repeated_and_stored_once(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", **TEXT)
    append, calls = hub.store.append, []

    async def deaf(batch: list[Append]) -> Any:
        calls.append(batch[0].nonce)
        answers = await append(batch)
        if len(calls) < 3:
            raise BackendUnavailableError("the answer was lost")
        return answers

    hub.store.append = deaf
    assert (await client("POST", "/s", b"x", **TEXT)).status == 204
    assert len(calls) == 3
    assert len(set(calls)) == 1
    assert (await client("GET", "/s")).body == b"x"


async def test_unreachable_backend_answers_503_after_a_bounded_time_and_a_repetition_is_known(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", **TEXT)
    append = hub.store.append

    async def deaf(batch: list[Append]) -> Any:
        await append(batch)
        raise BackendUnavailableError("the answer was lost")

    hub.store.append = deaf
    lost = await client("POST", "/s", b"x", **TEXT, **claim("p", 0, 0))
    hub.store.append = append

    assert (lost.status, lost["retry-after"]) == (503, "1")
    assert (await client("POST", "/s", b"x", **TEXT, **claim("p", 0, 0))).status == 204
    assert (await client("GET", "/s")).body == b"x"


@pytest.mark.parametrize("seq", [2, 1])  # the next write, or the repetition of one that was lost
async def test_store_that_went_back_gives_no_offset_twice(hub: Hub, seq: int) -> None:
    client = serve(hub)
    await client("PUT", "/s", **TEXT)
    await client("POST", "/s", b"a", **TEXT, **claim("p", 0, 0))
    streams = hub.store._session.namespace.streams
    kept, before = copy.deepcopy(streams["s"]), await tail(client)
    lost = await client("POST", "/s", b"b", **TEXT, **claim("p", 0, 1))
    streams["s"] = kept

    answer = await client("POST", "/s", b"c", **TEXT, **claim("p", 0, seq))
    await client("POST", "/s", b"d", **TEXT)

    assert answer.status == (409 if seq == 2 else 200)
    assert answer["producer-expected-seq"] == ("1" if seq == 2 else None)
    assert (await client("GET", f"/s?offset={lost['stream-next-offset']}")).status == 410
    assert (await client("GET", f"/s?offset={before}")).body == (b"d" if seq == 2 else b"cd")


async def test_store_that_went_back_is_waited_for_while_a_dead_process_holds_the_lease(place: str) -> None:
    async with Hub.from_url(f"{place}?outage_seconds=0.5") as hub:
        client = serve(hub)
        await client("PUT", "/s", **TEXT)
        streams = hub.store._session.namespace.streams
        kept = copy.deepcopy(streams["s"])
        await client("POST", "/s", b"lost", **TEXT)
        streams["s"] = kept
        info = await hub.info("s")
        assert info is not None
        dead = await hub.leases.acquire("s", owner="dead", run=info.run, ttl_seconds=5, above=info.generation)

        assert (await client("POST", "/s", b"x", **TEXT, **claim("p", 0, 0))).status == 503
        await hub.leases.release(dead)
        assert (await client("POST", "/s", b"x", **TEXT, **claim("p", 0, 0))).status == 200
        assert (await client("GET", "/s")).body == b"x"


async def test_writes_to_names_that_are_not_there_push_no_writer_out(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamhub.web.durable.writer.MAX_IDLE", 4)
    client = serve(hub)
    await client("PUT", "/s", **TEXT)
    await client("POST", "/s", b"x", **TEXT)
    described: list[str] = []
    describe = hub.store.describe

    async def watched(keys: Sequence[str], *, touch: bool = False) -> Sequence[StreamInfo | None]:
        described.extend(keys)
        return await describe(keys, touch=touch)

    monkeypatch.setattr(hub.store, "describe", watched)
    for number in range(20):
        await asyncio.sleep(0)  # a turn of the loop: in memory nothing else gives it
        assert (await client("POST", f"/missing/{number}", b"x", **TEXT)).status == 404
    assert (await client("POST", "/s", b"y", **TEXT)).status == 204
    assert "s" not in described


async def test_longest_life_is_one_that_a_hub_takes(hub: Hub) -> None:
    client = serve(hub)
    assert (await client("PUT", "/s", **TEXT, stream_ttl=str(MAX_TTL_SECONDS))).status == 201
    info = await hub.info("s")
    assert info is not None
    assert check_retention(info.retention) == info.retention


async def test_event_stream_that_cannot_go_on_breaks_off(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve(hub)
    await client("PUT", "/s", **TEXT)

    def subscribe(*_: object, **__: object) -> None:
        raise UnsupportedFormatError("record", found=9, known=1)

    monkeypatch.setattr(hub, "subscribe", subscribe)
    with pytest.raises(ResponseAbortedError):
        await client("GET", "/s?offset=-1&live=sse")


# --- the library on the same streams


async def test_stream_of_a_library_producer_is_read_live_by_http(hub: Hub) -> None:
    client = serve(hub)
    async with hub.produce("s", metadata={"content_type": "application/json"}) as producer:
        await producer.send_json({"n": 1})
        await producer.flush()
        found = await client("GET", "/s")
        assert (found.body, found["content-type"]) == (b'[{"n":1}]', "application/json")
        refused = await client("POST", "/s", b"2", **JSON)
        assert (refused.status, refused["stream-closed"]) == (409, None)
        poll = asyncio.create_task(client("GET", f"/s?offset={found['stream-next-offset']}&live=long-poll"))
        await awaited(hub)
        await producer.send_json({"n": 2})
        live = await poll
        assert (live.status, live.body, live["stream-up-to-date"]) == (200, b'[{"n":2}]', "true")

    end = await client("GET", f"/s?offset={live['stream-next-offset']}&live=long-poll")
    assert (end.status, end["stream-closed"], end["streamhub-end"]) == (204, "true", None)
    assert (await client("POST", "/s", b"2", **JSON))["stream-closed"] == "true"


async def test_library_subscriber_reads_what_is_written_by_http(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", **TEXT)
    async with hub.subscribe("s") as subscription:
        got: list[bytes] = []

        async def read() -> None:
            got.extend([chunk.data async for chunk in subscription])

        reading = asyncio.create_task(read())
        for number in range(5):
            await client("POST", "/s", b"%d" % number, **TEXT)
        await client("POST", "/s", b"end", **TEXT, stream_closed="true")
        await reading
    assert got == [b"0", b"1", b"2", b"3", b"4", b"end"]
    assert subscription.end is not None
    assert subscription.end.state == "completed"


async def test_library_producer_that_goes_on_with_a_stream_leaves_it_what_it_is(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", b"[1]", **JSON, stream_ttl="100")
    info = await hub.info("s")
    assert info is not None
    async with hub.produce("s", run=info.run, unfinished="resume") as producer:
        await producer.send_json(2)
        await producer.flush()
        found = await client("GET", "/s")
        assert (found.body, found["content-type"]) == (b"[1,2]", "application/json")
        assert (await client("HEAD", "/s"))["stream-ttl"] == "100"
        assert (await client("POST", "/s", b"3", **JSON)).status == 409
    assert (await client("GET", "/s"))["stream-closed"] == "true"


async def test_failed_run_is_closed_and_says_so(hub: Hub) -> None:
    client = serve(hub)
    with pytest.raises(ValueError, match="no"):
        async with hub.produce("s") as producer:
            await producer.send("x")
            raise ValueError("no")

    found = await client("GET", "/s")
    assert (found.body, found["stream-closed"], found["streamhub-end"]) == (b"x", "true", "failed")
    assert found["content-type"] == "application/octet-stream"
    assert (await client("HEAD", "/s"))["streamhub-end"] == "failed"


# --- cancel


async def test_cancel_route_stops_a_library_producer(hub: Hub) -> None:
    client = serve(hub)
    going = asyncio.Event()

    async def source(producer: Any) -> AsyncIterator[str]:
        yield "x"
        going.set()
        await asyncio.Event().wait()

    await hub.start("s", source)
    await going.wait()
    told = await client("POST", "/s/cancel", b'{"reason": "enough"}', content_length="20", **JSON)

    assert told.status == 200
    assert json.loads(told.body)["end"]["state"] == "cancelled"
    found = await client("GET", "/s?offset=-1&live=long-poll")
    assert (found.body, found["stream-closed"], found["streamhub-end"]) == (b"x", "true", "cancelled")


async def test_cancel_route_closes_a_stream_written_by_http(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", b"x", **TEXT)
    poll = asyncio.create_task(client("GET", f"/s?offset={await tail(client)}&live=long-poll"))
    await awaited(hub)

    assert (await client("POST", "/s/cancel")).status == 200

    closed = await poll
    assert (closed.status, closed["stream-closed"], closed["streamhub-end"]) == (204, "true", "cancelled")
    assert (await client("POST", "/s", b"y", **TEXT))["stream-closed"] == "true"


async def test_cancel_of_nothing_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "CANCEL_WAIT_SECONDS", 0.1)
    client = serve(hub)
    await client("PUT", "/ended", stream_closed="true", **TEXT)

    assert (await client("POST", "/none/cancel")).status == 404
    assert json.loads((await client("POST", "/ended/cancel")).body)["state"] == "nothing"
    named = await client("POST", "/none/cancel", b'{"run": "to come"}', content_length="18", **JSON)
    assert json.loads(named.body)["state"] == "requested"


# --- live readers


async def test_thousand_long_polls_are_all_answered_by_one_append(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", **TEXT)
    offset = await tail(client)
    polls = [asyncio.create_task(client("GET", f"/s?offset={offset}&live=long-poll")) for _ in range(1000)]
    feeds = hub._core.feeds._feeds
    await until(lambda: "s" in feeds and len(feeds["s"]._waiters) == 1000)

    await client("POST", "/s", b"x", **TEXT)

    assert {(poll.status, poll.body) for poll in await asyncio.gather(*polls)} == {(200, b"x")}


async def test_delete_wakes_a_long_poll_with_404(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", **TEXT)
    poll = asyncio.create_task(client("GET", "/s?offset=now&live=long-poll"))
    await awaited(hub)

    await client("DELETE", "/s")

    assert (await poll).status == 404


async def test_delete_ends_an_event_stream_without_closing_it(hub: Hub) -> None:
    app = DurableStreams(hub, authorize=None)
    client = Client(app)
    await client("PUT", "/s", b"x", **TEXT)
    async with serving(app) as port, request(port, "/s?offset=-1&live=sse") as reply:
        events = [await control(reply)]
        await awaited(hub)
        await client("DELETE", "/s")
        assert await reply.event() is None
    assert reply.ending == "clean"
    assert "streamClosed" not in events[0]
    assert (await client("GET", f"/s?offset={events[0]['streamNextOffset']}&live=sse")).status == 404


async def control(reply: Reply) -> dict[str, Any]:
    """Return what the next control event says."""
    while (event := await reply.event()) is not None:
        if event.name == b"control":
            return json.loads(event.data)
    raise AssertionError("the body has ended")


async def test_event_stream_tells_the_end_together_with_the_last_message(hub: Hub) -> None:
    app = DurableStreams(hub, authorize=None)
    client = Client(app)
    await client("PUT", "/s", **TEXT)
    async with serving(app) as port, request(port, "/s?offset=-1&live=sse") as reply:
        assert (await control(reply))["upToDate"] is True
        await awaited(hub)
        await client("POST", "/s", b" two\r\nlines ", **TEXT, stream_closed="true")
        data, end = await reply.events()
    assert (data.name, data.data) == (b"data", b" two\nlines ")
    said = json.loads(end.data)
    assert said == {"streamNextOffset": await tail(client), "upToDate": True, "streamClosed": True}
    assert reply.ending == "clean"


async def test_event_stream_lasts_its_time_and_asks_to_come_again(hub: Hub) -> None:
    app = DurableStreams(hub, authorize=None, sse_seconds=0.1)
    await Client(app)("PUT", "/s", **TEXT)
    async with serving(app) as port, request(port, "/s?offset=-1&live=sse") as reply:
        events = await reply.events()
    assert [event.name for event in events] == [b"control"]
    assert reply.ending == "clean"


async def test_live_reader_keeps_a_stream_with_a_short_life(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", **TEXT, stream_ttl="1")
    offset = await tail(client)
    async with asyncio.timeout(10):
        for _ in range(4):
            poll = await client("GET", f"/s?offset={offset}&live=long-poll")
            assert (poll.status, poll["stream-up-to-date"]) == (204, "true")


async def test_reads_do_not_prolong_the_life_of_a_closed_stream(hub: Hub) -> None:
    client = serve(hub)
    await client("PUT", "/s", b"x", **TEXT, stream_ttl="1", stream_closed="true")
    assert (await client("GET", "/s")).status == 200

    async def is_gone() -> bool:
        return (await client("GET", "/s")).status == 404

    await until(is_gone)


async def test_large_stream_comes_to_an_event_stream_in_pieces_each_with_its_offset(hub: Hub) -> None:
    app = DurableStreams(hub, authorize=None)
    client = Client(app)
    await client("PUT", "/s")
    parts = [os.urandom(300_000) for _ in range(8)]
    for part in parts:
        await client("POST", "/s", part, content_type="application/octet-stream")
    await client("POST", "/s", stream_closed="true")
    async with serving(app) as port, request(port, "/s?offset=-1&live=sse") as reply:
        assert reply.headers["stream-sse-data-encoding"] == "base64"
        events = await reply.events()
    data = [base64.b64decode(event.data) for event in events if event.name == b"data"]
    controls = [json.loads(event.data) for event in events if event.name == b"control"]
    assert b"".join(data) == b"".join(parts)
    assert len(controls) == len(data) > 1
    assert [each.get("upToDate") for each in controls] == [None] * (len(data) - 1) + [True]


async def test_client_that_does_not_read_a_large_answer_is_cut_off(hub: Hub) -> None:
    app = DurableStreams(hub, authorize=None, send_timeout_seconds=0.3)
    client = Client(app)
    over = asyncio.Event()

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        finally:
            over.set()

    await client("PUT", "/s")
    for _ in range(4):
        await client("POST", "/s", os.urandom(1024 * 1024), content_type="application/octet-stream")
    async with (
        serving(watched, send_buffer=4096) as port,
        request(port, "/s?offset=-1", receive_buffer=4096) as reply,
    ):
        async with asyncio.timeout(10):
            await over.wait()  # the client reads nothing meanwhile
        await reply.body()
    assert reply.ending == "cut"


async def test_client_that_does_not_read_a_large_answer_to_its_long_poll_is_cut_off(hub: Hub) -> None:
    app = DurableStreams(hub, authorize=None, send_timeout_seconds=0.3, long_poll_seconds=10)
    client = Client(app)
    await client("PUT", "/s")
    async with (
        serving(app, send_buffer=4096) as port,
        asyncio.TaskGroup() as tasks,
    ):

        async def append() -> None:
            await awaited(hub)
            await client("POST", "/s", os.urandom(4 * 1024 * 1024), content_type="application/octet-stream")

        tasks.create_task(append())
        async with request(port, "/s?offset=-1&live=long-poll", receive_buffer=4096) as reply:
            await asyncio.sleep(1)  # the client is frozen meanwhile
            await reply.body()
    assert reply.ending == "cut"


async def test_draining_hub_lets_live_readers_go(hub: Hub) -> None:
    app = DurableStreams(hub, authorize=None)
    client = Client(app)
    await client("PUT", "/s", **TEXT)
    poll = asyncio.create_task(client("GET", "/s?offset=now&live=long-poll"))
    async with serving(app) as port, request(port, "/s?offset=now&live=sse") as reply:
        await control(reply)
        await awaited(hub)
        await until(lambda: len(hub._core.feeds._feeds["s"]._waiters) == 2)
        await hub.drain(0)
        assert await reply.events() == []
    assert reply.ending == "clean"
    assert (await poll).status == 503


async def test_abandoned_run_is_waited_on_like_any_other(place: str) -> None:
    settings = HubSettings(lease_seconds=0.5, abandon_after_seconds=0.1, poll_seconds=0.05)
    async with Hub.from_url(place, settings=settings) as hub:
        client = serve(hub, long_poll_seconds=1.5)
        with pytest.raises(asyncio.CancelledError):
            async with hub.produce("s", on_interrupt="handover") as producer:
                await producer.send("x")
                await producer.flush()
                raise asyncio.CancelledError
        poll = await client("GET", f"/s?offset={await tail(client)}&live=long-poll")
        assert (poll.status, poll["stream-up-to-date"], poll["stream-closed"]) == (204, "true", None)


# --- every durable backend


@pytest.mark.parametrize("kind", DURABLE_KINDS)
async def test_streams_and_producers_outlive_the_process(kind: str, tmp_path: Path) -> None:
    async with fresh_place(kind, tmp_path) as url:
        async with Hub.from_url(url) as hub:
            client = serve(hub)
            await client("PUT", "/s", b"[1]", **JSON)
            for seq in range(3):
                assert (await client("POST", "/s", b"[2,3]", **JSON, **claim("p" * 40, 0, seq))).status == 200
            offset = await tail(client)
        async with Hub.from_url(url) as hub:
            client = serve(hub)
            again = await client("POST", "/s", b"[2,3]", **JSON, **claim("p" * 40, 0, 2))
            assert (again.status, again["stream-next-offset"], again["producer-seq"]) == (204, offset, "2")
            assert (await client("POST", "/s", b"[4]", **JSON, **claim("p" * 40, 0, 3))).status == 200
            assert (await client("GET", "/s")).body == b"[1,2,3,2,3,2,3,4]"
            assert (await client("GET", f"/s?offset={offset}")).body == b"[4]"


def test_offsets_sort_as_text_like_the_positions_they_name() -> None:
    offsets = [Offset(generation, index) for generation in (1, 9, 10, 10**12) for index in (0, 1, 9, 10, 10**9)]

    assert sorted(map(write_offset, offsets)) == [write_offset(offset) for offset in sorted(offsets)]
