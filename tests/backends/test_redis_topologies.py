"""Clusters and Sentinels: requests go where their slot is, hints cross nodes, and some nodes are enough."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import servers
from ports import free_port
from redis.crc import key_slot
from redis_cluster import Cluster, clustered
from redis_support import connected, until
from streamhub_redis import RedisBackend
from streamhub_redis.slots import Address, Slots, read_ranges

from streamhub.conformance.writer import Writer
from streamhub.errors import BackendUnavailableError, ConfigError, StreamHubError
from streamhub.types import Append

FIND = "+sentinel|get-master-addr-by-name"


@pytest.fixture(autouse=True)
async def nothing_left_running() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    await until(lambda: not {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()})


@pytest.fixture(params=servers.REDIS_GROUP_FLAVOURS)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return servers.redis_cluster(request.param)


def slot_of(key: str) -> int:
    return key_slot(f"streamhub:{{{key}}}:meta".encode())


# --- clusters


async def test_one_call_reaches_all_nodes(cluster: Cluster) -> None:
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


async def test_hints_cross_nodes(cluster: Cluster) -> None:
    async with connected(cluster.least_url) as backend, backend.store.changes() as feed, asyncio.timeout(20):
        hints = aiter(feed)
        for number in range(12):
            writer = Writer(backend.store, f"hint{number}")
            await feed.follow(writer.key)
            await writer.open()
            assert (await anext(hints)).key == writer.key
            await backend.store.delete(writer.key)
            assert (await anext(hints)).key == writer.key


async def test_one_node_of_the_url_is_enough(cluster: Cluster) -> None:
    nowhere = free_port()
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
    config = ["cluster-require-full-coverage no"]
    with clustered(servers.redis_binary("8.2"), masters=1, config=config) as cluster:
        (node,) = cluster.nodes
        async with connected(cluster.url) as backend:
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


def test_a_slot_that_moved_stays_until_a_map_agrees() -> None:
    old, new, newer = Address("old", 1), Address("new", 2), Address("newer", 3)
    slots, key = Slots(), b"{k}"
    slot = key_slot(key)
    slots.replace([(0, 16383, old)])
    slots.move(slot, new)
    slots.replace([(0, 16383, old)])
    assert slots.owner(key) == new
    slots.replace([(0, slot - 1, old), (slot, slot, new), (slot + 1, 16383, old)])
    slots.replace([(0, 16383, newer)])
    assert slots.owner(key) == newer
    slots.move(slot, new)
    slots.forget(new)  # it does not answer: another may have taken its slots over
    slots.replace([(0, 16383, newer)])
    assert slots.owner(key) == newer


async def test_a_master_that_nobody_knows_is_unavailable() -> None:
    sentinels = servers.redis_sentinels("8.2")
    nowhere, server = free_port(), servers.redis_server("8.2")
    hosts = f"127.0.0.1:{nowhere},127.0.0.1:{server.port},{sentinels.hosts}"
    with pytest.raises(BackendUnavailableError, match="'another'") as caught:
        await RedisBackend(f"redis+sentinel://{hosts}/another").connect()
    assert f"127.0.0.1:{server.port} (unknown command 'SENTINEL'" in str(caught.value)
    assert f"127.0.0.1:{nowhere} (Error 111" in str(caught.value)
    assert str(caught.value).count("it knows none of this name") == len(sentinels.sentinels)


async def test_a_sentinel_is_told_from_a_server() -> None:
    sentinel = servers.redis_sentinels("8.2").sentinels[0]
    with pytest.raises(ConfigError, match=r"redis\+sentinel://"):
        await RedisBackend(f"redis://127.0.0.1:{sentinel.port}").connect()


@pytest.mark.parametrize("rights", [["+sentinel|master", FIND], [FIND]], ids=["all it asks", "the least"])
async def test_a_user_of_the_sentinels_needs_few_rights(rights: list[str]) -> None:
    sentinels = servers.redis_sentinels("8.2")
    for sentinel in sentinels.sentinels:
        with sentinel.admin() as admin:
            admin.execute_command("ACL", "SETUSER", "finder", "reset", "on", ">s3cret", "-@all", *rights)
    own = "sentinel_username=finder&sentinel_password="
    async with connected(f"{sentinels.least_url}?{own}s3cret") as backend:
        await backend.ping()
    with pytest.raises(ConfigError, match="correct sentinel_username") as caught:
        await RedisBackend(f"{sentinels.least_url}?{own}wr0ng").connect()
    assert "wr0ng" not in repr(caught.value)
