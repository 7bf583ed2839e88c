"""``EventStream`` over real HTTP: what a client gets, from where, and how the body ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import pytest
import servers
from http_client import Reply, request
from redis_servers import started
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from web_server import serving, until

from streamhub import Hub, HubSettings, Offset, Retention, StreamFailure
from streamhub.sse import Event, Parser
from streamhub.web import EventStream, PlainFormat

Get = Callable[..., AbstractAsyncContextManager[Reply]]


def app(hub: Hub, **options: Any) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An ASGI application with one stream for each path."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        run = Request(scope).query_params.get("run")
        await EventStream(hub, scope["path"][1:], run=run, **{"wait": 0, **options})(scope, receive, send)

    return call


async def write(hub: Hub, key: str, *chunks: str | bytes, run: str | None = None) -> list[str]:
    """Store a whole run; return its offsets."""
    async with hub.produce(key, run=run) as producer:
        return [str(await producer.send(chunk)) for chunk in chunks]


def texts(events: list[Event]) -> list[str]:
    return [event.data.decode() for event in events if event.name == b"message"]


def named(events: list[Event]) -> list[tuple[str, Any]]:
    return [(event.name.decode(), json.loads(event.data)) for event in events if event.name != b"message"]


# --- from start to end


async def test_finished_run_is_replayed_under_its_offsets_and_ends_cleanly(hub: Hub) -> None:
    offsets = await write(hub, "k", "one", "two\nlines", "")

    async with serving(app(hub)) as port, request(port, "/k") as reply:
        events = await reply.events()

    assert [(event.id.decode(), event.data) for event in events[:-1]] == list(
        zip(offsets, [b"one", b"two\nlines", b""], strict=True)
    )
    assert events[-1] == Event(b"end", b'{"state":"completed"}', f"{offsets[-1]}-end".encode())
    assert reply.ending == "clean"


async def test_headers_keep_every_hop_from_holding_events_back(hub: Hub) -> None:
    await write(hub, "k", "one")

    async with serving(app(hub)) as port, request(port, "/k") as reply:
        assert reply.status == 200
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-cache, no-transform"
        assert reply.headers["x-accel-buffering"] == "no"
        assert "connection" not in reply.headers
        assert "content-length" not in reply.headers


async def test_open_run_begins_at_once_with_a_comment_a_retry_and_an_id(hub: Hub) -> None:
    async with hub.produce("k") as producer:
        async with serving(app(hub, retry_seconds=2)) as port, request(port, "/k") as reply:
            first = await reply.piece()
            list(reply.parser.feed(first))

            assert b": open\n" in first
            assert 1000 <= (reply.parser.retry_milliseconds or 0) <= 3000
            assert reply.last_id == f"{producer.generation}-0"

            await producer.send("live")
            event = await reply.event()
            assert event is not None
            assert event.data == b"live"


async def test_failed_and_cancelled_runs_end_cleanly_and_say_why(hub: Hub) -> None:
    with pytest.raises(StreamFailure):
        async with hub.produce("failed"):
            raise StreamFailure("too busy", code="overloaded")
    await write(hub, "other", "x")
    started = await hub.start("cancelled", _endless, run="r")
    await hub.cancel("cancelled", run=started.run, reason="stop", requested_by="someone@example.org", wait=5)

    async with serving(app(hub)) as port:
        async with request(port, "/failed") as failed:
            assert named(await failed.events()) == [
                ("end", {"state": "failed", "code": "overloaded", "message": "too busy"})
            ]
        async with request(port, "/cancelled") as cancelled:
            assert named(await cancelled.events()) == [("end", {"state": "cancelled", "reason": "stop"})]

    assert (failed.ending, cancelled.ending) == ("clean", "clean")
    assert b"someone" not in cancelled.raw


async def _endless(producer: Any) -> None:
    await producer.send("begun")
    await asyncio.Event().wait()


# --- resuming


async def test_reader_resumes_after_its_last_event_id_and_misses_nothing(hub: Hub) -> None:
    async with hub.produce("k") as producer, serving(app(hub)) as port:
        offsets = [str(await producer.send(text)) for text in "abc"]
        async with request(port, "/k") as reply:
            assert (await reply.event(), await reply.event()) != (None, None)
            last_id = offsets[1]
            await reply.reset()
        await producer.send("d")
        async with request(port, "/k?after=" + offsets[0], headers={"Last-Event-ID": last_id}) as reply:
            assert [(await reply.event()).data for _ in "cd"] == [b"c", b"d"]  # the header goes before the query
        async with request(port, "/k?after=" + offsets[2]) as reply:
            assert (await reply.event()).data == b"d"


async def test_client_that_read_all_but_the_end_is_told_the_end(hub: Hub) -> None:
    offsets = await write(hub, "k", "one")

    async with serving(app(hub)) as port, request(port, "/k", headers={"Last-Event-ID": offsets[-1]}) as reply:
        assert named(await reply.events()) == [("end", {"state": "completed"})]
        assert reply.ending == "clean"


async def test_client_that_has_seen_the_end_is_sent_away_with_204(hub: Hub) -> None:
    await write(hub, "k", "one", run="first")

    async with serving(app(hub)) as port:
        async with request(port, "/k") as reply:
            await reply.events()
        for run in ("second", "third"):
            async with request(port, "/k", headers={"Last-Event-ID": reply.last_id}) as again:
                assert (again.status, await again.body()) == (204, b"")
            await write(hub, "k", "two", run=run)  # another answer is not a continuation


async def test_client_of_fetch_that_has_seen_the_end_is_told_again(hub: Hub) -> None:
    offsets = await write(hub, "k", "one")

    async with serving(app(hub)) as port:
        async with request(port, "/k", method="POST", headers={"Last-Event-ID": f"{offsets[0]}-end"}) as reply:
            assert (reply.status, named(await reply.events())) == (200, [("end", {"state": "completed"})])
            assert reply.ending == "clean"


@pytest.mark.parametrize(
    "cursor",
    [
        "7",
        "7-",
        "x",
        "7-1-end-end",
        "<b>",
        "1-1\tz",
        "9" * 65,
        "-1",
        "7-1end",
        "start-end",
        "\u0661-\u0661",
        f"{2**63}-1",
        f"1-{2**63}",
        "9" * 62 + "-1",
        "1-1 1-2",
        "1-1,1-2",
        "0x1-1",
        "1_0-1",
        "+1-1",
    ],
)
async def test_malformed_cursor_is_refused_and_not_repeated(hub: Hub, cursor: str) -> None:
    await write(hub, "k", "one")

    async with serving(app(hub)) as port, request(port, "/k", headers={"Last-Event-ID": cursor}) as reply:
        assert (reply.status, await reply.body()) == (400, b"invalid cursor")


async def test_cursor_of_a_replaced_run_gets_reset_and_the_current_run_from_its_start(hub: Hub) -> None:
    old = await write(hub, "k", "a", "b", run="first")
    new = await write(hub, "k", "c", "d", run="second")

    async with serving(app(hub)) as port, request(port, "/k", headers={"Last-Event-ID": old[0]}) as reply:
        events = await reply.events()

    assert named(events) == [("reset", {"reason": "replaced"}), ("end", {"state": "completed"})]
    assert (texts(events), [event.id.decode() for event in events[1:3]]) == (["c", "d"], new)
    assert events[0].id == b""  # nothing to resume from until the next event


async def test_run_that_is_replaced_while_it_is_read_is_followed_by_its_successor(hub: Hub, place: str) -> None:
    settings = HubSettings(lease_seconds=1, poll_seconds=0.2, on_interrupt="handover")
    async with serving(app(hub)) as port, Hub.from_url(place, settings=settings) as other:
        await other.start("k", _endless, run="first")
        async with request(port, "/k") as reply:
            assert (await reply.event()).data == b"begun"
            await other.drain(0)
            async with hub.produce("k", run="second", unfinished="replace") as producer:
                await producer.send("anew")
            events = await reply.events()

    assert named(events) == [("reset", {"reason": "replaced"}), ("end", {"state": "completed"})]
    assert texts(events) == ["anew"]


async def test_reader_of_a_named_run_is_never_given_another_one(hub: Hub) -> None:
    old = await write(hub, "k", "a", "b", run="first")
    await write(hub, "k", "c", run="second")

    async with serving(app(hub)) as port:
        async with request(port, "/k?run=first", headers={"Last-Event-ID": old[0]}) as reply:
            events = await reply.events()
            assert (texts(events), named(events)) == ([], [("gone", {"reason": "replaced"})])
        async with request(port, "/k?run=first", headers={"Last-Event-ID": reply.last_id}) as reply:
            assert reply.status == 204


async def test_cursor_before_the_trimmed_edge_gets_reset_and_what_is_kept(hub: Hub) -> None:
    async with hub.produce("k", retention=Retention(max_chunks=2, overflow="trim")) as producer:
        first = await producer.send("1")
        for text in "2345":
            await producer.flush()
            await producer.send(text)

    async with serving(app(hub)) as port, request(port, "/k", headers={"Last-Event-ID": str(first)}) as reply:
        events = await reply.events()

    assert named(events)[0] == ("reset", {"reason": "trimmed"})
    assert texts(events) == ["4", "5"]


@pytest.mark.parametrize("beyond", [Offset(1, 5), Offset(2**62, 1)])
async def test_cursor_of_another_stream_gets_reset_and_nothing_is_skipped(hub: Hub, beyond: Offset) -> None:
    foreign = await write(hub, "theirs", *"abcdef")
    await write(hub, "mine", *"uvwxyz")

    async with serving(app(hub)) as port:
        for cursor in (foreign[2], str(beyond)):
            async with request(port, "/mine", headers={"Last-Event-ID": cursor}) as reply:
                events = await reply.events()
                assert named(events)[0][0] == "reset"
                assert texts(events) == list("uvwxyz")


# --- nothing to read


async def test_nothing_to_read_is_204_for_a_get_and_an_event_for_a_post(hub: Hub) -> None:
    async with serving(app(hub)) as port:
        async with request(port, "/none") as reply:
            assert reply.status == 204
        async with request(port, "/none", method="POST") as reply:
            assert named(await reply.events()) == [("gone", {"reason": "not_found"})]
            assert reply.ending == "clean"


async def test_client_that_was_reading_is_told_that_the_stream_is_gone(hub: Hub) -> None:
    await hub.start("k", _endless, run="r")
    async with serving(app(hub)) as port:
        async with request(port, "/k") as reply:
            assert (await reply.event()).data == b"begun"
            offset = reply.last_id
            await hub.delete("k")
            assert named(await reply.events()) == [("gone", {"reason": "deleted"})]
        async with request(port, "/k", headers={"Last-Event-ID": offset}) as reply:
            assert named(await reply.events()) == [("gone", {"reason": "deleted"})]
        async with request(port, "/k", headers={"Last-Event-ID": reply.last_id}) as reply:
            assert reply.status == 204


async def test_stream_that_is_about_to_start_is_waited_for(hub: Hub) -> None:
    async with serving(app(hub, wait=20)) as port:
        reading = asyncio.create_task(_read(port))
        await until(lambda: len(_followed(hub)) == 1)
        await write(hub, "k", "one")

        assert b"data: one\n" in (await reading).raw


async def test_wait_for_a_stream_ends_when_the_hub_drains_or_the_client_leaves(hub: Hub) -> None:
    async with serving(app(hub, wait=60)) as port:
        leaving = asyncio.create_task(_read(port))
        await until(lambda: len(_followed(hub)) == 1)
        leaving.cancel()
        await until(lambda: not _followed(hub))

        waiting = asyncio.create_task(_read(port))
        await until(lambda: len(_followed(hub)) == 1)
        await hub.drain(0)
        reply = await waiting
        assert (reply.status, reply.ending) == (200, "cut")  # at any other status an EventSource would give up


async def _read(port: int) -> Reply:
    async with request(port, "/k") as reply:
        await reply.events()
    return reply


def _followed(hub: Hub) -> list[str]:
    """The streams that somebody reads."""
    return list(hub._core.feeds._feeds)


async def test_wait_for_a_stream_is_bounded(hub: Hub) -> None:
    loop = asyncio.get_running_loop()
    async with serving(app(hub, wait=0.3)) as port:
        begun = loop.time()
        async with request(port, "/k") as reply:
            assert reply.status == 204
        assert 0.3 <= loop.time() - begun < 1.5


# --- cut off


async def test_drain_cuts_readers_off_and_they_resume_elsewhere(hub: Hub, place: str) -> None:
    async with Hub.from_url(place) as other, hub.produce("k") as producer:
        async with serving(app(other)) as port, serving(app(hub)) as elsewhere:
            await producer.send("one")
            async with request(port, "/k") as reply:
                assert (await reply.event()).data == b"one"
                await other.drain(0)
                assert await reply.events() == []
                assert reply.ending == "cut"
            async with request(port, "/k", headers={"Last-Event-ID": reply.last_id}) as again:
                assert again.status == 200  # at any other status an EventSource would give up
                assert await again.events() == []
                assert (again.ending, again.last_id) == ("cut", "")
            await producer.send("two")
            async with request(elsewhere, "/k", headers={"Last-Event-ID": reply.last_id}) as further:
                assert (await further.event()).data == b"two"


async def test_closed_hub_cuts_readers_off(place: str) -> None:
    async with Hub.from_url(place) as other, other.produce("k"), Hub.from_url(place) as hub, serving(app(hub)) as port:
        async with request(port, "/k") as reply:
            await reply.piece()
            await hub.aclose()
            assert await reply.events() == []
            assert reply.ending == "cut"


async def test_lost_backend_cuts_readers_off() -> None:
    with started(servers.redis_binary("8.2")) as redis:
        settings = HubSettings(outage_seconds=0.3, poll_seconds=0.2)
        async with Hub.from_url(redis.url, settings=settings) as hub, serving(app(hub)) as port:
            await hub.start("k", _endless, run="r")
            async with request(port, "/k") as reply:
                assert (await reply.event()).data == b"begun"
                redis.stop()
                assert await reply.events() == []
                assert reply.ending == "cut"
            async with request(port, "/k", headers={"Last-Event-ID": reply.last_id}) as again:
                assert (again.status, await again.events(), again.ending) == (200, [], "cut")


async def test_reader_of_a_dead_producers_run_is_told_and_cut_off(hub: Hub, place: str) -> None:
    settings = HubSettings(lease_seconds=1, on_interrupt="handover")
    async with serving(app(hub)) as port:
        async with Hub.from_url(place, settings=settings) as dead:
            await dead.start("k", _endless, run="r")
            async with dead.subscribe("k") as subscription:
                await anext(subscription)
            await dead.drain(0)
        async with request(port, "/k") as reply:
            events = await reply.events()

    assert (texts(events), named(events)) == (["begun"], [("abandoned", {})])
    assert reply.ending == "cut"
    assert reply.last_id.endswith("-1")  # whoever takes the run over goes on from here


async def test_frozen_client_is_cut_off_and_holds_nothing(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(app(hub, send_timeout_seconds=0.5), send_buffer=4096, log_level="info") as port:
        async with hub.produce("k") as producer, request(port, "/k", receive_buffer=4096) as reply:
            reply.reader._transport.pause_reading()
            for _ in range(64):
                await producer.send("x" * 65536)
                await producer.flush()
            assert _accepted(port)
            await until(lambda: "read nothing for 0.5 s" in caplog.text)
            await until(lambda: not _accepted(port))
            assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("streamhub disconnect")]


async def _pass_on(req: Request, call_next: Any) -> Any:
    return await call_next(req)


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "behind middleware"])
@pytest.mark.parametrize("kilobytes", [8, 64], ids=["what the server has taken", "what it has not taken"])
async def test_shutdown_does_not_wait_for_a_client_that_does_not_read(
    hub: Hub, place: str, kilobytes: int, wrapped: bool
) -> None:
    served = BaseHTTPMiddleware(app(hub), dispatch=_pass_on) if wrapped else app(hub)
    async with AsyncExitStack() as clients, Hub.from_url(place) as other, other.produce("k") as producer:
        async with asyncio.timeout(10), serving(served, send_buffer=4096, timeout_graceful_shutdown=None) as port:
            reply = await clients.enter_async_context(request(port, "/k", receive_buffer=4096))
            reply.reader._transport.pause_reading()
            for _ in range(4):
                await producer.send("x" * kilobytes * 1024)
                await producer.flush()
            await hub.drain(0)
        # The server has stopped, though the client is still connected.


def _accepted(port: int) -> list[asyncio.BaseTransport]:
    """The connections that the server at this port still holds."""
    handles = [
        handle for key in asyncio.get_running_loop()._selector.get_map().values() for handle in key.data if handle
    ]
    transports = {getattr(handle._callback, "__self__", None) for handle in handles}
    found = [each for each in transports if isinstance(each, asyncio.Transport)]
    return [each for each in found if each.get_extra_info("sockname")[1] == port]


async def test_slow_client_gets_everything_and_slows_nobody_down(hub: Hub) -> None:
    size, count = 65536, 40
    async with serving(app(hub, send_timeout_seconds=5), send_buffer=4096) as port:
        async with hub.produce("k") as producer, request(port, "/k", receive_buffer=4096) as slow:
            slow.reader._transport.pause_reading()
            async with request(port, "/k") as fast:
                for _ in range(count):
                    await producer.send("x" * size)
                for _ in range(count):
                    assert len((await fast.event()).data) == size  # while the slow one has not read at all
            slow.reader._transport.resume_reading()
            for _ in range(count):
                assert len((await slow.event()).data) == size


async def test_client_that_leaves_takes_its_subscription_along(hub: Hub) -> None:
    async with hub.produce("k"), serving(app(hub)) as port:
        async with request(port, "/k") as reply:
            await reply.piece()
            assert _followed(hub)
        await until(lambda: not _followed(hub))


async def test_response_whose_task_is_cancelled_is_cut_off_and_leaves_nothing(hub: Hub) -> None:
    async with hub.produce("k") as producer, AsyncExitStack() as clients:
        await producer.send("one")
        async with serving(app(hub), timeout_graceful_shutdown=0) as port:  # it cancels what still runs
            reply = await clients.enter_async_context(request(port, "/k"))
            assert (await reply.event()).data == b"one"
        assert await reply.events() == []
        assert reply.ending == "cut"
        await until(lambda: not _followed(hub))
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("streamhub disconnect")]


async def test_run_cut_off_at_any_byte_is_resumed_without_gap_or_duplicate(hub: Hub) -> None:
    await write(hub, "k", "one", "two\nlines", "", "four")
    async with serving(app(hub)) as port:
        async with request(port, "/k") as reply:
            whole = await reply.events()
        for cut in range(len(reply.raw)):
            parser = Parser()
            head = list(parser.feed(reply.raw[:cut]))
            async with request(port, "/k", headers={"Last-Event-ID": parser.last_id.decode()}) as further:
                tail = await further.events() if further.status == 200 else []
            assert head + tail == whole, cut


async def test_silence_is_broken_by_comments(hub: Hub) -> None:
    async with hub.produce("k") as producer, serving(app(hub, ping_seconds=0.05)) as port:
        async with request(port, "/k") as reply:
            while reply.raw.count(b": ping\n") < 3:
                await reply.piece()
            await producer.send("one")
            list(reply.parser.feed(reply.raw))
            assert (await reply.event()).data == b"one"


async def test_head_opens_no_stream(hub: Hub) -> None:
    async with hub.produce("k"), serving(app(hub)) as port, request(port, "/k", method="HEAD") as reply:
        assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert not _followed(hub)


# --- payloads


@pytest.mark.parametrize("text", ["a\rb", "a\r\nb\n", "\n\n", "data: x\n\nid: 9-9\n\n", "\0\ufeff", "ü 🎉", ""])
async def test_json_payload_keeps_every_character(hub: Hub, text: str) -> None:
    await write(hub, "k", text)

    async with serving(app(hub, format=PlainFormat("json"))) as port, request(port, "/k") as reply:
        events = await reply.events()

    assert [json.loads(data) for data in texts(events)] == [text]
    assert len(events) == 2


async def test_bytes_travel_as_base64_and_are_refused_as_text(hub: Hub) -> None:
    offsets = await write(hub, "k", "fine", b"\xff\0")

    async with serving(app(hub, format=PlainFormat("base64"))) as port, request(port, "/k") as reply:
        assert texts(await reply.events()) == ["ZmluZQ==", "/wA="]
    for payload in ("text", "json"):
        async with serving(app(hub, format=PlainFormat(payload))) as port:
            async with request(port, "/k", headers={"Last-Event-ID": offsets[0]}) as reply:
                assert named(await reply.events()) == [("gone", {"reason": "unreadable"})]
                assert reply.ending == "clean"


async def test_abort_is_no_traceback_in_the_servers_log(place: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    hub = Hub.from_url(place)
    async with hub.lifespan(), serving(app(hub), log_level="info") as port:
        await hub.start("k", _endless, run="r")
        async with request(port, "/k") as reply:
            await reply.piece()
            await hub.drain(0)
            await reply.events()
        await until(lambda: "cut off" in caplog.text)

    assert "Traceback" not in caplog.text
    assert [record.levelname for record in caplog.records if "cut off" in record.getMessage()] == ["INFO"]
