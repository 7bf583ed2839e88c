"""Failover by Sentinels, planned and not: what the producer repairs, and what subscribers are told."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator

import pytest
import servers
from redis_faults import PATIENCE, ROUNDS, STEADY, admin, assert_whole, harness_on, work_under
from redis_sentinel import SERVICE, SentinelSetup, watched
from redis_servers import RedisServer, started

from streamhub import BackendUnavailableError, DataLostError, StreamReplacedError
from streamhub.conformance.drive import UNPOLLED, data_of, produce_all, reading, replay, send_all, soon, words
from streamhub.conformance.waiting import eventually
from streamhub.conformance.writer import Writer, acquire, described, read_all

pytestmark = pytest.mark.timeout(120 * ROUNDS)


@pytest.fixture
def setup() -> Iterator[SentinelSetup]:
    with watched(servers.redis_binary("8.2")) as setup:
        yield setup


@pytest.fixture(params=servers.REDIS_GROUP_FLAVOURS)
def any_setup(request: pytest.FixtureRequest) -> Iterator[SentinelSetup]:
    with watched(servers.redis_binary(request.param)) as setup:
        yield setup


def kill_master(setup: SentinelSetup) -> None:
    """Kill the master; return once there is another."""
    dead = setup.master
    dead.stop(signal.SIGKILL)
    setup.wait_for_another(dead)


def freeze_master(setup: SentinelSetup) -> None:
    """Let the master stand still, its connections staying up; return once there is another."""
    frozen = setup.master
    frozen.freeze()
    setup.wait_for_another(frozen)


def plan_failover(setup: SentinelSetup) -> None:
    """Let the Sentinels make another the master, and the master its replica: it refuses writes."""
    setup.fail_over()


@pytest.mark.parametrize("fault", [plan_failover, kill_master, freeze_master])
async def test_nothing_is_lost_or_doubled_when_a_replica_takes_over(
    any_setup: SentinelSetup, fault: Callable[[SentinelSetup], None]
) -> None:
    async with harness_on(any_setup.url) as harness:
        for number in range(ROUNDS):
            if number:
                await asyncio.to_thread(any_setup.repair)
            here, there = await harness.hub(**STEADY), await harness.hub(**UNPOLLED)
            keys = [harness.unique_key() for _ in range(3)]

            async def strike(_: int) -> None:
                # A failover may lose a tail, not streams of which the replica has never heard.
                await eventually(lambda: asyncio.to_thread(any_setup.caught_up))
                await asyncio.to_thread(fault, any_setup)

            await work_under(
                strike,
                producing=here,
                following=[here, there],
                keys=keys,
                chunks=60,
                every=40,
            )


async def test_what_replicas_confirmed_survives_the_master(any_setup: SentinelSetup) -> None:
    async with harness_on(any_setup.url, wait_replicas=1, wait_seconds=0.5) as harness:
        backend = await harness.make()
        writer, acknowledged = Writer(backend.store, harness.unique_key()), list[bytes]()
        await writer.open((await acquire(backend, writer.key)).generation)
        killing: asyncio.Future[None] | None = None
        with pytest.raises(BackendUnavailableError):
            while True:
                chunk = b"%d" % len(acknowledged)
                await writer.append(chunk)
                acknowledged.append(chunk)
                if len(acknowledged) == 50:
                    killing = asyncio.ensure_future(asyncio.to_thread(kill_master, any_setup))
        assert killing is not None
        await soon(killing, PATIENCE)
        stored = await read_all(backend.store, writer.key)
        assert stored[: len(acknowledged)] == acknowledged
        assert len(stored) <= len(acknowledged) + 1
        assert (await described(backend.store, writer.key)).generation == writer.generation


async def test_a_producer_sends_again_what_a_failover_lost(any_setup: SentinelSetup) -> None:
    async with harness_on(any_setup.url) as harness:
        here, there = await harness.hub(**STEADY), await harness.hub(**STEADY)
        key, source = harness.unique_key(), words(90)
        async with reading(there, key, wait=PATIENCE) as live:
            async with asyncio.timeout(PATIENCE), here.produce(key, run="r1") as producer:
                await send_all(producer, source[:30])
                await eventually(lambda: asyncio.to_thread(any_setup.caught_up))
                any_setup.cut_replication()
                await send_all(producer, source[30:60])
                await live.has(60)
                failing = asyncio.ensure_future(asyncio.to_thread(kill_master, any_setup))
                # It was ahead of the replica, in the generation that goes on: it waits, and gets the rest.
                await send_all(producer, source[60:])
                await failing
            assert_whole(await live.finished(PATIENCE), source)
        assert_whole(await replay(here, key), source)


async def test_a_producer_that_cannot_send_again_what_a_failover_lost_says_so(setup: SentinelSetup) -> None:
    async with harness_on(setup.url) as harness:
        here, there = await harness.hub(**STEADY), await harness.hub(**STEADY)
        key, big = harness.unique_key(), [bytes(50_000)] * 20
        with pytest.raises(DataLostError):
            async with asyncio.timeout(PATIENCE), here.produce(key) as producer:
                await send_all(producer, [b"kept"])
                await eventually(lambda: asyncio.to_thread(setup.caught_up))
                setup.cut_replication()
                await send_all(producer, big)
                await asyncio.to_thread(kill_master, setup)
                await send_all(producer, [b"after"])
        backend = await harness.make()
        assert await read_all(backend.store, key) == [b"kept"]
        await produce_all(there, key, [b"new"], unfinished="replace", run="r2")
        assert data_of(await replay(here, key)) == [b"new"]


async def test_a_subscriber_ahead_of_the_replica_is_told_when_another_producer_goes_on(setup: SentinelSetup) -> None:
    async with harness_on(setup.url) as harness:
        backend, there = await harness.make(), await harness.hub(abandon_after_seconds=PATIENCE, **STEADY)
        writer = Writer(backend.store, harness.unique_key())
        await writer.open()
        await writer.append(b"a")
        await eventually(lambda: asyncio.to_thread(setup.caught_up))
        setup.cut_replication()
        await writer.append(b"b", b"c")
        async with reading(there, writer.key) as live:
            await live.has(3)
            await asyncio.to_thread(kill_master, setup)
            assert await read_all(backend.store, writer.key) == [b"a"]
            assert not live.task.done()
            later = Writer(backend.store, writer.key)
            assert (await later.open(resume=True)).tail == 1
            with pytest.raises(StreamReplacedError):
                await live.finished(PATIENCE)
            assert live.data == [b"a", b"b", b"c"]


async def test_one_sentinel_that_answers_is_enough(setup: SentinelSetup) -> None:
    for sentinel in setup.sentinels[:2]:
        sentinel.stop()
    async with harness_on(setup.url) as harness:
        hub = await harness.hub()
        await produce_all(hub, key := harness.unique_key(), words(3))
        assert_whole(await replay(hub, key), words(3))
        setup.sentinels[2].stop()
        with pytest.raises(BackendUnavailableError, match="sentinel"):
            await soon(harness.connect())


async def test_a_sentinel_that_has_not_heard_of_a_failover_is_not_believed() -> None:
    """Nor is the old master, which runs again, and does not know that it is one no more."""
    path = servers.redis_binary("8.2")
    # Those who connect as this user hear nothing of the other Sentinels, and these nothing of them.
    deaf_user = "user deaf on >s3cret ~* &* +@all -subscribe -psubscribe -publish"
    with watched(path, config=[deaf_user]) as setup:
        before = setup.master
        watch = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {before.port} 2",
            f"sentinel auth-user {SERVICE} deaf",
            f"sentinel auth-pass {SERVICE} s3cret",
        ]
        with started(path, config=watch, mode="--sentinel") as deaf:
            await asyncio.to_thread(kill_master, setup)
            # Nobody may make it a replica: it stays a master for as long as the test takes.
            before.configure("user default on nopass ~* &* +@all -slaveof -replicaof")
            before.start()
            for first in (deaf.port, setup.sentinels[0].port):
                others = [port for port in (deaf.port, setup.sentinels[0].port) if port != first]
                hosts = ",".join(f"127.0.0.1:{port}" for port in [first, *others])
                async with harness_on(f"redis+sentinel://{hosts}/{SERVICE}/0") as harness:
                    await produce_all(await harness.hub(), harness.unique_key(), words(3))
            assert deaf_to(deaf, before)
            assert await admin(before, "DBSIZE") == 0
            assert await admin(setup.master, "DBSIZE") > 0


def deaf_to(sentinel: RedisServer, master: RedisServer) -> bool:
    """Say whether a Sentinel still names a master that thinks so too."""
    with sentinel.admin() as client, master.admin() as named:
        return client.sentinel_get_master_addr_by_name(SERVICE)[1] == master.port and named.role()[0] == b"master"
