"""Real clients against two instances on one backend: cut off, stopped, reloaded, taken over.

Each test goes through a proxy that stands for a load balancer: it can reset connections and turn to the other instance.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import servers
from cluster import ChatCluster, cluster
from http_client import request
from node_clients import Client, client, install
from starlette.applications import Starlette
from web_server import serving, until

from streamhub import Hub, Producer
from streamhub.web import Answer, sse_routes
from streamhub.web.aisdk import chat_routes

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    install()


@pytest.fixture(params=["sqlite", "redis"])
async def both(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ChatCluster]:
    """The instances on each backend."""
    options = "lease_seconds=1&poll_seconds=0.3&abandon_after_seconds=5&drain_seconds=2"
    if request.param == "sqlite":
        place = f"sqlite:///{tmp_path}/streams.db?{options}"
    else:
        place = f"{servers.any_redis_server('8.2').url}?{options}&prefix={tmp_path.name}"
    async with cluster(place, tmp_path) as running:
        yield running


@pytest.fixture
async def chat() -> AsyncIterator[Client]:
    async with client("use_chat.mjs") as running:
        yield running


@pytest.fixture
async def sources() -> AsyncIterator[Client]:
    async with client("event_sources.mjs") as running:
        yield running


def text(count: int) -> str:
    return "".join(f"word-{number} " for number in range(count))


def answers(state: Any) -> list[dict[str, Any]]:
    return [message for message in state["messages"] if message["role"] == "assistant"]


def shows(count: int) -> Any:
    """Say whether a page shows at least so many words of one answer."""
    return lambda state: len(answers(state)) == 1 and answers(state)[0]["text"].count(" ") >= count


def ready(state: Any) -> bool:
    return state["status"] == "ready" and bool(answers(state))


# --- useChat


async def test_chat_streams_an_answer_under_a_stable_id(both: ChatCluster, chat: Client) -> None:
    await chat.call("mount", page="a", api=f"{both.url}/api/chat", id="c")
    await chat.call("send", page="a", text="20 words, 5 ms", id="m1")
    state = await chat.until(ready, page="a")

    assert [message["text"] for message in state["messages"]] == ["20 words, 5 ms", text(20)]
    assert answers(state)[0]["id"] == "chat:c:m1"
    assert answers(state)[0]["states"] == ["done"]
    assert state["statuses"] == ["ready", "submitted", "streaming", "ready"]
    assert state["errors"] == []
    assert both.calls == ["chat:c m1 0"]


@pytest.mark.parametrize("tail", [False, True])
async def test_chat_cut_off_resumes_on_the_other_instance_with_equal_text(
    both: ChatCluster, chat: Client, tail: bool
) -> None:
    await chat.call("mount", page="a", api=f"{both.url}/api/chat", id="c", tail=tail)
    await chat.call("send", page="a", text="60 words, 20 ms")
    await chat.until(shows(10), page="a")
    both.cut_to(1)
    await chat.until(lambda state: state["status"] == "error", page="a")
    await chat.call("resume", page="a")
    state = await chat.until(ready, page="a")

    assert [each["text"] for each in answers(state)] == [text(60)]
    assert len(both.calls) == 1
    method, status, cursor = state["requests"][-1]
    assert (method, status, cursor is not None) == ("GET", 200, tail)


async def test_chat_reloaded_mid_answer_and_after_the_end_shows_the_message_once(
    both: ChatCluster, chat: Client
) -> None:
    question = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "60 words, 20 ms"}]}
    await chat.call("mount", page="a", api=f"{both.url}/api/chat", id="c")
    await chat.call("send", page="a", text="60 words, 20 ms", id="m1")
    half = await chat.until(shows(10), page="a")
    await chat.call("unmount", page="a")
    both.turn_to(1)
    await chat.call("mount", page="b", api=f"{both.url}/api/chat", id="c", resume=True, messages=[question])
    state = await chat.until(ready, page="b")
    assert [each["text"] for each in answers(state)] == [text(60)]
    assert answers(state)[0]["id"] == answers(half)[0]["id"]

    kept = {**question, "id": "chat:c:m1", "role": "assistant", "parts": [{"type": "text", "text": text(60)}]}
    await chat.call("mount", page="c", api=f"{both.url}/api/chat", id="c", resume=True, messages=[question, kept])
    state = await chat.until(lambda state: state["finished"] and ready(state), page="c")
    assert [each["text"] for each in answers(state)] == [text(60)]
    assert state["requests"] == [["GET", 200, None]]


async def test_answer_finished_while_the_page_was_offline_is_not_missing(both: ChatCluster, chat: Client) -> None:
    await chat.call("mount", page="a", api=f"{both.url}/api/chat", id="c", tail=True)
    await chat.call("send", page="a", text="30 words, 20 ms", id="m1")
    await chat.until(shows(5), page="a")
    both.proxy.refuse()
    await chat.until(lambda state: state["status"] == "error", page="a")
    await until(lambda: _ended(both.ports[1], "chat:c"))
    both.proxy.heal()
    both.turn_to(1)
    await chat.call("resume", page="a")
    state = await chat.until(ready, page="a")

    assert [each["text"] for each in answers(state)] == [text(30)]


async def _ended(port: int, key: str) -> bool:
    async with request(port, f"/s/{key}/info") as reply:
        return json.loads(await reply.body())["state"] == "ended"


async def test_message_sent_twice_to_two_instances_is_answered_once(both: ChatCluster, chat: Client) -> None:
    for page, port in zip("ab", both.ports, strict=True):
        await chat.call("mount", page=page, api=f"http://127.0.0.1:{port}/api/chat", id="c")
    await asyncio.gather(*(chat.call("send", page=page, text="20 words, 10 ms", id="m1") for page in "ab"))
    states = [await chat.until(ready, page=page) for page in "ab"]

    assert [[each["text"] for each in answers(state)] for state in states] == [[text(20)]] * 2
    assert answers(states[0])[0]["id"] == answers(states[1])[0]["id"]
    assert both.calls == ["chat:c m1 0"]


async def test_stop_on_one_instance_ends_the_answer_on_the_other_and_every_viewer(
    both: ChatCluster, chat: Client
) -> None:
    api = [f"http://127.0.0.1:{port}/api/chat" for port in both.ports]
    await chat.call("mount", page="a", api=api[0], id="c")
    await chat.call("send", page="a", text="500 words, 20 ms", id="m1")
    await chat.until(shows(5), page="a")
    question = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "500 words, 20 ms"}]}
    await chat.call("mount", page="b", api=api[1], id="c", resume=True, messages=[question])
    await chat.until(shows(5), page="b")

    headers = {"Content-Type": "application/json"}
    stale = request(both.ports[1], "/api/chat/c/stop", method="POST", headers=headers, body=b'{"activeStreamId": "m0"}')
    async with stale as reply:
        assert reply.status == 409
    current = b'{"activeStreamId": "chat:c:m1"}'
    async with request(both.ports[1], "/api/chat/c/stop", method="POST", headers=headers, body=current) as reply:
        assert json.loads(await reply.body())["state"] == "cancelled"

    states = [await chat.until(ready, page=page) for page in "ab"]
    assert answers(states[0])[0]["text"] == answers(states[1])[0]["text"]
    assert 5 <= answers(states[0])[0]["text"].count(" ") < 500
    assert [answers(state)[0]["states"] for state in states] == [["done"]] * 2
    assert [state["errors"] for state in states] == [[], []]


async def test_killed_instances_answer_is_taken_over_and_the_reader_goes_on(both: ChatCluster, chat: Client) -> None:
    await chat.call("mount", page="a", api=f"{both.url}/api/chat", id="c")
    await chat.call("send", page="a", text="80 words, 20 ms", id="m1")
    await chat.until(shows(10), page="a")
    both.turn_to(1)
    both.kill(0)
    await chat.until(lambda state: state["status"] == "error", page="a")
    await chat.call("resume", page="a")
    state = await chat.until(ready, page="a")

    assert [each["text"] for each in answers(state)] == [text(80)]
    assert len(both.calls) == 2
    assert int(both.calls[1].split()[-1]) > 0  # it went on, and did not begin anew


async def test_answer_is_replayed_for_a_while_and_then_not(tmp_path: Path, chat: Client) -> None:
    async with cluster(f"sqlite:///{tmp_path}/streams.db", tmp_path, LINGER="1") as running:
        await chat.call("mount", page="a", api=f"{running.url}/api/chat", id="c", tail=True)
        await chat.call("send", page="a", text="3 words, 1 ms", id="m1")
        await chat.until(ready, page="a")

        async def is_over() -> bool:
            async with request(running.ports[1], "/api/chat/c/stream") as reply:
                return reply.status == 204

        async with request(running.ports[1], "/api/chat/c/stream") as reply:
            assert reply.status == 200
            events = await reply.events()
        await until(is_over)
        cursor = {"Last-Event-ID": events[1].id.decode()}
        async with request(running.ports[1], "/api/chat/c/stream", headers=cursor) as reply:
            assert [event.data for event in await reply.events()] == [event.data for event in events[2:]]
        # Asked the same again, nobody calls a model.
        await chat.call("mount", page="b", api=f"{running.url}/api/chat", id="c")
        await chat.call("send", page="b", text="3 words, 1 ms", id="m1")
        state = await chat.until(ready, page="b")
        assert [each["text"] for each in answers(state)] == [text(3)]
        assert len(running.calls) == 1


# --- plain events


async def begin(running: ChatCluster, prompt: str, run: str = "r") -> None:
    """Start a plain run on the first instance, and leave it."""
    headers = {"Content-Type": "application/json", "X-Run-Id": run}
    body = json.dumps({"prompt": prompt}).encode()
    async with request(running.ports[0], "/s/k", method="POST", headers=headers, body=body) as reply:
        assert await reply.event()


async def test_event_source_resumes_by_itself_and_stops_at_the_end(both: ChatCluster, sources: Client) -> None:
    await begin(both, "250 words, 20 ms")
    await sources.call("eventsource", reader="a", url=f"{both.url}/s/k")
    for instance in (1, 0):
        seen = len((await sources.call("state", reader="a"))["texts"])
        await sources.until(lambda state, seen=seen: len(state["texts"]) >= seen + 10, reader="a")
        both.cut_to(instance)
    state = await sources.until(lambda state: state["readyState"] == 2, reader="a")

    assert "".join(map(json.loads, state["texts"])) == text(250)
    assert state["named"] == [["end", {"state": "completed"}]]
    assert state["connections"] == 3


async def test_fetch_event_source_repeats_its_post_and_starts_nothing(both: ChatCluster, sources: Client) -> None:
    headers = {"Content-Type": "application/json", "X-Run-Id": "r"}
    body = json.dumps({"prompt": "60 words, 20 ms"})
    await sources.call("fetch", reader="a", url=f"{both.url}/s/k", method="POST", headers=headers, body=body)
    await sources.until(lambda state: len(state["texts"]) >= 10, reader="a")
    both.cut_to(1)
    state = await sources.until(lambda state: state["done"], reader="a")

    assert "".join(map(json.loads, state["texts"])) == text(60)
    assert state["named"] == [["end", {"state": "completed"}]]
    assert (state["errors"], state["connections"], both.calls) == (1, 2, ["k r"])


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)


@asynccontextmanager
async def cutting_first(port: int, last: bytes) -> AsyncIterator[int]:
    """Relay to a port; the first connection ends behind what matches the pattern, at the start of a line."""
    relayed: list[int] = []

    async def relay(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        relayed.append(len(relayed))
        cut = len(relayed) == 1
        server, to_server = await asyncio.open_connection("127.0.0.1", port)
        asking = asyncio.create_task(_pass_on(client, to_server))
        while line := await server.readline():
            found = re.match(last, line) if cut else None
            to_client.write(line[: found.end()] if found else line)
            if found:
                break
        to_client.close()
        asking.cancel()
        to_server.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


@pytest.mark.parametrize("kind", ["eventsource", "fetch"])
async def test_event_cut_off_between_its_lines_is_not_missed(hub: Hub, sources: Client, kind: str) -> None:
    async with hub.produce("k") as producer:
        for word in ("one", "two", "three"):
            await producer.send(word)
    async with serving(Starlette(routes=sse_routes(hub, authorize=None))) as port:
        async with request(port, "/k", headers={"Accept": "text/event-stream"}) as reply:
            await reply.events()
        *_, event, _, _ = reply.raw.split(b"\n\n")
        async with cutting_first(port, re.escape(event.splitlines()[0]) + b"\n") as cutting:
            await sources.call(kind, reader="a", url=f"http://127.0.0.1:{cutting}/k")
            state = await sources.until(lambda state: state["named"], reader="a")

    assert state["texts"] == ["one", "two", "three"]
    assert state["connections"] == 2


async def test_chat_cut_off_within_an_id_resumes_its_tail_with_equal_text(hub: Hub, chat: Client) -> None:
    async def say(producer: Producer) -> AsyncIterator[str]:
        for number in range(30):
            yield f"word-{number} "
            await asyncio.sleep(0.01)

    routes = chat_routes(hub, lambda chat: Answer(source=say), authorize=None)
    async with serving(Starlette(routes=routes)) as port, cutting_first(port, rb"id: \d+-1(?=2\n)") as cutting:
        await chat.call("mount", page="a", api=f"http://127.0.0.1:{cutting}/api/chat", id="c", tail=True)
        await chat.call("send", page="a", text="hi", id="m1")
        await chat.until(lambda state: state["status"] == "error", page="a")
        await chat.call("resume", page="a")
        state = await chat.until(ready, page="a")

    assert [each["text"] for each in answers(state)] == [text(30)]
    assert state["requests"][-1][2].endswith("-11")


async def test_event_sources_are_told_of_a_cancel_and_of_a_dead_producer(both: ChatCluster, sources: Client) -> None:
    await begin(both, "900 words, 20 ms")
    await sources.call("eventsource", reader="a", url=f"http://127.0.0.1:{both.ports[1]}/s/k")
    await sources.call("fetch", reader="b", url=f"http://127.0.0.1:{both.ports[1]}/s/k", method="POST",
                       headers={"Last-Event-ID": "1-0"})  # fmt: skip
    for reader in "ab":
        await sources.until(lambda state: len(state["texts"]) >= 3, reader=reader)
    headers = {"Content-Type": "application/json"}
    body = b'{"run": "r", "reason": "enough"}'
    async with request(both.ports[1], "/s/k/cancel", method="POST", headers=headers, body=body) as reply:
        assert json.loads(await reply.body())["state"] == "cancelled"
    ended = ["end", {"state": "cancelled", "reason": "enough"}]
    first = await sources.until(lambda state: state["readyState"] == 2, reader="a")
    second = await sources.until(lambda state: state["done"], reader="b")
    assert first["named"][-1] == second["named"][-1] == ended
    assert first["texts"] == second["texts"]

    await begin(both, "900 words, 20 ms", run="second")
    await sources.call("eventsource", reader="c", url=f"http://127.0.0.1:{both.ports[1]}/s/k?run=second")
    await sources.until(lambda state: state["texts"], reader="c")
    both.kill(0)
    await sources.until(lambda state: ["abandoned", {}] in state["named"], reader="c")
    await sources.call("close", reader="c")


async def test_tanstack_client_resumes_its_post_on_the_other_instance(both: ChatCluster) -> None:
    async with client("tanstack.mjs") as tanstack:
        await tanstack.call("open", client="a", url=f"{both.url}/s/k")
        await tanstack.call("send", client="a", text="60 words, 20 ms")
        await tanstack.until(shows(10), client="a")
        both.cut_to(1)
        state = await tanstack.until(lambda state: state["status"] == "ready" and shows(60)(state), client="a")

        assert [each["text"] for each in answers(state)] == [text(60)]
        assert state["errors"] == []
        assert [(method, status) for method, status, _ in state["requests"]] == [("POST", 200)] * 2
        assert [cursor is None for *_, cursor in state["requests"]] == [True, False]
        assert len(both.calls) == 1
