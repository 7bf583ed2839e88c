"""Interleavings, and servers that behave oddly, that once did harm."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import proxy as proxy_module
import pytest
import redis_servers
import servers
from proxy import proxied
from redis_cluster import clustered
from redis_support import RedisHarness, connected
from streamhub_redis import RedisBackend, dialling

from streamhub import Hub
from streamhub.conformance.waiting import eventually
from streamhub.conformance.writer import Writer, acquire, read
from streamhub.errors import (
    BackendUnavailableError,
    HubClosedError,
    ProducerCancelledError,
    StreamHubError,
    UnsupportedFormatError,
)
from streamhub.types import COMPLETED, Change, Read, RunRef

CERTIFICATE = Path(__file__).parent.parent / "data" / "localhost.pem"


@pytest.fixture(params=servers.REDIS_FLAVOURS)
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[RedisHarness]:
    async with RedisHarness(servers.redis_server(request.param)) as harness:
        yield harness


@pytest.fixture
async def backend(harness: RedisHarness) -> RedisBackend:
    backend = await harness.make()
    assert isinstance(backend, RedisBackend)
    return backend


async def test_closing_ends_a_feed_that_was_just_being_opened(harness: RedisHarness) -> None:
    backend = await harness.connect()

    async def enter() -> None:
        async with backend.store.changes():
            await asyncio.sleep(60)

    entering = asyncio.create_task(enter())
    closing = asyncio.create_task(backend.aclose())
    await closing
    try:
        async with asyncio.timeout(3):
            with pytest.raises((BackendUnavailableError, HubClosedError)):
                await asyncio.shield(entering)
    finally:
        entering.cancel()


async def test_a_cancelled_follow_does_not_undo_another(harness: RedisHarness, backend: RedisBackend) -> None:
    key = harness.unique_key()
    async with backend.store.changes() as feed:
        first = asyncio.create_task(feed.follow(key))
        second = asyncio.create_task(feed.follow(key))
        await asyncio.sleep(0)
        first.cancel()
        await second
        writer = Writer(backend.store, key)
        await writer.open()
        async with asyncio.timeout(3):
            assert (await anext(aiter(feed))).key == key


async def test_a_repeated_follow_that_is_cancelled_changes_nothing(
    harness: RedisHarness, backend: RedisBackend
) -> None:
    key = harness.unique_key()
    async with backend.store.changes() as feed:
        await feed.follow(key)
        again = asyncio.create_task(feed.follow(key))
        await asyncio.sleep(0)
        again.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await again
        writer = Writer(backend.store, key)
        await writer.open()
        async with asyncio.timeout(3):
            assert (await anext(aiter(feed))).key == key


async def test_requests_of_another_database_reach_no_run(harness: RedisHarness, backend: RedisBackend) -> None:
    key = harness.unique_key()
    async with connected((harness.url or "").replace("/0?", "/1?")) as other:
        async with backend.cancels.requests() as feed:
            await feed.listen(RunRef(key, "run@1"))
            await other.cancels.request(key, "run", reason=None, requested_by=None, ttl_seconds=60)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    pytest.fail(f"a request for another run: {await anext(aiter(feed))}")


async def test_renewals_do_not_wait_for_replicas_again_and_again() -> None:
    with redis_servers.started(servers.redis_binary("8.2")) as server:
        async with connected(f"{server.url}?wait_replicas=1&wait_seconds=0.5&timeout_seconds=2") as backend:
            lease = await acquire(backend, "held")
            writers = [Writer(backend.store, f"key-{number}") for number in range(12)]
            opens = [
                asyncio.create_task(
                    backend.store.open(
                        writer.key,
                        7,
                        owner=writer.owner,
                        run="r",
                        expect=None,
                        resume=False,
                        retention=writer.retention,
                    )
                )
                for writer in writers
            ]
            await asyncio.sleep(0.01)
            started = time.monotonic()
            assert await backend.leases.renew([lease]) == [True]
            took = time.monotonic() - started
            await asyncio.gather(*opens, return_exceptions=True)
            assert took < 2, took


async def test_an_idle_connection_that_was_reset_is_no_error(harness: RedisHarness) -> None:
    async with proxied("127.0.0.1", harness.server.port) as proxy:
        async with connected(f"redis://127.0.0.1:{proxy.port}/0") as backend:
            await backend.ping()
            proxy.cut()
            await asyncio.sleep(0.1)
            await backend.ping()


async def test_short_waits_for_replicas_have_an_end() -> None:
    with redis_servers.started(servers.redis_binary("8.2")) as server:
        async with connected(f"{server.url}?wait_replicas=1&wait_seconds=0.0004&timeout_seconds=2") as backend:
            started = time.monotonic()
            with pytest.raises(BackendUnavailableError, match="0 of wait_replicas=1"):
                await Writer(backend.store, "key").open()
            assert time.monotonic() - started < 1


@pytest.mark.parametrize("message", [b"1 ", b"1 x y z ", b"1 7 1 9\n", b"1 7 1  {\n"])
async def test_messages_of_others_do_not_break_the_feed(
    harness: RedisHarness, backend: RedisBackend, message: bytes
) -> None:
    key = harness.unique_key()
    async with backend.store.changes() as feed:
        await feed.follow(key)
        with harness.server.admin() as admin:
            admin.publish(f"{harness.store_prefix}:{{{key}}}:log", message)
        async with asyncio.timeout(3):
            assert await anext(aiter(feed)) == Change(key)


async def test_an_end_of_a_later_release_spoils_only_its_own_append(
    harness: RedisHarness, backend: RedisBackend
) -> None:
    writer, other = Writer(backend.store, harness.unique_key()), Writer(backend.store, harness.unique_key())
    await writer.open()
    await other.open()
    await writer.append(b"a", end=COMPLETED)
    with harness.server.admin() as admin:
        admin.hset(f"{harness.store_prefix}:{{{writer.key}}}:meta", "end", b'{"v":99}')
    answers = await backend.store.append([writer.item(b"b"), other.item(b"c")])
    assert isinstance(answers[0], UnsupportedFormatError)
    assert not isinstance(answers[1], StreamHubError)


@pytest.mark.parametrize("steps", range(1, 6))
async def test_closing_that_is_cancelled_leaves_no_call_waiting(harness: RedisHarness, steps: int) -> None:
    backend = await harness.connect()
    harness.server.freeze()
    try:
        call = asyncio.create_task(backend.ping())
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(backend.aclose())
        for _ in range(steps):
            await asyncio.sleep(0)
        closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        async with asyncio.timeout(4):
            with pytest.raises((BackendUnavailableError, HubClosedError)):
                await asyncio.shield(call)
    finally:
        harness.server.thaw()
        await backend.aclose()
        call.cancel()


async def test_closing_ends_calls_that_look_for_a_clusters_nodes() -> None:
    with clustered(servers.redis_binary("8.2"), masters=3) as cluster:
        backend = RedisBackend(f"{cluster.url}?timeout_seconds=5&connect_seconds=5")
        await backend.connect()
        for node in cluster.masters:
            node.freeze()
        try:
            call = asyncio.create_task(backend.ping())
            await asyncio.sleep(0.2)
            await backend.aclose()
            with pytest.raises(HubClosedError):
                await call
        finally:
            for node in cluster.masters:
                node.thaw()


@contextlib.asynccontextmanager
async def slow_way(
    port: int, bytes_per_second: float, *, bytes_back: float = 1e12, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Lead to a server on this port, through a link that takes so much, and ``bytes_back`` back; yield where."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, rate: float) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await source.read(16384):
                    sink.write(data)
                    await sink.drain()
                    await asyncio.sleep(len(data) / rate)
        finally:
            sink.transport.abort()

    async def serve(client: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        pumps = [
            asyncio.create_task(pump(client, back, bytes_per_second)),
            asyncio.create_task(pump(there, writer, bytes_back)),
        ]
        tasks.extend(pumps)
        await asyncio.wait(pumps)

    tasks: list[asyncio.Task[None]] = []
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # what the system keeps has gone out, it seems
    server = await asyncio.start_server(serve, sock=listening, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)


async def test_a_backlog_of_many_streams_is_taken_over_a_slow_link() -> None:
    with redis_servers.started(servers.redis_binary("8.2")) as server:
        async with slow_way(server.port, 8e6) as port:
            url = f"redis://127.0.0.1:{port}/0?timeout_seconds=1&outage_seconds=6&lease_seconds=60"
            async with Hub.from_url(url) as hub, contextlib.AsyncExitStack() as stack:
                producers = [await stack.enter_async_context(hub.produce(f"key-{number}")) for number in range(16)]
                for producer in producers:
                    for _ in range(15):
                        await producer.send(b"z" * 60_000)  # 14 MB: two seconds on this way
                await asyncio.gather(*(producer.flush() for producer in producers))


@pytest.mark.parametrize("encrypted", [False, True])
async def test_one_large_append_is_written_and_read_over_a_slow_link(encrypted: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    chunk = b"z" * 16_000_000  # four seconds on this way, for one command and for one reply
    with redis_servers.started(servers.redis_binary("8.2")) as server:
        async with slow_way(server.port, 4e6, bytes_back=4e6, context=context if encrypted else None) as port:
            url = f"redis://127.0.0.1:{port}/0?timeout_seconds=2.5"
            if encrypted:
                url = f"rediss://localhost:{port}/0?timeout_seconds=2.5&ssl_ca_certs={CERTIFICATE}"
            async with connected(url) as backend:
                writer = Writer(backend.store, "key")
                await writer.open()
                await writer.append(chunk)
                assert (await read(backend.store, "key")).chunks == (chunk,)


async def test_a_large_append_to_a_connection_that_just_ended_says_it_once(
    harness: RedisHarness, backend: RedisBackend, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    item = writer.item(b"z" * 4_000_000)
    with harness.server.admin() as admin:
        admin.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(BackendUnavailableError):  # the event loop had no turn to hear of it
        await writer.put(item)
    assert caplog.messages == []
    await writer.put(item)
    assert (await read(backend.store, writer.key)).chunks == item.chunks


async def test_a_page_is_no_larger_because_small_chunks_stand_before_it(
    harness: RedisHarness, backend: RedisBackend
) -> None:
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    for _ in range(1000):
        await writer.append(b"a")
    for _ in range(10):
        await writer.append(b"b" * 1_000_000)
    with harness.server.admin() as admin:
        before = int(admin.info("stats")["total_net_output_bytes"])
        (page,) = await backend.store.read([Read(writer.key, 1000, 4096, 256 * 1024)])
        sent = int(admin.info("stats")["total_net_output_bytes"]) - before
    assert not isinstance(page, StreamHubError)
    assert len(page.chunks) == 1
    assert sent < 2_000_000


async def test_a_listener_that_only_hears_is_given_up(harness: RedisHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    dumb = asyncio.Event()
    asked = proxy_module.Connection.ask
    monkeypatch.setattr(proxy_module.Connection, "ask", lambda self, data: b"" if dumb.is_set() else asked(self, data))
    async with proxied("127.0.0.1", harness.server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0?ping_seconds=0.3&prefix={harness.store_prefix}"
        beside = await harness.connect()
        writer = Writer(beside.store, harness.unique_key())
        await writer.open()
        async with connected(url) as backend, backend.store.changes() as feed:
            await feed.follow(writer.key)
            dumb.set()

            async def talk() -> None:
                while True:
                    await writer.append(b"a")
                    await asyncio.sleep(0.05)

            talking = asyncio.create_task(talk())
            try:
                async with asyncio.timeout(3):
                    with pytest.raises(BackendUnavailableError):
                        await feed.follow("another")
            finally:
                talking.cancel()
                await beside.aclose()


async def test_what_was_acknowledged_is_read_though_the_old_master_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    binary = servers.redis_binary("8.2")
    with redis_servers.started(binary) as old, redis_servers.started(binary) as new:
        believed = [dialling._Master(1, "127.0.0.1", old.port)]

        async def answers(self: dialling.Sentinels) -> tuple[list[dialling._Master], dict[str, Exception]]:
            return believed, {}

        monkeypatch.setattr(dialling.Sentinels, "_answers", answers)
        async with connected("redis+sentinel://127.0.0.1:1/mymaster?client_name=here") as backend:
            writer = Writer(backend.store, "key")
            await writer.open()
            await writer.append(b"a")
            async with connected(new.url) as beside:
                copy = Writer(beside.store, "key")
                await copy.open()
                await copy.append(b"a")
            believed[:] = [dialling._Master(2, "127.0.0.1", new.port)]
            with old.admin() as admin:
                # The newer one writes.
                newest = max(int(client["id"]) for client in admin.client_list() if client["name"] == "here")
                admin.client_kill_filter(_id=str(newest))
            item = writer.item(b"b")
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(BackendUnavailableError):
                        await writer.put(item)
                        break
            page = await read(backend.store, "key")
            assert page.chunks == (b"a", b"b")


async def test_a_request_of_a_later_release_keeps_none_from_other_runs(harness: RedisHarness) -> None:
    keys = [harness.unique_key() for _ in range(2)]
    async with Hub.from_url(f"{harness.url}&lease_seconds=0.6") as hub:

        async def produce(key: str) -> None:
            async with hub.produce(key, run="r") as producer:
                await producer.send(b"a")
                await asyncio.sleep(30)

        tasks = [asyncio.create_task(produce(key)) for key in keys]
        for key in keys:
            await eventually(partial(hub.info, key), lambda info: info is not None and info.tail == 1)
        # Neither is notified: they are found at the next renewal.
        with harness.server.admin() as admin:
            for key, request in zip(keys, ('{"v":99}', '{"v":1,"reason":null,"requested_by":null}'), strict=True):
                admin.set(f"{harness.store_prefix}:{{{key}}}:cancel:r", request)
        try:
            async with asyncio.timeout(5):
                with pytest.raises(ProducerCancelledError):
                    await asyncio.shield(tasks[1])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
