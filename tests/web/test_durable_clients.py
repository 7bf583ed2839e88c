"""The official TypeScript and Python clients of the Durable Streams protocol, against two instances on one backend.

What a test pins as a client's own is told in docs/durable-clients.md: it fails once a newer client does better.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cluster import Cluster, balanced
from durable_instances import both, durable_instances, shared_instances
from durable_streams import AsyncDurableStream, DurableStream, DurableStreamError, SeqConflictError, astream
from durable_streams import stream as blocking_stream
from node_clients import DURABLE, Client, client, install
from web_server import until

__all__ = ["both", "shared_instances"]  # fixtures

pytestmark = pytest.mark.timeout(120)

JSON, TEXT, BYTES = "application/json", "text/plain", "application/octet-stream"
TYPES = {"json": JSON, "text": TEXT, "bytes": BYTES}
LIVE = ["sse", "long-poll"]


@pytest.fixture
async def typescript() -> AsyncIterator[Client]:
    install(DURABLE)
    async with client("streams.mjs", DURABLE) as running:
        yield running


@asynccontextmanager
async def fresh(folder: Path, **variables: str) -> AsyncIterator[Cluster]:
    """Run instances that no other test sees."""
    with durable_instances("sqlite", folder, **variables) as running:
        async with balanced(*running) as both:
            yield both


async def created(typescript: Client, url: str, kind: str = "json", **options: Any) -> None:
    """Make a stream."""
    made = await typescript.call("create", url=url, contentType=TYPES[kind], **options)
    assert "failure" not in made


async def read(typescript: Client, url: str, kind: str = "json", offset: str = "-1") -> dict[str, Any]:
    """Return everything behind an offset."""
    return (await typescript.call("read", url=url, kind=kind, offset=offset))["value"]


def element(kind: str, number: int) -> Any:
    """Return what an append adds, as a reader is to get it."""
    if kind == "json":
        return {"number": number, "text": "ä\r\n\u2028"}
    return f"{number}: ä\n\nb\n" if kind == "text" else bytes(range(256)) + number.to_bytes(4)


async def append(typescript: Client, url: str, kind: str, number: int) -> dict[str, Any]:
    """Append one."""
    value = element(kind, number)
    if kind == "bytes":
        given = {"binary": base64.b64encode(value).decode()}
    else:
        given = {"text": value if kind == "text" else httpx.Response(200, json=value).text}
    done = await typescript.call("append", url=url, contentType=TYPES[kind], **given)
    assert "failure" not in done, done
    return done


def whole(kind: str, items: list[Any]) -> Any:
    """Put together what came in pieces: boundaries mean something in JSON alone."""
    if kind == "json":
        return items
    return "".join(items) if kind == "text" else b"".join(base64.b64decode(item) for item in items)


def expected(kind: str, count: int) -> Any:
    elements = [element(kind, number) for number in range(count)]
    return elements if kind == "json" else element(kind, 0)[:0].join(elements)


def has(kind: str, count: int) -> Any:
    """Say whether a reader has got so many."""
    return lambda state: len(whole(kind, state["items"])) >= len(expected(kind, count))


# --- the TypeScript client


@pytest.mark.parametrize("kind", TYPES)
async def test_typescript_client_writes_on_one_instance_and_reads_on_the_other(
    both: Cluster, typescript: Client, kind: str
) -> None:
    one, other = (f"{both.instance(number)}/a/b" for number in range(2))
    await created(typescript, one, kind)
    for number in range(3):
        await append(typescript, (one, other)[number % 2], kind, number)
    head = (await typescript.call("head", url=other))["value"]
    found = await read(typescript, other, kind)

    assert (head["exists"], head["contentType"], head["streamClosed"]) == (True, TYPES[kind], False)
    items = found["items"] if kind == "json" else [found["items"]]
    assert whole(kind, items) == expected(kind, 3)
    assert (found["offset"], found["closed"]) == (head["offset"], False)
    again = (await read(typescript, one, kind, found["offset"]))["items"]
    assert not again
    await typescript.call("delete", url=one)
    assert (await typescript.call("head", url=other))["value"] == {"exists": False}
    assert (await typescript.call("append", url=other, contentType=TYPES[kind], text="1"))["failure"]["status"] == 404


async def test_typescript_client_sends_what_waits_as_one_request(both: Cluster, typescript: Client) -> None:
    url = f"{both.url}/s"
    await created(typescript, url)
    texts = [str(number) for number in range(200)]
    requests = await typescript.call("appendAll", url=url, contentType=JSON, texts=texts)

    assert (await read(typescript, url))["items"] == list(range(200))
    assert requests == 2  # the first, and all that came while it was under way


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("mode", LIVE)
async def test_typescript_reader_follows_the_other_instance_to_the_end(
    both: Cluster, typescript: Client, kind: str, mode: str
) -> None:
    one, other = (f"{both.instance(number)}/s" for number in range(2))
    await created(typescript, one, kind)
    await append(typescript, one, kind, 0)
    await typescript.call("follow", reader="r", url=other, kind=kind, live=mode)
    await typescript.until(has(kind, 1), reader="r")
    for number in range(1, 5):
        await append(typescript, one, kind, number)
    await typescript.until(has(kind, 5), reader="r")
    closed = await typescript.call("close", url=one, contentType=TYPES[kind])
    state = await typescript.until(lambda state: state["closed"], reader="r")

    assert whole(kind, state["items"]) == expected(kind, 5)
    assert (state["error"], state["streamClosed"]) == (None, True)
    assert state["offset"] == closed["value"]["finalOffset"]
    asked = [asked for _, asked, _ in state["requests"]]
    assert asked[:2] == [None, mode]


async def test_typescript_client_is_told_of_the_end_by_each_request(both: Cluster, typescript: Client) -> None:
    one, other = (f"{both.instance(number)}/s" for number in range(2))
    await created(typescript, one)
    first = await typescript.call("close", url=one, contentType=JSON, text="1")
    again = await typescript.call("close", url=other)
    late = await typescript.call("append", url=other, contentType=JSON, text="2")
    found = await read(typescript, other)

    assert again["value"] == first["value"] == {"finalOffset": found["offset"]}
    assert (late["failure"]["status"], found["items"], found["closed"]) == (409, [1], True)
    await typescript.call("follow", reader="r", url=other, kind="json", live="sse", offset=found["offset"])
    state = await typescript.until(lambda state: state["closed"], reader="r")
    assert (state["items"], state["error"]) == ([], None)


@pytest.mark.parametrize("kind", TYPES)
async def test_typescript_long_poll_goes_on_at_the_other_instance_by_itself(
    both: Cluster, typescript: Client, kind: str
) -> None:
    url = f"{both.instance(1)}/s"
    await created(typescript, url, kind)
    await typescript.call("follow", reader="r", url=f"{both.url}/s", kind=kind, live="long-poll")
    for number in range(12):
        await append(typescript, url, kind, number)
        if number % 4 == 3:
            # Nothing is on its way: a body that breaks off is an error in this mode as well.
            await typescript.until(has(kind, number + 1), reader="r")
            both.cut_to(number // 4 % 2)
    await typescript.call("close", url=url, contentType=TYPES[kind])
    state = await typescript.until(lambda state: state["closed"], reader="r")

    assert whole(kind, state["items"]) == expected(kind, 12)
    assert state["error"] is None
    assert [status for _, _, status in state["requests"]].count(0) >= 1


@pytest.mark.parametrize("kind", TYPES)
async def test_typescript_sse_ends_with_an_error_when_cut_and_resumes_where_it_was(
    both: Cluster, typescript: Client, kind: str
) -> None:
    url = f"{both.instance(1)}/s"
    await created(typescript, url, kind)
    pieces: list[Any] = []
    offset = "-1"
    for cut in range(3):
        reader = f"r{cut}"
        await typescript.call("follow", reader=reader, url=f"{both.url}/s", kind=kind, live="sse", offset=offset)
        for number in range(4 * cut, 4 * cut + 4):
            await append(typescript, url, kind, number)
        missing = len(expected(kind, 4 * cut + 4)) - len(whole(kind, pieces))
        await typescript.until(lambda state, size=missing: live(state) and len(whole(kind, state["items"])) >= size,
                               reader=reader)  # fmt: skip
        both.cut_to(cut % 2)
        # The client's own: an event stream that ends in order is opened again, one that breaks is an error.
        state = await typescript.until(lambda state: state["error"] or state["closed"], reader=reader)
        assert state["error"]["text"] == "TypeError: terminated"
        pieces += state["items"]
        offset = state["offset"]

    assert whole(kind, pieces) == expected(kind, 12)


def live(state: dict[str, Any]) -> bool:
    """Say whether a reader's event stream is open."""
    return ["GET", "sse", 200] in state["requests"]


