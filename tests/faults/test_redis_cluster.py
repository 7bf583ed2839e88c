"""A cluster: the three protocols on it, and slots that move, or whose node dies, under load."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
import servers
from ports import free_port
from proxy import proxied
from redis_cluster import BUS_OFFSET, Cluster, Migration, clustered
from redis_faults import admin, harness_on
from redis_servers import RedisServer
from work import PATIENCE, ROUNDS, STEADY, assert_whole, work_under

from streamhub import BackendUnavailableError, ProducerCancelledError
from streamhub.conformance.drive import UNPOLLED, data_of, produce_all, reading, replay, send_all, soon, words
from streamhub.conformance.writer import Writer, acquire, append, described, read_all
from streamhub.types import COMPLETED

pytestmark = pytest.mark.timeout(120 * ROUNDS)


@pytest.fixture(params=servers.REDIS_GROUP_FLAVOURS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    config = ["appendonly yes", "appendfsync always", "cluster-require-full-coverage no"]
    with clustered(servers.redis_binary(request.param), config=config) as cluster:
        yield cluster


def log_name(key: str) -> bytes:
    return f"streamhub:{{{key}}}:log".encode()


async def test_streams_on_every_node_are_produced_followed_cancelled_and_listed(cluster: Cluster) -> None:
    async with harness_on(cluster.url) as harness:
        here, there = await harness.hub(**STEADY), await harness.hub(**UNPOLLED)
        keys = [harness.unique_key() for _ in range(12)]
        assert len({cluster.owner(cluster.migration(log_name(key)).slot).port for key in keys}) == 3
        for key in keys[:9]:
            async with reading(there, key, wait=PATIENCE) as live:
                await produce_all(here, key, words(20))
                assert_whole(await live.finished(), words(20))
        for key in keys[9:]:
            with pytest.raises(ProducerCancelledError):
                async with asyncio.timeout(PATIENCE), here.produce(key, run="r1") as producer:
                    await send_all(producer, words(3))
                    await there.cancel(key, run="r1")
                    await asyncio.Event().wait()
        assert sorted([key async for key in there.keys(harness.prefix)]) == sorted(keys)
        assert await there.delete(keys[0])


async def test_nothing_is_lost_or_doubled_while_slots_move(cluster: Cluster) -> None:
    async with harness_on(cluster.url) as harness:
        for _ in range(ROUNDS):
            here, there = await harness.hub(**STEADY), await harness.hub(**UNPOLLED)
            keys = [harness.unique_key() for _ in range(3)]

            async def move(_: int, keys: list[str] = keys) -> None:
                for node in cluster.nodes:
                    await admin(node, "SCRIPT", "FLUSH")
                for key in keys:
                    await asyncio.to_thread(cluster.migration(log_name(key)).run)

            await work_under(move, producing=here, following=[here, there], keys=keys)


@pytest.mark.parametrize("moved", ["nothing", "meta", "log", "both"])
async def test_every_step_of_a_slots_move_is_ridden_out(cluster: Cluster, moved: str) -> None:
    async with harness_on(cluster.url) as harness:
        backend, there = await harness.make(), await harness.hub(**STEADY)
        writer = Writer(backend.store, harness.unique_key())
        lease = await acquire(backend, writer.key)
        await writer.open(lease.generation)
        await writer.append(b"a")
        async with reading(there, writer.key) as live:
            await live.has(1)
            migration: Migration = cluster.migration(log_name(writer.key))
            migration.begin()
            names = migration.keys()
            assert len(names) == 3
            chosen = [name for name in names if moved == "both" or name.endswith(moved.encode())]
            if chosen:
                migration.move(*chosen)
            item = writer.item(b"b", b"c")
            try:
                await append(backend.store, item)
            except BackendUnavailableError:
                assert moved in ("meta", "log")  # the two are on two nodes: neither can do it
            await asyncio.to_thread(_finish, migration)
            assert (await append(backend.store, item)).tail == 3
            assert data_of(await live.has(3)) == [b"a", b"b", b"c"]
            assert await backend.leases.renew([lease]) == [True]
        assert await read_all(backend.store, writer.key) == [b"a", b"b", b"c"]
        assert cluster.owner(migration.slot) is migration.target


def _finish(migration: Migration) -> None:
    while names := migration.keys():
        migration.move(*names)
    migration.finish()


async def test_a_node_that_is_killed_delays_only_its_own_streams(cluster: Cluster) -> None:
    async with harness_on(cluster.url) as harness:
        here, there = await harness.hub(**STEADY), await harness.hub(**STEADY)
        keys = [harness.unique_key() for _ in range(12)]
        owners = {key: cluster.owner(cluster.migration(log_name(key)).slot) for key in keys}
        struck = cluster.nodes[0]
        hit, spared = [next(key for key in keys if (owners[key] is struck) == wanted) for wanted in (True, False)]
        async with here.produce(hit, run="r1") as one, here.produce(spared, run="r1") as other:
            async with reading(there, hit) as first, reading(there, spared) as second:
                for producer in (one, other):
                    await send_all(producer, words(10))
                await asyncio.to_thread(struck.stop, signal.SIGKILL)
                await one.send(b"more")
                await soon(send_all(other, [b"more"]))
                await second.has(11)
                await asyncio.to_thread(struck.start)
                await soon(one.flush(), PATIENCE)
                await first.has(11, PATIENCE)
                assert first.data == second.data == [*words(10), b"more"]
        for key in (hit, spared):
            assert_whole(await replay(there, key), [*words(10), b"more"])
            assert (await described((await harness.make()).store, key)).end == COMPLETED


async def test_a_node_that_has_not_heard_of_a_slots_move_does_not_lead_back() -> None:
    """Each move is met once: what MOVED said holds, whatever the map of a node says that cannot know it."""
    async with AsyncExitStack() as stack:
        ports = [free_port() for _ in range(3)]
        buses = [
            await stack.enter_async_context(proxied("127.0.0.1", port + BUS_OFFSET, opaque=True)) for port in ports
        ]
        cluster = Cluster(
            servers.redis_binary("8.2"),
            ways=[(port, bus.port) for port, bus in zip(ports, buses, strict=True)],
            config=["cluster-node-timeout 60000"],
        )
        stack.callback(cluster.close)
        await asyncio.to_thread(cluster.start)
        harness = await stack.enter_async_context(harness_on(cluster.url))
        store = (await harness.make()).store
        writers = [Writer(store, harness.unique_key()) for _ in range(16)]
        for writer in writers:
            await writer.open()
        for bus in buses:
            bus.swallow()
        for writer in writers:
            migration = cluster.migration(log_name(writer.key))
            migration.begin()
            migration.move(*migration.keys())
            migration.hand_over()
            for other in writers:
                await other.append(b"a")
        assert sum(_redirections(node) for node in cluster.nodes) == len(writers)


def _redirections(node: RedisServer) -> int:
    with node.admin() as client:
        return client.info("errorstats").get("errorstat_MOVED", {"count": 0})["count"]


@pytest.mark.parametrize("flavour", servers.REDIS_GROUP_FLAVOURS)
async def test_nothing_is_lost_or_doubled_when_a_replica_takes_over_its_masters_slots(flavour: str) -> None:
    config = ["appendonly yes", "cluster-node-timeout 1000", "cluster-replica-validity-factor 0"]
    with clustered(servers.redis_binary(flavour), replicas=3, config=config) as cluster:
        async with harness_on(cluster.url) as harness:
            here, there = await harness.hub(**STEADY), await harness.hub(**UNPOLLED)
            keys = [harness.unique_key() for _ in range(3)]
            slot = cluster.migration(log_name(keys[0])).slot
            dead = cluster.owner(slot)

            async def fail_over(_: int) -> None:
                dead.stop(signal.SIGKILL)
                await asyncio.to_thread(cluster.owner, slot)

            await work_under(fail_over, producing=here, following=[here, there], keys=keys, chunks=60, every=40)
