"""Clusters and Sentinels: slots that move, masters that die, nodes that are not there."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import pytest
import redis
import redis_servers
import servers
from redis.crc import key_slot
from redis_servers import RedisCluster, RedisSentinels, RedisServer, least_privilege
from redis_support import FLAVOURS, connected, until
from streamhub_redis import RedisBackend
from streamhub_redis.slots import Address, Slots, read_ranges

from streamhub import Hub
from streamhub.conformance.writer import Writer
from streamhub.errors import BackendUnavailableError, ConfigError, DataLostError, StreamHubError, StreamReplacedError
from streamhub.types import Append

OPTIONS = "timeout_seconds=1&connect_seconds=1&poll_seconds=0.5&wait_seconds=0.5"


@pytest.fixture(params=FLAVOURS)
def cluster(request: pytest.FixtureRequest) -> RedisCluster:
    return servers.redis_cluster(request.param)


def slot_of(key: str) -> int:
    return key_slot(f"streamhub:{{{key}}}:meta".encode())


def owner_of(cluster: RedisCluster, key: str) -> RedisServer:
    """Return the master that serves a stream, by its own word."""
    for node in cluster.nodes:
        with node.admin() as admin, contextlib.suppress(redis.exceptions.ResponseError):
            admin.execute_command("EXISTS", f"streamhub:{{{key}}}:meta")
            if admin.info("replication")["role"] == "master":
                return node
    raise AssertionError(f"nobody serves {key!r}")


def identity_of(node: RedisServer) -> str:
    with node.admin() as admin:
        return admin.execute_command("CLUSTER", "MYID").decode()


def begin_move(source: RedisServer, target: RedisServer, slot: int) -> None:
    with target.admin() as admin:
        admin.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", identity_of(source))
    with source.admin() as admin:
        admin.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", identity_of(target))


def move_keys(source: RedisServer, target: RedisServer, slot: int, count: int) -> int:
    with source.admin() as admin:
        keys = admin.execute_command("CLUSTER", "GETKEYSINSLOT", slot, count)
        for key in keys:
            admin.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        return len(keys)


def end_move(cluster: RedisCluster, source: RedisServer, target: RedisServer, slot: int) -> None:
    for node in (target, source, *cluster.nodes):
        with node.admin() as admin:
            admin.execute_command("CLUSTER", "SETSLOT", slot, "NODE", identity_of(target))


# --- clusters


async def test_a_stream_follows_its_slot_from_node_to_node(cluster: RedisCluster) -> None:
    """Under load, step by step: keys here and there, then all there, then the slot."""
    key = f"moving-{cluster.nodes[0].port}"
    slot, sent = slot_of(key), 0
    url = f"{cluster.least_url}?{OPTIONS}"
    async with Hub.from_url(url) as here, Hub.from_url(url) as there, asyncio.timeout(50):
        got: list[bytes] = []

        async def follow() -> None:
            async with there.subscribe(key, wait=20) as subscription:
                got.extend([chunk.data async for chunk in subscription])

        following = asyncio.create_task(follow())
        async with here.produce(key) as producer:
            for number in range(4):
                source = owner_of(cluster, key) if number else _serving(cluster, slot)
                target = next(node for node in cluster.masters if node is not source)
                with target.admin() as admin:
                    admin.script_flush()
                for step in (
                    partial(begin_move, source, target, slot),
                    partial(move_keys, source, target, slot, 1),
                    partial(move_keys, source, target, slot, 100),
                    partial(end_move, cluster, source, target, slot),
                ):
                    for _ in range(20):
                        await producer.send(b"%d" % sent)
                        sent += 1
                    await asyncio.sleep(0.01)
                    await asyncio.to_thread(step)
                await producer.flush()
                assert owner_of(cluster, key) is target
        await following
        assert got == [b"%d" % number for number in range(sent)]
        async with here.subscribe(key) as subscription:
            assert [chunk.data async for chunk in subscription] == got
        assert await here.delete(key)


def _serving(cluster: RedisCluster, slot: int) -> RedisServer:
    with cluster.nodes[0].admin() as admin:
        ranges = admin.execute_command("CLUSTER", "SLOTS")
    if isinstance(ranges, dict):  # parsed by the driver
        port = next(facts["primary"][1] for (first, last), facts in ranges.items() if first <= slot <= last)
    else:
        port = next(master[1] for first, last, master, *_ in ranges if first <= slot <= last)
    return next(node for node in cluster.nodes if node.port == port)


async def test_one_call_reaches_all_nodes(cluster: RedisCluster) -> None:
    async with connected(f"{cluster.least_url}?prefix=streamhub:spread") as backend:
        writers = [Writer(backend.store, f"k{number}") for number in range(60)]
        await asyncio.gather(*(writer.open() for writer in writers))
        items = [writer.item(b"a") for writer in writers]
        assert not [answer for answer in await backend.store.append(items) if isinstance(answer, StreamHubError)]
        infos = await backend.store.describe([writer.key for writer in writers])
        assert [info.tail for info in infos if info is not None] == [1] * 60
        assert sorted([key async for key in backend.store.keys("k")]) == sorted(writer.key for writer in writers)
        about = await backend.about()
        assert about["nodes"] == "3"
        for writer in writers:
            assert await backend.store.delete(writer.key)


async def test_hints_cross_nodes(cluster: RedisCluster) -> None:
    async with connected(cluster.least_url) as backend, backend.store.changes() as feed, asyncio.timeout(20):
        hints = aiter(feed)
        for number in range(12):
            writer = Writer(backend.store, f"hint{number}")
            await feed.follow(writer.key)
            await writer.open()
            assert (await anext(hints)).key == writer.key
            await backend.store.delete(writer.key)
            assert (await anext(hints)).key == writer.key


async def test_one_node_of_the_url_is_enough(cluster: RedisCluster) -> None:
    nowhere = redis_servers.free_port()
    there = cluster.nodes[-1].port
    url = f"redis+cluster://streamhub:s3cret@127.0.0.1:{nowhere},127.0.0.1:{there}"
    async with connected(url) as backend:
        await backend.ping()
    with pytest.raises(BackendUnavailableError):
        await RedisBackend(f"redis+cluster://127.0.0.1:{nowhere}").connect()


async def test_a_server_that_is_no_cluster_is_told_apart() -> None:
    server = servers.redis_server("8.2")
    with pytest.raises(ConfigError, match="use redis://"):
        await RedisBackend(f"redis+cluster://127.0.0.1:{server.port}").connect()


async def test_a_slot_that_nobody_serves_is_unavailable() -> None:
    with _cluster("8.2", masters=1, replicas=0, config=["cluster-require-full-coverage no"]) as cluster:
        (node,) = cluster.nodes
        async with connected(cluster.least_url) as backend:
            lost, kept = Writer(backend.store, "lost"), Writer(backend.store, "kept")
            with node.admin() as admin:
                admin.execute_command("CLUSTER", "DELSLOTS", slot_of("lost"))
            with pytest.raises(BackendUnavailableError):
                await lost.open()
            await kept.open()
            answers = await backend.store.append(
                [Append("lost", 7, 1, (b"a",), b"n"), kept.item(b"a"), Append("lost", 7, 1, (b"a",), b"n")]
            )
            assert [isinstance(answer, BackendUnavailableError) for answer in answers] == [True, False, True]
            with node.admin() as admin:
                admin.execute_command("CLUSTER", "ADDSLOTS", slot_of("lost"))
            await lost.open()


def test_slots_are_read_as_nodes_give_them() -> None:
    asked = Address("here", 1)
    reply = [[0, 5, [b"a", 7, b"id"], [b"replica", 8, b"id2"]], [6, 9, [b"", 3, b"id3"]], [10, 10, [None, 4]]]
    ranges = read_ranges(reply, asked)
    assert ranges == [(0, 5, Address("a", 7)), (6, 9, Address("here", 3)), (10, 10, Address("here", 4))]
    slots = Slots()
    slots.replace(ranges)
    assert slots.owners() == [Address("a", 7), Address("here", 3), Address("here", 4)]
    slots.move(3, Address("b", 1))
    assert Address("b", 1) in slots.owners()
    assert read_ranges(b"something else", asked) is None


@contextlib.contextmanager
def _cluster(flavour: str, *, masters: int, replicas: int, config: list[str]) -> Iterator[RedisCluster]:
    cluster = RedisCluster(
        servers.redis_binary(flavour), masters=masters, replicas=replicas, config=[least_privilege(), *config]
    )
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.mark.parametrize("flavour", ["8.2"])
async def test_a_cluster_that_replaces_a_dead_master_goes_on(flavour: str) -> None:
    config = ["cluster-node-timeout 1000", "cluster-replica-validity-factor 0"]
    with _cluster(flavour, masters=3, replicas=3, config=config) as cluster:
        await until(lambda: all(_replicates(node) for node in cluster.nodes[3:]))
        # Not wait_replicas: the one replica that becomes master has none.
        url = f"{cluster.least_url}?{OPTIONS}"
        async with Hub.from_url(url) as here, Hub.from_url(url) as there, asyncio.timeout(50):
            await _survives(here, there, "k", lambda: owner_of(cluster, "k").stop(signal.SIGKILL))


def _replicates(node: RedisServer) -> bool:
    with node.admin() as admin:
        facts = admin.info("replication")
    return facts["role"] == "slave" and facts.get("master_link_status") == "up"


# --- Sentinels


@contextlib.contextmanager
def _sentinels(flavour: str) -> Iterator[RedisSentinels]:
    sentinels = RedisSentinels(servers.redis_binary(flavour), replicas=2, down_after_ms=500, config=[least_privilege()])
    try:
        sentinels.start()
        yield sentinels
    finally:
        sentinels.close()


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_producer_and_its_subscribers_follow_a_failover(flavour: str) -> None:
    with _sentinels(flavour) as sentinels:
        url = f"{sentinels.least_url}?{OPTIONS}&wait_replicas=1"
        async with Hub.from_url(url) as here, Hub.from_url(url) as there, asyncio.timeout(50):
            await _survives(here, there, "k", lambda: sentinels.master.stop(signal.SIGKILL))
            assert sentinels.address() != sentinels.master.port


async def _survives(here: Hub, there: Hub, key: str, strike: Callable[[], None]) -> None:
    """Produce and read while a master dies: all that the producer could send is read once, in order."""
    got: list[bytes] = []

    async def follow() -> None:
        async with there.subscribe(key, wait=20) as subscription:
            async for chunk in subscription:
                got.append(chunk.data)

    following = asyncio.create_task(follow())
    sent = 0
    async with here.produce(key) as producer:
        for number in range(200):
            await producer.send(b"%d" % number)
            sent += 1
            if number == 60:
                await producer.flush()
                await asyncio.to_thread(strike)
            await asyncio.sleep(0.01)
    await following
    assert got == [b"%d" % number for number in range(sent)]
    async with here.subscribe(key) as subscription:
        assert [chunk.data async for chunk in subscription] == got


async def test_a_master_that_nobody_knows_is_unavailable() -> None:
    sentinels = servers.redis_sentinels("8.2")
    hosts = sentinels.least_url.partition("@")[2].partition("/")[0]
    with pytest.raises(BackendUnavailableError, match="'another'"):
        await RedisBackend(f"redis+sentinel://{hosts}/another").connect()


async def test_one_sentinel_of_the_url_is_enough() -> None:
    sentinels = servers.redis_sentinels("8.2")
    nowhere, there = redis_servers.free_port(), sentinels.sentinels[0].port
    url = f"redis+sentinel://streamhub:s3cret@127.0.0.1:{nowhere},127.0.0.1:{there}/main"
    async with connected(url) as backend:
        await backend.ping()
        await Writer(backend.store, "k").open()
        await backend.store.delete("k")


async def test_a_lost_tail_is_sent_again_or_told() -> None:
    """A failover that loses what was acknowledged: the producer repairs it, or raises; nobody gets a wrong log."""
    with _sentinels("8.2") as sentinels:
        url = f"{sentinels.least_url}?{OPTIONS}"
        async with Hub.from_url(url) as here, Hub.from_url(url) as there, asyncio.timeout(50):
            with contextlib.suppress(DataLostError):
                async with here.produce("k") as producer:
                    for number in range(50):
                        await producer.send(b"%d" % number)
                    await producer.flush()
                    await until(lambda: all(_lengths(server) for server in sentinels.servers))
                    # From here on the replicas do not get what the master acknowledges.
                    for replica in sentinels.servers[1:]:
                        replica.freeze()
                    for number in range(50, 80):
                        await producer.send(b"%d" % number)
                    await producer.flush()
                    got: list[bytes] = []
                    with contextlib.suppress(StreamReplacedError):
                        async with there.subscribe("k") as subscription:
                            async for chunk in subscription:
                                got.append(chunk.data)
                                if len(got) == 80:
                                    break
                    assert len(got) == 80
                    sentinels.master.stop(signal.SIGKILL)
                    for replica in sentinels.servers[1:]:
                        replica.thaw()
                    for number in range(80, 100):
                        await producer.send(b"%d" % number)
                    await producer.flush()
            async with there.subscribe("k") as subscription:
                stored = [chunk.data async for chunk in subscription]
            assert stored == [b"%d" % number for number in range(len(stored))]
            assert len(stored) in (50, 100)


def _lengths(server: RedisServer) -> bool:
    with server.admin() as admin:
        return admin.hget("streamhub:{k}:meta", "tail") == b"50"


@pytest.fixture(autouse=True)
async def nothing_left_running() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    await until(lambda: not {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()})
