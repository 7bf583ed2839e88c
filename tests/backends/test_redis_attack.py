"""Interleavings, and servers that behave oddly, that once did harm."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
import redis_servers
import servers
from proxy import proxied
from redis_cluster import clustered
from redis_support import RedisHarness, connected
from streamhub_redis import RedisBackend

from streamhub import Hub
from streamhub.conformance.writer import Writer, acquire, append, read
from streamhub.errors import BackendUnavailableError, HubClosedError, StreamHubError, UnsupportedFormatError
from streamhub.types import COMPLETED, Append, Change, Read, RunRef


@pytest.fixture(params=["8.2"])
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


async def test_a_repeated_follow_that_is_cancelled_changes_nothing(harness: RedisHarness, backend: RedisBackend) -> None:
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
    async with connected(f"{harness.url}&db=1") as other:
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
                        writer.key, 7, owner=writer.owner, run="r", expect=None, resume=False, retention=writer.retention
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


async def test_closing_that_is_cancelled_leaves_no_call_waiting(harness: RedisHarness) -> None:
    backend = await harness.connect()
    harness.server.freeze()
    try:
        call = asyncio.create_task(backend.ping())
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(backend.aclose())
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
