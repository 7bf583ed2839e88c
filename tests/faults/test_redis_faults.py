"""What happens to the server, or on the way to it, and what producers and subscribers make of it."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import servers
from ports import free_port
from proxy import Proxy, proxied
from redis_faults import admin, connections_of, harness_on, kill_clients, log_files, memory_limited, through
from redis_servers import RedisServer, started, wait_until
from streamhub_redis import scripts
from work import PATIENCE, ROUNDS, STEADY, assert_whole, whole_or_told, work_under

from streamhub import (
    Backend,
    BackendUnavailableError,
    DataLostError,
    Hub,
    LeaseLostError,
    ProducerCancelledError,
    StreamAbandonedError,
    StreamNotFoundError,
    StreamReplacedError,
)
from streamhub.conformance.drive import UNPOLLED, data_of, produce_all, read_end, reading, replay, send_all, soon, words
from streamhub.conformance.waiting import SLACK, eventually
from streamhub.conformance.writer import Writer, acquire, append, described, read_all
from streamhub.types import COMPLETED, CancelRequest, Holder, Lease, Retention, RunRef

pytestmark = pytest.mark.timeout(120 * ROUNDS)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of one test's own, of the version that most have."""
    with started(servers.redis_binary("8.2")) as server:
        yield server


@pytest.fixture(params=servers.REDIS_FLAVOURS)
def any_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of one test's own, of each version in turn."""
    with started(servers.redis_binary(request.param)) as server:
        yield server


