"""How commands of the redis backend reach the server, and its replies whoever waits for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import hiredis
import pytest
import servers
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import InvalidResponse, RedisError
from redis_support import RedisHarness, connected, until
from streamhub_redis import line
from streamhub_redis.pipeline import Pipeline
from streamhub_redis.resp import NOTHING, PlainReplies, Replies, refused

from streamhub import BackendUnavailableError
from streamhub.conformance.writer import Writer, read_all
from streamhub.errors import OffsetConflictError

TEXT = st.text(st.characters(codec="ascii", exclude_categories=("Cc",)), max_size=20).map(str.encode)
LEAVES = st.one_of(
    st.tuples(st.just("text"), TEXT),
    st.tuples(st.just("refused"), st.sampled_from([b"ERR no", b"NOSCRIPT none", b"MOVED 7 host:1", b"LOADING", b"X"])),
    st.tuples(st.just("number"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("bytes"), st.one_of(st.none(), st.binary(max_size=40))),
    st.tuples(st.just("none"), st.none()),
)
REPLIES = st.recursive(LEAVES, lambda inner: st.tuples(st.just("array"), st.lists(inner, max_size=4)), max_leaves=12)


def written(reply: tuple[str, Any]) -> bytes:
    kind, value = reply
    match kind:
        case "text":
            return b"+%b\r\n" % value
        case "refused":
            return b"-%b\r\n" % value
        case "number":
            return b":%d\r\n" % value
        case "bytes":
            return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)
        case "none":
            return b"*-1\r\n"
        case _:
            return b"*%d\r\n" % len(value) + b"".join(map(written, value))


def comparable(reply: Any) -> Any:
    if isinstance(reply, list):
        return [comparable(element) for element in reply]  # pyright: ignore[reportUnknownVariableType]
    return (type(reply), str(reply)) if isinstance(reply, RedisError) else reply


def read(reader: Any, pieces: list[bytes]) -> list[Any]:
    found: list[Any] = []
    for piece in pieces:
        reader.feed(piece)
        while (reply := reader.next()) is not NOTHING:
            found.append(comparable(reply))
    return found


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces: list[bytes] = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


@given(st.lists(REPLIES, max_size=6), st.lists(st.integers(1, 30), max_size=20))
def test_replies_are_the_same_with_and_without_hiredis(replies: list[Any], sizes: list[int]) -> None:
    pieces = cut(b"".join(map(written, replies)), sizes)
    quick = hiredis.Reader(protocolError=InvalidResponse, replyError=refused, notEnoughData=NOTHING)

    class Quick:
        feed = staticmethod(quick.feed)
        next = staticmethod(quick.gets)

    found = read(PlainReplies(), pieces)
    assert len(found) == len(replies)
    assert found == read(Quick(), pieces)


def test_a_long_reply_in_many_pieces_is_read_once() -> None:
    count = 20_000
    data = b"*%d\r\n" % count + b":7\r\n" * count
    pieces = [data[at : at + 100] for at in range(0, len(data), 100)]
    began = time.process_time()
    assert read(PlainReplies(), pieces) == [[7] * count]
    assert time.process_time() - began < 2  # from the beginning each time, it is ten


@pytest.mark.parametrize(
    "data", [b"hello\r\n", b":x\r\n", b"$1x\r\nab\r\n", b"\r\n\r\n", b"*x\r\n", b"HTTP/1.1 400 Bad\r\n"]
)
@pytest.mark.parametrize("kind", [PlainReplies, Replies])
def test_what_is_no_reply_is_told(kind: Any, data: bytes) -> None:
    reader = kind()
    reader.feed(data)
    with pytest.raises(InvalidResponse):
        while reader.next() is not NOTHING:
            pass


@pytest.fixture
async def harness() -> AsyncIterator[RedisHarness]:
    async with RedisHarness(servers.redis_server("8.2")) as harness:
        yield harness


@pytest.fixture(params=["hiredis", "plain"])
def replies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(line, "Replies", PlainReplies)


@pytest.mark.usefixtures("replies")
async def test_replies_of_all_kinds_are_read(harness: RedisHarness) -> None:
    backend = await harness.make()
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    large = b"x" * 1_000_000
    await writer.append(b"a", large)
    assert await read_all(backend.store, writer.key) == [b"a", large]
    await harness.flush_caches()  # a refusal
    await writer.append(b"b")
    assert await read_all(backend.store, writer.key) == [b"a", large, b"b"]
    (answer,) = await backend.store.append([writer.item(b"c", first=2)])
    assert isinstance(answer, OffsetConflictError)
    assert await backend.store.describe(["nothing"]) == [None]


async def test_command_is_written_before_the_caller_waits(harness: RedisHarness) -> None:
    backend = await harness.make()
    await backend.ping()
    with harness.server.admin() as admin:

        def pings() -> int:
            return admin.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"]

        before = pings()
        call = asyncio.create_task(backend.ping())
        await asyncio.sleep(0)
        # The event loop stands still meanwhile.
        deadline = time.monotonic() + 10
        while pings() == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert pings() > before
        await call


async def test_replies_come_early_only_where_somebody_listens(harness: RedisHarness) -> None:
    here, there = await harness.make(), await harness.make()
    writer = Writer(here.store, harness.unique_key())
    await writer.open()
    await writer.append(b"0")
    with harness.server.admin() as admin:

        def calls() -> Any:
            found: Any = admin.info("commandstats")
            return tuple(found.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("ping", "evalsha"))

        pings, scripts = calls()
        for number in range(10):
            await writer.append(b"%d" % number)
        assert calls() == (pings, scripts + 10)

        async with there.store.changes() as feed:
            await feed.follow(writer.key)
            await writer.append(b"somebody listens")  # of whom this is the first to hear
            pings, scripts = calls()
            for number in range(10):
                await writer.append(b"%d" % number)
            assert calls() == (pings + 10, scripts + 10)

        await until(lambda: not admin.pubsub_channels("*"))
        await writer.append(b"nobody does")
        pings, scripts = calls()
        await writer.append(b"any more")
        assert calls() == (pings, scripts + 1)


async def test_who_listens_is_told_first_of_what_no_replica_confirms_too(harness: RedisHarness) -> None:
    there = await harness.make()
    writer = Writer(there.store, harness.unique_key())
    await writer.open()
    async with connected(f"{harness.url}&wait_replicas=1&wait_seconds=0.01") as here, there.store.changes() as feed:
        await feed.follow(writer.key)
        with harness.server.admin() as admin:
            for number in range(3):
                before = admin.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"]
                (answer,) = await here.store.append([writer.item(b"x", first=number + 1)])
                assert isinstance(answer, BackendUnavailableError)
                assert admin.info("commandstats")["cmdstat_ping"]["calls"] == before + 1


class Odd:
    """A server that answers each byte with what a test wants it to say, and the way to it."""

    def __init__(self) -> None:
        self.says: list[bytes | None] = []  # None: it closes the connection
        self.dialled = 0
        self.port = 0
        self.asked = 0
        self.left = 0  # connections that the other side ended
        self.go = asyncio.Event()
        self.go.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(1):
                self.asked += 1
                await self.go.wait()
                if (said := self.says.pop(0)) is None:
                    writer.close()
                    return
                writer.write(said)
        self.left += 1
        writer.close()

    async def dial(self) -> Any:
        self.dialled += 1
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)

        class Way:
            def hand_over(self, protocol: asyncio.Protocol) -> asyncio.Transport:
                writer.transport.set_protocol(protocol)
                return writer.transport  # pyright: ignore[reportReturnType]

            async def drop(self) -> None:
                writer.close()

        return Way()


@pytest.fixture
async def odd() -> AsyncIterator[Odd]:
    odd = Odd()
    async with await asyncio.start_server(odd.serve, "127.0.0.1", 0) as server:
        odd.port = server.sockets[0].getsockname()[1]
        yield odd


@pytest.fixture
async def pipeline(odd: Odd) -> AsyncIterator[Pipeline]:
    pipeline = Pipeline(
        odd.dial, where="odd", timeout_seconds=5, confirmation=b"!", on_demoted=lambda: pipeline.leave()
    )
    yield pipeline
    await pipeline.aclose()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"nonsense\r\n", id="no reply"),
        pytest.param(b"$5\r\nab", id="half a reply"),
        pytest.param(b"-LOADING not yet\r\n", id="starting"),
    ],
)
async def test_call_that_gets_no_reply_fails_and_the_next_one_dials(odd: Odd, pipeline: Pipeline, said: bytes) -> None:
    odd.says = [b":1\r\n", said, None, b":3\r\n"]
    assert await pipeline.run([b"?"]) == [1]
    with pytest.raises(BackendUnavailableError):
        await pipeline.run([b"?", b"?"])
    del odd.says[:-1]  # what was not asked for any more
    assert await pipeline.run([b"?"]) == [3]
    assert odd.dialled == 2


async def test_reply_that_nobody_asked_for_is_nobodys(odd: Odd, pipeline: Pipeline) -> None:
    odd.says = [b":1\r\n:666\r\n", b":2\r\n"]
    assert await pipeline.run([b"?"]) == [1]
    await until(lambda: odd.left == 1)
    assert await pipeline.run([b"?"]) == [2]
    assert odd.dialled == 2


async def test_reply_that_came_before_the_question_is_no_answer(odd: Odd, pipeline: Pipeline) -> None:
    odd.says = [b":1\r\n:666\r\n", b":2\r\n"]
    odd.go.clear()
    first = pipeline.run([b"?"])
    await until(lambda: odd.asked == 1)
    second = pipeline.run([b"?"])
    await asyncio.sleep(0)
    odd.go.set()
    assert await asyncio.gather(first, second) == [[1], [2]]
    assert odd.dialled == 2


async def test_calls_that_come_while_others_wait_go_out_together(odd: Odd, pipeline: Pipeline) -> None:
    odd.says = [b":1\r\n", b":2\r\n", b":3\r\n", b":4\r\n"]
    odd.go.clear()
    first = pipeline.run([b"?", b"?"])
    await until(lambda: odd.asked == 1)
    others = [pipeline.run([b"?"]) for _ in range(3)]
    await asyncio.sleep(0)
    others[1].cancel()
    odd.go.set()
    assert await first == [1, 2]
    assert await asyncio.gather(others[0], others[2]) == [[3], [4]]
    assert (odd.dialled, odd.asked) == (1, 4)


async def test_confirmation_is_for_those_who_want_it(odd: Odd, pipeline: Pipeline) -> None:
    odd.says = [b":0\r\n", b":1\r\n", b":2\r\n", b":3\r\n", b":9\r\n"]
    odd.go.clear()
    calls = [pipeline.run([b"?"])]
    await until(lambda: odd.asked == 1)
    calls += [pipeline.run([b"?"], confirmed=confirmed) for confirmed in (True, False, True)]
    await asyncio.sleep(0)
    odd.go.set()
    assert await asyncio.gather(*calls) == [[0], [1, 9], [2], [3, 9]]
    assert odd.asked == 5


async def test_server_that_was_made_a_replica_is_left(odd: Odd, pipeline: Pipeline) -> None:
    odd.says = [b"-READONLY it is\r\n", b":2\r\n"]
    (refusal,) = await pipeline.run([b"?"])
    assert isinstance(refusal, RedisError)
    assert await pipeline.run([b"?"]) == [2]
    assert odd.dialled == 2