@pytest.mark.parametrize("mode", LIVE)
async def test_typescript_reader_of_the_documents_misses_nothing_however_often_it_is_cut(
    both: Cluster, typescript: Client, mode: str
) -> None:
    url = f"{both.instance(1)}/s"
    await created(typescript, url)
    await typescript.call("tail", reader="r", url=f"{both.url}/s", live=mode)
    for number in range(100):
        await append(typescript, url, "json", number)
        if number % 20 == 13:
            await typescript.until(lambda state, number=number: len(state["items"]) > number, reader="r")
        if number % 20 == 19:
            both.cut_to(number // 20 % 2)  # wherever it is
    await typescript.call("close", url=url)
    state = await typescript.until(lambda state: state["closed"] or state["error"], reader="r")

    assert state["error"] is None
    assert state["items"] == expected("json", 100)
    assert [status for *_, status in state["requests"]].count(200) >= 6


async def test_typescript_reader_of_the_documents_fails_with_its_handler(both: Cluster, typescript: Client) -> None:
    await created(typescript, both.url, text='[{"fail": true}]')
    await typescript.call("tail", reader="r", url=both.url, live="sse")
    state = await typescript.until(lambda state: state["error"], reader="r")

    assert state["error"]["text"] == "TypeError: the handler's own"


async def test_typescript_reader_survives_a_killed_instance(tmp_path: Path, typescript: Client) -> None:
    async with fresh(tmp_path) as running:
        url = f"{running.instance(1)}/s"
        await created(typescript, url)
        await append(typescript, url, "json", 0)
        await typescript.call("follow", reader="r", url=f"{running.url}/s", kind="json", live="long-poll")
        await typescript.until(has("json", 1), reader="r")
        running.turn_to(1)
        running.kill(0)
        await append(typescript, url, "json", 1)
        state = await typescript.until(has("json", 2), reader="r")

    assert (state["items"], state["error"]) == (expected("json", 2), None)


@pytest.mark.parametrize("kind", TYPES)
async def test_typescript_event_stream_is_opened_again_when_the_server_ends_it(
    tmp_path: Path, typescript: Client, kind: str
) -> None:
    async with fresh(tmp_path, SSE_SECONDS="1.2") as running:
        url = f"{running.instance(0)}/s"
        await created(typescript, url, kind)
        await typescript.call("follow", reader="r", url=url, kind=kind, live="sse")
        number = 0

        def opened(state: Any) -> bool:
            return [asked for _, asked, _ in state["requests"]].count("sse") >= 3

        while not opened(await typescript.call("state", reader="r")):
            await append(typescript, url, kind, number)
            number += 1
            await typescript.until(has(kind, number), reader="r")
        await typescript.call("close", url=url, contentType=TYPES[kind])
        state = await typescript.until(lambda state: state["closed"], reader="r")

    assert whole(kind, state["items"]) == expected(kind, number)
    assert state["error"] is None


# --- its producer


async def produce(typescript: Client, producer: str, url: str, **options: Any) -> None:
    options = {"id": "p", "contentType": JSON, "lingerMs": 1, **options}
    await typescript.call("produce", producer=producer, url=url, **options)


def statuses(state: dict[str, Any]) -> list[int]:
    return [status for *_, status in state["requests"]]


@pytest.mark.parametrize("number", [0, 1])
async def test_producer_that_repeats_a_lost_reply_writes_once_on_either_instance(
    both: Cluster, typescript: Client, number: int
) -> None:
    url = f"{both.url}/s"
    await created(typescript, url)
    await produce(typescript, "p", url, repeat=True)
    await typescript.call("send", producer="p", batches=[["0", "1"]])
    lost = both.proxy.lose_reply(b'"marked"')
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(typescript.call("send", producer="p", batches=[["2", '"marked"'], ["4"]]))
        await lost.wait()
        both.turn_to(number)
    last = both.proxy.lose_reply(b'"last"')
    await typescript.call("finish", producer="p", text='"last"')
    assert last.is_set()
    state = await typescript.call("state", producer="p")
    found = await read(typescript, f"{both.instance(1 - number)}/s")

    assert found["items"] == [0, 1, 2, "marked", 4, "last"]
    assert found["closed"]
    assert state["errors"] == []
    assert statuses(state) == [200, 0, 204, 200, 0, 204]


async def test_producer_with_many_requests_under_way_keeps_its_order(both: Cluster, typescript: Client) -> None:
    await created(typescript, f"{both.url}/s")
    # One batch for each text, five of them at once, through a connection that is cut again and again.
    await produce(typescript, "p", f"{both.url}/s", repeat=True, maxBatchBytes=1, maxInFlight=5)
    sending = asyncio.create_task(typescript.call("pipeline", producer="p", texts=[str(each) for each in range(300)]))
    turn = 0
    while not sending.done():
        turn += 1
        both.cut_to(turn % 2)
        await asyncio.wait([sending], timeout=0.05)
    await sending
    state = await typescript.call("state", producer="p")

    assert state["errors"] == []
    assert (await read(typescript, f"{both.instance(0)}/s"))["items"] == list(range(300))
    assert 0 in statuses(state)


async def test_producer_by_itself_repeats_nothing_and_tells_its_error_handler_alone(
    both: Cluster, typescript: Client
) -> None:
    url = f"{both.url}/s"
    await created(typescript, url)
    await produce(typescript, "p", url)
    both.proxy.lose_reply(b'"marked"')
    sent = await typescript.call("send", producer="p", batches=[["1"], ['"marked"'], ["2"]])
    state = await typescript.call("state", producer="p")

    assert sent == {"value": None}  # the client's own: flush() succeeds
    assert [error["text"] for error in state["errors"]] == ["TypeError: fetch failed"]
    assert statuses(state) == [200, 0, 200]
    assert (await read(typescript, url))["items"] == [1, "marked", 2]


async def test_plain_append_is_repeated_by_the_client_and_stored_twice(both: Cluster, typescript: Client) -> None:
    url = f"{both.url}/s"
    await created(typescript, url)
    both.proxy.lose_reply(b'"marked"')
    done = await typescript.call("append", url=url, contentType=JSON, text='"marked"')

    assert statuses(done) == [0, 204]
    assert (await read(typescript, url))["items"] == ["marked", "marked"]  # the client's own


async def test_close_with_a_text_is_repeated_too_and_fails_though_it_was_done(
    both: Cluster, typescript: Client
) -> None:
    url = f"{both.url}/s"
    await created(typescript, url)
    both.proxy.lose_reply(b'"marked"')
    done = await typescript.call("close", url=url, contentType=JSON, text='"marked"')
    found = await read(typescript, url)

    assert done["failure"]["status"] == 409  # the client's own
    assert (found["items"], found["closed"]) == (["marked"], True)


async def test_zombie_producer_is_refused_on_both_instances_and_a_claim_takes_over(
    both: Cluster, typescript: Client
) -> None:
    one, other = (f"{both.instance(number)}/s" for number in range(2))
    await created(typescript, one)
    for name, url, epoch in (("old", one, 0), ("new", other, 1), ("zombie", other, 0)):
        await produce(typescript, name, url, epoch=epoch)
    for name in ("old", "new", "old", "zombie", "new"):
        await typescript.call("send", producer=name, batches=[[f'"{name}"']])
    errors = {
        name: [(error["name"], error["currentEpoch"]) for error in state["errors"]]
        for name in ("old", "new", "zombie")
        for state in [await typescript.call("state", producer=name)]
    }
    await produce(typescript, "claims", one, autoClaim=True)
    await typescript.call("send", producer="claims", batches=[['"claims"']])
    await typescript.call("send", producer="new", batches=[['"new"']])
    claimed = await typescript.call("state", producer="claims")
    replaced = await typescript.call("state", producer="new")

    stale = ("StaleEpochError", 1)
    assert errors == {"old": [stale], "new": [], "zombie": [stale]}
    assert (claimed["epoch"], claimed["errors"]) == (2, [])
    assert [error["currentEpoch"] for error in replaced["errors"]] == [2]
    assert (await read(typescript, other))["items"] == ["old", "new", "new", "claims"]


# --- the Python client


@asynccontextmanager
async def stream(url: str, kind: str = "json") -> AsyncIterator[AsyncDurableStream]:
    """Make a stream with the Python client."""
    async with await AsyncDurableStream.create(url, content_type=TYPES[kind]) as handle:
        yield handle


async def close(url: str) -> None:
    """Close a stream; this client cannot."""
    async with httpx.AsyncClient() as http:
        reply = await http.post(url, headers={"Stream-Closed": "true"})
    assert reply.status_code in (200, 204)


@pytest.mark.parametrize("kind", TYPES)
async def test_python_client_writes_on_one_instance_and_reads_on_the_other(both: Cluster, kind: str) -> None:
    one, other = (f"{both.instance(number)}/s" for number in range(2))
    async with stream(one, kind) as handle:
        results = await asyncio.gather(*(handle.append(element(kind, number)) for number in range(50)))
        head = await handle.head()
    async with astream(other, live=False) as reply:
        found = await {"json": reply.read_json, "text": reply.read_text, "bytes": reply.read_bytes}[kind]()
        offset = reply.offset
    async with AsyncDurableStream(other) as handle:
        await handle.delete()

    assert found == expected(kind, 50)
    assert (head.content_type, head.offset) == (TYPES[kind], offset)
    assert max(result.next_offset for result in results) == offset
    assert len({result.next_offset for result in results}) == 2  # it batches as the other client does


async def test_python_client_that_blocks_writes_and_follows_as_the_other(both: Cluster) -> None:
    one, other = (f"{both.instance(number)}/s" for number in range(2))

    def write() -> None:
        with DurableStream.create(one, content_type=JSON) as handle:
            for number in range(3):
                handle.append(element("json", number), seq=f"{number}")
            with pytest.raises(SeqConflictError):
                handle.append(0, seq="1")

    def follow() -> list[Any]:
        with blocking_stream(other, offset="-1", live="sse") as reply:
            return list(reply.iter_json())

    def write_late() -> None:
        with DurableStream(other, content_type=JSON) as handle, pytest.raises(SeqConflictError):  # the client's own
            handle.append(0)

    await asyncio.to_thread(write)
    following = asyncio.create_task(asyncio.to_thread(follow))
    await close(one)

    assert await following == expected("json", 3)
    await asyncio.to_thread(write_late)


@pytest.mark.parametrize("live", LIVE)
async def test_python_reader_is_cut_off_and_resumes_at_the_other_instance(both: Cluster, live: Any) -> None:
    found: list[Any] = []
    offset = "-1"
    async with stream(f"{both.instance(1)}/s") as writer:
        for cut in range(4):
            # What it is given while nobody reads must come too.
            for number in range(5):
                await writer.append(element("json", 10 * cut + number))
            async with astream(f"{both.url}/s", offset=offset, live=live) as reply:
                events = reply.iter_events(mode="json_batches")
                while len(found) < 10 * cut + 5:
                    event = await anext(events)
                    found += event.data
                    offset = event.next_offset
                for number in range(5, 10):
                    await writer.append(element("json", 10 * cut + number))
                while len(found) < 10 * cut + 10:
                    event = await anext(events)
                    found += event.data
                    offset = event.next_offset
                both.cut_to(cut % 2)
                if live == "sse":
                    with pytest.raises(httpx.TransportError):
                        await anext(events)

    assert found == expected("json", 40)


@pytest.mark.parametrize("kind", ["json", "text"])
async def test_python_event_stream_ends_with_the_stream(both: Cluster, kind: str) -> None:
    url = f"{both.instance(0)}/s"
    async with stream(url, kind) as writer:
        await writer.append(element(kind, 0))
        async with astream(f"{both.instance(1)}/s", offset="-1", live="sse") as reply:
            found = []
            async for item in reply.iter_json() if kind == "json" else reply.iter_text():
                found.append(item)
                if len(found) == 1:
                    await writer.append(element(kind, 1))
                    await close(url)

    assert (found if kind == "json" else "".join(found)) == expected(kind, 2)


@pytest.mark.parametrize("live", LIVE)
async def test_python_live_reader_must_name_the_start(both: Cluster, live: Any) -> None:
    url = f"{both.instance(0)}/s"
    async with stream(url):
        with pytest.raises(DurableStreamError) as refused:  # the client's own: it leaves the offset away
            await astream(url, live=live).__aenter__()

    assert refused.value.status == 400


async def test_python_long_poll_of_a_closed_stream_never_ends(both: Cluster) -> None:
    url = f"{both.instance(0)}/s"
    ended: list[int] = []

    async def note(response: httpx.Response) -> None:
        if "stream-closed" in response.headers:
            ended.append(response.status_code)

    async with stream(url) as writer:
        await writer.append(1)
    await close(url)
    async with httpx.AsyncClient(event_hooks={"response": [note]}) as http:
        async with astream(url, offset="-1", live="long-poll", client=http) as reply:
            items = reply.iter_json()
            assert await anext(items) == 1
            # The client's own: it does not know Stream-Closed, and asks again as fast as it is answered.
            asking = asyncio.ensure_future(anext(items))
            await until(lambda: len(ended) >= 10 or asking.done())
            assert not asking.done()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    assert set(ended[1:]) == {204}


async def test_python_reader_with_live_true_asks_without_waiting(both: Cluster) -> None:
    url = f"{both.instance(0)}/s"
    asked: list[str] = []

    async def note(request: httpx.Request) -> None:
        asked.append(request.url.params.get("live", ""))

    async with stream(url):
        async with (
            httpx.AsyncClient(event_hooks={"request": [note]}) as http,
            astream(url, live=True, client=http) as reply,
        ):
            asking = asyncio.ensure_future(anext(reply.iter_json()))
            # The client's own: "auto" is what it should be given.
            await until(lambda: len(asked) >= 10 or asking.done())
            assert not asking.done()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    assert set(asked) == {""}


async def test_python_event_stream_of_bytes_is_not_decoded(both: Cluster) -> None:
    url = f"{both.instance(0)}/s"
    async with stream(url, "bytes") as writer:
        await writer.append(element("bytes", 0))
    await close(url)
    async with astream(url, offset="-1", live="sse") as reply:
        encoding = reply.headers["stream-sse-data-encoding"]
        found = "".join([text async for text in reply.iter_text()])

    assert encoding == "base64"
    assert base64.b64decode(found) == element("bytes", 0)  # the client's own: the text is the encoded one