@pytest.fixture
async def proxy(any_server: RedisServer) -> AsyncGenerator[Proxy]:
    """The way to ``any_server``."""
    async with proxied("127.0.0.1", any_server.port) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def no_defects(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail if the core met what no backend may raise: it would go on, and hide it."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelname == "ERROR"] == []


# -- Connections are dropped -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "pubsub", "both"])
async def test_nothing_is_lost_or_doubled_while_the_server_drops_connections(server: RedisServer, kind: str) -> None:
    async with harness_on(server.url) as harness:

        async def disturb(_: int) -> None:
            for one in ("normal", "pubsub") if kind == "both" else (kind,):
                await kill_clients(server, one)

        for _ in range(ROUNDS):
            here, there = await harness.hub(**STEADY), await harness.hub(**UNPOLLED)
            keys = [harness.unique_key() for _ in range(3)]
            await work_under(disturb, producing=here, following=[here, there], keys=keys)


async def test_nothing_is_lost_or_doubled_while_the_network_resets_connections(
    any_server: RedisServer, proxy: Proxy
) -> None:
    async with harness_on(through(proxy.port)) as harness:

        async def disturb(_: int) -> None:
            proxy.cut()

        for _ in range(ROUNDS):
            here, there = await harness.hub(**STEADY), await harness.hub(**UNPOLLED)
            keys = [harness.unique_key() for _ in range(3)]
            await work_under(disturb, producing=here, following=[here, there], keys=keys)


# -- The reply is lost after the write ---------------------------------------------------------------------------------

Call = Callable[[], Coroutine[Any, Any, Any]]


class Lossy:
    """A backend behind a proxy, and one beside it that judges."""

    def __init__(self, proxy: Proxy, backend: Backend, beside: Backend) -> None:
        self._proxy = proxy
        self.backend = backend
        self.beside = beside
        self.key = f"k {secrets.token_hex(4)}"

    async def twice(self, marker: bytes, call: Call) -> Any:
        """Make a call whose reply is lost, see that its caller is told so, and make the same call again."""
        lost = self._proxy.lose_reply(marker)
        with pytest.raises(BackendUnavailableError):
            await soon(call())
        assert lost.is_set(), f"{marker!r} was not sent"
        return await soon(call())

    async def writer(self, **options: Any) -> Writer:
        """Open a run under the backend's own lease."""
        lease = await acquire(self.backend, self.key)
        writer = Writer(self.backend.store, self.key, **options)
        await writer.open(lease.generation)
        return writer


@pytest.fixture
async def lossy(any_server: RedisServer, proxy: Proxy) -> AsyncGenerator[Lossy]:
    async with harness_on(through(proxy.port)) as harness, harness_on(any_server.url) as direct:
        yield Lossy(proxy, await harness.make(), await direct.make())


def digest(script: scripts.Script) -> bytes:
    """Return what a call of a script has in it."""
    return script.call((b"k",)).split(b"\r\n")[4]


async def lose_open(lossy: Lossy) -> None:
    lease = await acquire(lossy.backend, lossy.key)

    async def opened() -> Any:
        return await lossy.backend.store.open(
            lossy.key, lease.generation, owner="o", run="r", expect=None, resume=False, retention=Retention()
        )

    info = await lossy.twice(digest(scripts.OPEN), opened)
    assert (info.generation, info.state, info.spans) == (lease.generation, "open", ((lease.generation, 1),))
    assert info.seen == (await described(lossy.beside.store, lossy.key)).seen


async def lose_resume(lossy: Lossy) -> None:
    await (await lossy.writer()).append(b"a", b"b")
    found = await described(lossy.beside.store, lossy.key)

    async def opened() -> Any:
        return await lossy.backend.store.open(
            lossy.key,
            found.generation + 1,
            owner="o",
            run=found.run,
            expect=found.seen,
            resume=True,
            retention=Retention(),
        )

    info = await lossy.twice(digest(scripts.OPEN), opened)
    assert info.spans == ((found.generation, 1), (found.generation + 1, 3))


async def lose_append(lossy: Lossy) -> None:
    writer = await lossy.writer()
    await writer.append(b"a")
    item = writer.item(b"b", b"c", metadata={"m": 1})
    answer = await lossy.twice(digest(scripts.APPEND), lambda: append(lossy.backend.store, item))
    assert answer.tail == 3
    assert await read_all(lossy.beside.store, lossy.key) == [b"a", b"b", b"c"]
    assert (await described(lossy.beside.store, lossy.key)).metadata == {"m": 1}


async def lose_append_with_end(lossy: Lossy) -> None:
    writer = await lossy.writer()
    item = writer.item(b"a", end=COMPLETED)
    answer = await lossy.twice(digest(scripts.APPEND), lambda: append(lossy.backend.store, item))
    info = await described(lossy.beside.store, lossy.key)
    assert (answer.tail, info.tail, info.state, info.end) == (1, 1, "ended", COMPLETED)


async def lose_end(lossy: Lossy) -> None:
    writer = await lossy.writer()
    await writer.append(b"a")
    item = writer.item(end=COMPLETED)
    answer = await lossy.twice(digest(scripts.APPEND), lambda: append(lossy.backend.store, item))
    assert answer.tail == 1
    assert (await described(lossy.beside.store, lossy.key)).end == COMPLETED


async def lose_delete(lossy: Lossy) -> None:
    await lossy.writer()
    assert not await lossy.twice(digest(scripts.DELETE), lambda: lossy.backend.store.delete(lossy.key))
    assert (await described(lossy.beside.store, lossy.key)).state == "deleted"


async def lose_touch(lossy: Lossy) -> None:
    await lossy.writer()
    before = await described(lossy.beside.store, lossy.key)
    (after,) = await lossy.twice(
        digest(scripts.DESCRIBE), lambda: lossy.backend.store.describe([lossy.key], touch=True)
    )
    assert after == before


async def lose_read(lossy: Lossy) -> None:
    await (await lossy.writer()).append(b"a", b"b")
    assert await lossy.twice(digest(scripts.READ), lambda: read_all(lossy.backend.store, lossy.key)) == [b"a", b"b"]


async def lose_acquire(lossy: Lossy) -> None:
    lease = await lossy.twice(
        digest(scripts.ACQUIRE),
        lambda: lossy.backend.leases.acquire(lossy.key, owner="o", run="r", ttl_seconds=30.0),
    )
    (holder,) = await lossy.beside.leases.holders([lossy.key])
    assert isinstance(holder, Holder)
    assert holder.generation == lease.generation


async def lose_renew(lossy: Lossy) -> None:
    lease = await acquire(lossy.backend, lossy.key, ttl_seconds=10.0)
    longer = Lease(lease.key, lease.generation, lease.owner, lease.run, 60.0)
    assert await lossy.twice(digest(scripts.RENEW), lambda: lossy.backend.leases.renew([longer])) == [True]
    (holder,) = await lossy.beside.leases.holders([lossy.key])
    assert holder is not None
    assert holder.expires_in > 30


async def lose_release(lossy: Lossy) -> None:
    lease = await acquire(lossy.backend, lossy.key)
    await lossy.twice(digest(scripts.RELEASE), lambda: lossy.backend.leases.release(lease))
    assert await lossy.beside.leases.holders([lossy.key]) == [None]
    later = await acquire(lossy.beside, lossy.key)
    assert later.generation > lease.generation
    await lossy.backend.leases.release(lease)
    assert await lossy.beside.leases.holders([lossy.key]) != [None]


async def lose_holders(lossy: Lossy) -> None:
    lease = await acquire(lossy.backend, lossy.key)
    (holder,) = await lossy.twice(digest(scripts.HOLDER), lambda: lossy.backend.leases.holders([lossy.key]))
    assert holder.generation == lease.generation


async def lose_request(lossy: Lossy) -> None:
    ref = RunRef(lossy.key, "r")
    async with lossy.beside.cancels.requests() as feed:
        await feed.listen(ref)
        # The second call did not store it: the first did, and nobody was told so.
        assert not await lossy.twice(
            digest(scripts.REQUEST),
            lambda: lossy.backend.cancels.request(*ref, reason="why", requested_by="u", ttl_seconds=30),
        )
        assert await soon(anext(aiter(feed))) == CancelRequest(*ref, "why", "u")
    assert await lossy.beside.cancels.pending([ref]) == [CancelRequest(*ref, "why", "u")]


async def lose_pending(lossy: Lossy) -> None:
    ref = RunRef(lossy.key, "r")
    await lossy.beside.cancels.request(*ref, reason=None, requested_by=None, ttl_seconds=30)
    assert await lossy.twice(b"GET", lambda: lossy.backend.cancels.pending([ref])) == [CancelRequest(*ref, None, None)]


LOSSES = [
    lose_open,
    lose_resume,
    lose_append,
    lose_append_with_end,
    lose_end,
    lose_delete,
    lose_touch,
    lose_read,
    lose_acquire,
    lose_renew,
    lose_release,
    lose_holders,
    lose_request,
    lose_pending,
]


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_call_whose_reply_was_lost_is_repeated_as_if_nothing_had_happened(
    lossy: Lossy, loss: Callable[[Lossy], Awaitable[None]]
) -> None:
    await loss(lossy)


@pytest.mark.parametrize("script", scripts.ALL_SCRIPTS, ids=lambda script: script.name)
async def test_a_whole_run_survives_the_loss_of_each_scripts_reply(
    any_server: RedisServer, proxy: Proxy, script: scripts.Script
) -> None:
    async with harness_on(through(proxy.port)) as harness:
        here, there = await harness.hub(), await harness.hub()
        key, source = harness.unique_key(), words(40)
        lost = proxy.lose_reply(digest(script))
        async with reading(there, key, wait=PATIENCE) as live:
            await _produce_slowly(here, key, source, lost)
            assert_whole(await live.finished(PATIENCE), source)
        dead = harness.unique_key()
        await there.cancel(dead, run="r1")
        with pytest.raises(ProducerCancelledError):
            async with here.produce(dead, run="r1") as producer:
                await soon(producer.flush())
                await soon(asyncio.Event().wait())
        if script is scripts.DELETE:
            with pytest.raises(BackendUnavailableError):
                await here.delete(dead)
        assert await here.delete(dead) is (script is not scripts.DELETE)
        assert await there.info(dead) is None
        assert lost.is_set()


async def _produce_slowly(hub: Hub, key: str, source: list[bytes], lost: asyncio.Event) -> None:
    """Produce until a renewal has had its turn, and whatever rides on it."""
    async with hub.produce(key) as producer:
        for number, chunk in enumerate(source, 1):
            await producer.send(chunk)
            if number % 10 == 0:
                await soon(producer.flush())
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await lost.wait()


# -- The server forgets ------------------------------------------------------------------------------------------------


async def test_a_server_that_forgets_its_scripts_again_and_again_goes_on(any_server: RedisServer) -> None:
    async with harness_on(any_server.url) as harness:
        for _ in range(ROUNDS):
            here, there = await harness.hub(**STEADY), await harness.hub()
            keys = [harness.unique_key() for _ in range(2)]
            await work_under(
                lambda _: admin(any_server, "SCRIPT", "FLUSH"),
                producing=here,
                following=[here, there],
                keys=keys,
                every=10,
            )


async def test_a_run_that_was_flushed_away_is_sent_again_and_generations_grow(any_server: RedisServer) -> None:
    async with harness_on(any_server.url) as harness:
        here, there = await harness.hub(**STEADY), await harness.hub(**STEADY)
        key, source = harness.unique_key(), words(60)
        async with reading(there, key, wait=PATIENCE) as live:
            async with asyncio.timeout(PATIENCE), here.produce(key, run="r1", metadata={"model": "m"}) as producer:
                for number in range(0, 60, 20):
                    await send_all(producer, source[number : number + 20])
                    if number < 40:
                        await admin(any_server, "FLUSHALL")
                first = producer.generation
            await whole_or_told(live.finished(), source)
        assert_whole(await replay(there, key), source)
        info = await there.info(key)
        assert info is not None
        assert (info.end, info.metadata) == (COMPLETED, {"model": "m"})
        await admin(any_server, "FLUSHALL")
        async with here.produce(key, run="r2") as producer:
            assert producer.generation > first


async def test_a_run_too_long_to_be_sent_again_raises_and_nobody_hangs(server: RedisServer) -> None:
    async with harness_on(server.url) as harness:
        here, there = await harness.hub(**STEADY), await harness.hub(abandon_after_seconds=0.5)
        key = harness.unique_key()
        async with reading(there, key, wait=PATIENCE) as live:
            with pytest.raises(DataLostError):
                async with asyncio.timeout(PATIENCE), here.produce(key) as producer:
                    await send_all(producer, [bytes(100_000)] * 20)
                    await live.has(20)
                    await admin(server, "FLUSHALL")
                    await send_all(producer, [b"after"])
            # It is ahead of the run that the producer opened again, and in vain.
            with pytest.raises((StreamNotFoundError, StreamAbandonedError)):
                await live.finished()
            assert len(live.chunks) == 20


async def test_a_producer_whose_lease_was_flushed_away_is_told_at_the_next_renewal(server: RedisServer) -> None:
    async with harness_on(server.url) as harness:
        here = await harness.hub(lease_seconds=1.0)
        with pytest.raises(LeaseLostError):
            async with asyncio.timeout(PATIENCE), here.produce(harness.unique_key()) as producer:
                await send_all(producer, [b"a"])
                await admin(server, "FLUSHALL")
                await asyncio.Event().wait()


# -- The server refuses ------------------------------------------------------------------------------------------------


async def test_a_full_server_refuses_whole_appends_and_is_repaired_by_memory(any_server: RedisServer) -> None:
    async with harness_on(any_server.url) as harness:
        backend = await harness.make()
        writer = Writer(backend.store, harness.unique_key())
        await writer.open()
        await writer.append(b"a")
        item = writer.item(b"b", b"c", end=COMPLETED, metadata={"m": 1})
        before = await described(backend.store, writer.key)
        async with memory_limited(any_server):
            with pytest.raises(BackendUnavailableError, match="maxmemory"):
                await append(backend.store, item)
            with pytest.raises(BackendUnavailableError, match="maxmemory"):
                await acquire(backend, "other")
            with pytest.raises(BackendUnavailableError, match="maxmemory"):
                await backend.cancels.request(writer.key, "r", reason=None, requested_by=None, ttl_seconds=9)
            assert await described(backend.store, writer.key) == before
            assert await read_all(backend.store, writer.key) == [b"a"]
        assert (await append(backend.store, item)).tail == 3
        assert await read_all(backend.store, writer.key) == [b"a", b"b", b"c"]


# Redis 6.2 does not heed min-replicas-to-write in scripts.
REFUSALS = [
    (flavour, kind)
    for flavour in servers.REDIS_FLAVOURS
    for kind in ("OOM", "READONLY", "NOREPLICAS")
    if (flavour, kind) != ("6.2", "NOREPLICAS")
]


async def _refusal(kind: str, server: RedisServer, on: bool) -> None:
    if kind == "OOM":
        await admin(server, "CONFIG", "SET", "maxmemory", "1" if on else "0")
    elif kind == "READONLY":
        await admin(server, "REPLICAOF", *(("127.0.0.1", free_port()) if on else ("NO", "ONE")))
    else:
        await admin(server, "CONFIG", "SET", "min-replicas-to-write", "1" if on else "0")


@pytest.mark.parametrize(("any_server", "kind"), REFUSALS, indirect=["any_server"])
async def test_work_goes_on_when_the_server_takes_writes_again(any_server: RedisServer, kind: str) -> None:
    async with harness_on(any_server.url) as harness:
        here, there = await harness.hub(**STEADY), await harness.hub(**STEADY)
        key, source = harness.unique_key(), words(30)
        async with here.produce(key) as producer, reading(there, key) as live:
            await send_all(producer, source[:10])
            await live.has(10)
            await _refusal(kind, any_server, True)
            for chunk in source[10:20]:
                await producer.send(chunk)
            flushing = asyncio.ensure_future(producer.flush())
            done, _ = await asyncio.wait({flushing}, timeout=0.3)
            assert not done
            await _refusal(kind, any_server, False)
            await soon(flushing)
            await send_all(producer, source[20:])
            assert_whole(await live.has(30), source)


@pytest.mark.parametrize(("any_server", "kind"), REFUSALS, indirect=["any_server"])
async def test_a_server_that_takes_no_writes_for_long_is_told_as_unavailable(
    any_server: RedisServer, kind: str
) -> None:
    async with harness_on(any_server.url) as harness:
        here = await harness.hub(outage_seconds=0.3, **STEADY)
        key, source = harness.unique_key(), words(2)
        with pytest.raises(BackendUnavailableError):
            async with asyncio.timeout(PATIENCE), here.produce(key) as producer:
                await send_all(producer, source)
                await _refusal(kind, any_server, True)
                await send_all(producer, [b"more"])
        with pytest.raises(BackendUnavailableError):
            await soon(produce_all(here, harness.unique_key(), [b"x"]))
        assert data_of(await _what_is_stored(here, key)) == source
        await _refusal(kind, any_server, False)
        await produce_all(here, harness.unique_key(), [b"x"])


async def _what_is_stored(hub: Hub, key: str) -> list[Any]:
    async with hub.subscribe(key) as subscription:
        async for batch in subscription.batches():
            return batch
    return []


# -- The server is stopped ---------------------------------------------------------------------------------------------


@pytest.fixture(params=servers.REDIS_FLAVOURS)
def durable(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server that has stored what it acknowledges."""
    with started(servers.redis_binary(request.param), config=["appendonly yes", "appendfsync always"]) as server:
        yield server


async def test_nothing_acknowledged_is_lost_when_a_server_that_always_syncs_is_killed(durable: RedisServer) -> None:
    async with harness_on(durable.url) as harness:
        backend = await harness.make()

        async def crash() -> None:
            await asyncio.to_thread(durable.stop, 9)
            await asyncio.to_thread(durable.start)

        for number in range(3 * ROUNDS):
            writer, acknowledged = Writer(backend.store, harness.unique_key()), list[bytes]()
            lease = await acquire(backend, writer.key)
            await writer.open(lease.generation)
            crashing: asyncio.Task[None] | None = None
            with pytest.raises(BackendUnavailableError):
                while True:
                    chunk = b"%d" % len(acknowledged)
                    item = writer.item(chunk, metadata={"n": len(acknowledged)})
                    await writer.put(item)
                    acknowledged.append(chunk)
                    if len(acknowledged) == 20 + number * 7:
                        crashing = asyncio.create_task(crash())
            assert crashing is not None
            await soon(crashing)
            stored = await read_all(backend.store, writer.key)
            assert stored[: len(acknowledged)] == acknowledged
            assert (await backend.leases.holders([writer.key]))[0] is not None
            # What was not acknowledged is stored now, or was.
            assert (await append(backend.store, item)).tail == len(acknowledged) + 1
            assert await read_all(backend.store, writer.key) == [*acknowledged, chunk]


async def test_producing_and_following_go_on_after_the_server_was_killed(durable: RedisServer) -> None:
    async with harness_on(durable.url) as harness:

        async def crash(_: int) -> None:
            await asyncio.to_thread(durable.stop, 9)
            await asyncio.to_thread(durable.start)

        for _ in range(ROUNDS):
            here, there = await harness.hub(**STEADY), await harness.hub(**STEADY)
            keys = [harness.unique_key() for _ in range(2)]
            await work_under(crash, producing=here, following=[here, there], keys=keys, chunks=100, every=40)


async def test_a_server_that_still_loads_its_data_is_waited_for(durable: RedisServer) -> None:
    async with harness_on(durable.url) as harness:
        here, there = await harness.hub(**STEADY), await harness.hub(**UNPOLLED)
        key, source = harness.unique_key(), words(60)
        async with here.produce(key) as producer, reading(there, key) as live:
            await send_all(producer, source[:20])
            await asyncio.to_thread(_store_much, durable)
            await asyncio.to_thread(durable.stop, 9)
            durable.configure("key-load-delay 100000")  # microseconds, for each key
            starting = asyncio.create_task(asyncio.to_thread(durable.start))
            await eventually(lambda: _refusal_of(durable.url), accept=lambda text: "loading" in text)
            sending = asyncio.create_task(send_all(producer, source[20:]))
            await soon(sending, PATIENCE)
            await starting
            assert_whole(await live.has(60, PATIENCE), source)
        assert_whole(await replay(there, key), source)


def _store_much(server: RedisServer) -> None:
    """Make loading take more than a second; a server answers each time when it has loaded two megabytes more."""
    with server.admin() as client:
        for number in range(12):
            client.set(f"other:{number}", os.urandom(1_000_000))
        client.bgrewriteaof()  # such a file is loaded as a snapshot, which can be slowed down
        wait_until(lambda: client.info("persistence")["aof_last_rewrite_time_sec"] >= 0)


async def _refusal_of(url: str) -> str:
    """Return why nobody can connect now; empty if one can."""
    try:
        async with Hub.from_url(url):
            return ""
    except BackendUnavailableError as exc:
        return str(exc)


@pytest.fixture(params=servers.REDIS_FLAVOURS)
def lazy(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server that syncs every second."""
    with started(servers.redis_binary(request.param), config=["appendonly yes", "appendfsync everysec"]) as server:
        yield server


async def _lose_power(server: RedisServer, sizes: dict[str, int]) -> None:
    """Stop the server, with what it has not synced since ``sizes`` lost, and start it."""
    await asyncio.to_thread(server.stop, 9)
    for path, size in sizes.items():
        os.truncate(path, size)
    await asyncio.to_thread(server.start)


async def _synced(server: RedisServer) -> dict[str, int]:
    """Return how long the append-only file is, once all written so far is in it."""
    await asyncio.to_thread(_wait_for_sync, server)
    return {path: os.path.getsize(path) for path in log_files(server)}


def _wait_for_sync(server: RedisServer) -> None:
    def synced() -> bool:
        facts = client.info("persistence")
        return not facts["aof_pending_bio_fsync"] and not facts["aof_buffer_length"]

    with server.admin() as client:
        wait_until(synced)


async def test_a_producer_sends_again_what_a_power_failure_lost(lazy: RedisServer) -> None:
    async with harness_on(lazy.url) as harness:
        here, there = await harness.hub(**STEADY), await harness.hub(**STEADY)
        key, source = harness.unique_key(), words(60)
        async with reading(there, key, wait=PATIENCE) as live:
            async with asyncio.timeout(PATIENCE), here.produce(key, run="r1") as producer:
                await send_all(producer, source[:20])
                kept = await _synced(lazy)
                await send_all(producer, source[20:40])
                await live.has(40)
                await _lose_power(lazy, kept)
                await send_all(producer, source[40:])
            # It was ahead of the store, in the generation that goes on: it waits, and gets the rest.
            assert_whole(await live.finished(PATIENCE), source)
        assert_whole(await replay(here, key), source)


async def test_a_power_failure_may_lose_what_was_acknowledged_and_a_producer_that_cannot_repair_it_says_so(
    lazy: RedisServer,
) -> None:
    async with harness_on(lazy.url) as harness:
        here, there = await harness.hub(**STEADY), await harness.hub(**STEADY)
        key = harness.unique_key()
        async with reading(there, key, wait=PATIENCE) as live:
            with pytest.raises(DataLostError):
                async with asyncio.timeout(PATIENCE), here.produce(key) as producer:
                    await send_all(producer, [b"kept"])
                    kept = await _synced(lazy)
                    await send_all(producer, [bytes(100_000)] * 20)
                    await live.has(21)
                    await _lose_power(lazy, kept)
                    await send_all(producer, [b"after"])
            assert data_of(await _what_is_stored(here, key)) == [b"kept"]


async def test_a_subscriber_ahead_of_a_dead_producers_store_is_told_when_another_goes_on(lazy: RedisServer) -> None:
    async with harness_on(lazy.url) as harness:
        backend, there = await harness.make(), await harness.hub(abandon_after_seconds=PATIENCE, **STEADY)
        writer = Writer(backend.store, harness.unique_key())
        await writer.open()
        await writer.append(b"a")
        kept = await _synced(lazy)
        await writer.append(b"b", b"c")
        async with reading(there, writer.key) as live:
            await live.has(3)
            await _lose_power(lazy, kept)
            later = Writer(backend.store, writer.key)
            await eventually(lambda: _answers(backend))
            assert (await later.open(resume=True)).tail == 1
            with pytest.raises(StreamReplacedError):
                await live.finished(PATIENCE)
            assert data_of(live.chunks) == [b"a", b"b", b"c"]


async def _answers(backend: Backend) -> bool:
    try:
        await backend.ping()
    except BackendUnavailableError:
        return False
    return True


async def test_a_server_without_persistence_loses_all_and_the_producer_repairs_it_or_says_so(
    any_server: RedisServer,
) -> None:
    async with harness_on(any_server.url) as harness:
        here, there = await harness.hub(**STEADY), await harness.hub(**STEADY)
        short, long, source = harness.unique_key(), harness.unique_key(), words(40)
        async with reading(there, short, wait=PATIENCE) as live:
            async with asyncio.timeout(PATIENCE), here.produce(short, run="r1") as producer:
                await send_all(producer, source[:20])
                await live.has(20)
                with pytest.raises(DataLostError):
                    async with here.produce(long) as unlucky:
                        await send_all(unlucky, [bytes(100_000)] * 20)
                        await asyncio.to_thread(any_server.stop, 9)
                        await asyncio.to_thread(any_server.start)
                        await send_all(unlucky, [b"after"])
                await send_all(producer, source[20:])
            await whole_or_told(live.finished(), source)
        assert_whole(await replay(here, short), source)


# -- A dead network ----------------------------------------------------------------------------------------------------


async def test_a_subscriber_on_a_dead_socket_recovers_within_its_bound(any_server: RedisServer, proxy: Proxy) -> None:
    async with harness_on(through(proxy.port), ping_seconds=0.5) as far, harness_on(any_server.url) as near:
        here, there = await near.hub(**STEADY), await far.hub(**UNPOLLED)
        key = near.unique_key()
        async with here.produce(key) as producer, reading(there, key) as live:
            await send_all(producer, [b"a"])
            await live.has(1)
            proxy.swallow(new=False)
            begun = time.monotonic()
            await send_all(producer, [b"b"])
            assert data_of(await live.has(2)) == [b"a", b"b"]
            # Silence for ping_seconds, a test that is not answered for as long; then a read on a dead socket.
            assert 0.5 < time.monotonic() - begun < (0.5 + 0.5 + 1.0) + SLACK
            await send_all(producer, [b"c"])
            assert data_of(await live.has(3)) == [b"a", b"b", b"c"]


async def test_a_producer_on_a_dead_socket_goes_on_within_its_bound(any_server: RedisServer, proxy: Proxy) -> None:
    async with harness_on(through(proxy.port)) as far, harness_on(any_server.url) as near:
        here, there = await far.hub(**STEADY), await near.hub(**STEADY)
        key, source = near.unique_key(), words(30)
        async with here.produce(key) as producer, reading(there, key) as live:
            await send_all(producer, source[:10])
            proxy.swallow(new=False)
            begun = time.monotonic()
            await send_all(producer, source[10:20])
            assert 0.9 < time.monotonic() - begun < 1.0 + SLACK  # timeout_seconds
            await send_all(producer, source[20:])
            assert_whole(await live.has(30), source)


async def test_a_producer_on_a_dead_socket_hears_of_its_cancellation_within_the_bound(
    any_server: RedisServer, proxy: Proxy
) -> None:
    async with harness_on(through(proxy.port)) as far, harness_on(any_server.url) as near:
        # Steady: no renewal comes to look for requests.
        here, there = await far.hub(**STEADY), await near.hub(**STEADY)
        key = near.unique_key()
        with pytest.raises(ProducerCancelledError):
            async with asyncio.timeout(PATIENCE), here.produce(key, run="r1") as producer:
                await send_all(producer, [b"a"])
                proxy.swallow(new=False)
                await there.cancel(key, run="r1", reason="user")
                begun = time.monotonic()
                await asyncio.Event().wait()
        # As for a subscriber: the first look meets a dead socket.
        assert time.monotonic() - begun < (0.5 + 0.5 + 1.0) + SLACK
        end = await read_end(there, key)
        assert end is not None
        assert end.state == "cancelled"


async def test_work_goes_on_after_a_network_that_was_dead_for_new_connections_too(
    any_server: RedisServer, proxy: Proxy
) -> None:
    async with harness_on(through(proxy.port), timeout_seconds=0.3, connect_seconds=0.3, ping_seconds=0.2) as harness:
        here, there = await harness.hub(**STEADY), await harness.hub(**UNPOLLED)
        key, source = harness.unique_key(), words(30)
        async with here.produce(key) as producer, reading(there, key) as live:
            await send_all(producer, source[:10])
            await live.has(10)
            for dead in (proxy.swallow, proxy.refuse):
                seen = proxy.accepted
                dead()
                for chunk in source[producer.offset.index : producer.offset.index + 10]:
                    await producer.send(chunk)
                # Both sides have noticed, and tried again in vain.
                await eventually(lambda seen=seen: _passed(proxy, seen + 3))
                proxy.heal()
                await soon(producer.flush())
            assert_whole(await live.has(30), source)


async def _passed(proxy: Proxy, count: int) -> bool:
    return proxy.accepted >= count


# -- Time, silence, and the start --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_step_of_the_clients_clock_changes_nothing(server: RedisServer, hours: int) -> None:
    async with harness_on(server.url) as harness:
        here, there = await harness.hub(lease_seconds=1.0), await harness.hub(lease_seconds=1.0)
        key, source = harness.unique_key(), words(4)
        async with here.produce(key, run="r1") as producer, reading(there, key) as live:
            await send_all(producer, source[:2])
            with harness.skewed_clock(3600.0 * hours):
                async with there.produce(harness.unique_key()) as other:
                    # The server's clock counts, for new generations too.
                    assert abs(other.generation - producer.generation) < 600_000
                    await asyncio.sleep(1.5)  # longer than the lease: it is renewed
                await send_all(producer, source[2:])
            assert_whole(await live.has(4), source)


async def test_a_server_that_is_down_at_the_start_is_named_without_the_password_and_may_come_later() -> None:
    port, password = free_port(), secrets.token_hex(8)
    url = f"redis://:{password}@127.0.0.1:{port}/0?connect_seconds=1"
    with pytest.raises(BackendUnavailableError) as caught:
        async with Hub.from_url(url):
            pass
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert password not in repr(caught.value)
    with started(servers.redis_binary("8.2"), config=[f"requirepass {password}"], port=port):
        async with Hub.from_url(url) as hub:
            await produce_all(hub, "k", [b"a"])
            assert data_of(await replay(hub, "k")) == [b"a"]


async def test_a_hub_whose_server_was_down_for_longer_than_its_outage_goes_on_when_it_is_back(
    server: RedisServer,
) -> None:
    async with harness_on(server.url) as harness:
        hub = await harness.hub(outage_seconds=0.2)
        server.stop()
        for attempt in (hub.info("k"), produce_all(hub, "k", [b"a"]), replay(hub, "k"), hub.cancel("k"), hub.ping()):
            with pytest.raises(BackendUnavailableError):
                await soon(attempt)
        server.start()
        await produce_all(hub, "k", [b"a"])
        assert data_of(await replay(hub, "k")) == [b"a"]


async def test_silence_longer_than_every_time_out_breaks_nothing() -> None:
    # The server too drops whoever is silent for a second, except for those who subscribed.
    with started(servers.redis_binary("8.2"), config=["timeout 1"]) as server:
        async with harness_on(server.url, timeout_seconds=0.4, ping_seconds=0.4) as harness:
            here, there = await harness.hub(**UNPOLLED), await harness.hub(**UNPOLLED)
            key = harness.unique_key()
            async with here.produce(key, run="r1") as producer, reading(there, key) as live:
                await send_all(producer, [b"a"])
                await live.has(1)
                await eventually(lambda: _only_subscribers(server))
                await send_all(producer, [b"b"])
                assert data_of(await live.has(2)) == [b"a", b"b"]
            assert await read_end(there, key) == COMPLETED


async def _only_subscribers(server: RedisServer) -> bool:
    with server.admin() as client:
        return all(int(found["sub"]) or found["cmd"] == "client|list" for found in client.client_list())


# -- Many readers ------------------------------------------------------------------------------------------------------


async def test_readers_take_no_more_connections_and_keep_no_append_waiting(server: RedisServer) -> None:
    async with harness_on(server.url, client_name="many") as harness:
        hub = await harness.hub(**STEADY)
        big = [harness.unique_key() for _ in range(4)]
        for key in big:
            await produce_all(hub, key, [bytes(50_000)] * 40)
        reading_on, live_key = True, harness.unique_key()

        async def read_on(number: int) -> None:
            while reading_on:
                assert len(await replay(hub, big[number % 4])) == 40

        readers = [asyncio.create_task(read_on(number)) for number in range(100)]
        async with AsyncExitStack() as stack:
            producer = await stack.enter_async_context(hub.produce(live_key))
            lives = [await stack.enter_async_context(reading(hub, live_key)) for _ in range(100)]
            source = words(20)
            await soon(send_all(producer, source, flush_each=True))
            for live in lives:
                assert_whole(await live.has(20), source)
            assert connections_of(server, "many") <= 3
            reading_on = False
            await soon(asyncio.gather(*readers))
