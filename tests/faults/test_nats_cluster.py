"""What happens to a cluster of three nats-servers with three copies of everything, and what comes of it."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import servers
from nats_faults import harness_on
from nats_servers import NatsCluster, clustered
from ports import free_port
from proxy import Proxy, proxied
from streamhub_nats import NatsBackend, ledger
from test_nats_faults import begun, steal
from work import assert_whole

from streamhub import BackendUnavailableError, Hub
from streamhub.conformance import UrlHarness
from streamhub.conformance.drive import reading, replay, soon, words
from streamhub.conformance.waiting import eventually
from streamhub.conformance.writer import Writer, append, read_all
from streamhub.types import Page, Read, Retention

pytestmark = pytest.mark.timeout(300)

REPLICATED = {"replicas": 3, "min_lease_seconds": 1, "timeout_seconds": 4.0}

PAUSE_SECONDS = 12.0
"""How long a cluster may be without a leader."""

PATIENCE = 5 * PAUSE_SECONDS

RIDING = {"lease_seconds": 600.0, "outage_seconds": 120.0, "poll_seconds": 2.0}


@pytest.fixture
def cluster() -> Iterator[NatsCluster]:
    """A cluster of one test's own."""
    with clustered(servers.nats_binary("2.15")) as cluster:
        yield cluster


async def work_through(harness: UrlHarness, *, pairs: int, disturb: object, rounds: int) -> float:
    """Let so many producers and readers work until all disturbances are over; return the longest pause of any append.

    Every reader must get what its producer sent, once, in order, and so must one that comes later.
    """
    here, there = await harness.hub(**RIDING), await harness.hub(**RIDING)
    keys, over, longest = [harness.unique_key() for _ in range(pairs)], asyncio.Event(), 0.0
    sources: dict[str, list[bytes]] = {key: [] for key in keys}
    flushed = asyncio.Event()

    async def produce(key: str) -> None:
        nonlocal longest
        async with here.produce(key, run="r1", retention=Retention()) as producer:
            for number in itertools.count(1):
                chunk = f"{key} {number}".encode()
                sources[key].append(chunk)
                await producer.send(chunk)
                if number % 5 == 0:
                    since = time.monotonic()
                    await producer.flush()
                    longest = max(longest, time.monotonic() - since)
                    flushed.set()
                    if over.is_set():
                        return
                await asyncio.sleep(0.005)

    async with AsyncExitStack() as stack:
        lives = [await stack.enter_async_context(reading(there, key, run="r1", wait=PATIENCE)) for key in keys]
        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(produce(key))
            for number in range(rounds):
                await disturb(number)  # type: ignore[operator]
                flushed.clear()
                await soon(flushed.wait(), PATIENCE)
            over.set()
        for key, live in zip(keys, lives, strict=True):
            assert_whole(await live.finished(PATIENCE), sources[key])
    for key in keys:
        assert_whole(await replay(there, key), sources[key])
    return longest


async def test_nothing_is_lost_or_doubled_while_leaders_are_killed(cluster: NatsCluster) -> None:
    async with harness_on(cluster.url, **REPLICATED) as harness:

        async def disturb(_: int) -> None:
            leader = await asyncio.to_thread(cluster.leader, f"SH_{harness.token}")
            await asyncio.to_thread(leader.kill)
            await asyncio.sleep(1.0)  # it is away for a while: not a bound, but part of the fault
            await asyncio.to_thread(cluster.start)

        pause = await work_through(harness, pairs=20, disturb=disturb, rounds=3)
        assert pause < PATIENCE


async def test_six_producers_that_steal_a_replicated_stream_lose_and_double_nothing(cluster: NatsCluster) -> None:
    async with harness_on(cluster.url, **REPLICATED) as harness:
        await steal(harness, seconds=6.0)


async def test_without_a_majority_calls_end_and_work_goes_on_when_it_is_back(cluster: NatsCluster) -> None:
    async with harness_on(cluster.url, **REPLICATED) as harness:
        backend = await harness.make()
        writer = await begun(backend, harness.unique_key())
        await writer.append(b"a")
        for server in cluster.servers[1:]:
            server.kill()
        since = time.monotonic()
        item = writer.item(b"b")
        for _ in range(3):
            (answer,) = await backend.store.append([item])
            assert isinstance(answer, BackendUnavailableError)
        assert time.monotonic() - since < 5 * 3 * (REPLICATED["timeout_seconds"] + 2.0)
        await asyncio.to_thread(cluster.start)
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await append(backend.store, item)
                    break
                except BackendUnavailableError:
                    await asyncio.sleep(0.2)
        assert await read_all(backend.store, writer.key) == [b"a", b"b"]


async def settled(backend: NatsBackend, key: str) -> Writer:
    """Begin a stream, once the servers have done with electing leaders for what they have just made."""
    numbers = itertools.count()

    async def attempt() -> Writer | None:
        try:
            return await begun(backend, f"{key}-{next(numbers)}")
        except BackendUnavailableError:
            return None

    writer = await eventually(attempt, within=PATIENCE)
    assert writer is not None
    return writer


async def test_server_that_has_less_than_was_seen_is_not_believed(cluster: NatsCluster) -> None:
    async with harness_on(cluster.url, **REPLICATED) as harness:
        backend = await harness.make()
        writer = await settled(backend, harness.unique_key())
        await writer.append(b"first")
        streams, subject = backend._session.streams, backend._session.names.stream(writer.key)
        newest = await streams.last(subject)
        assert newest is not None

        streams.saw(subject, newest.sequence + 1)
        (page,) = await backend.store.read([Read(writer.key, 0)])
        assert isinstance(page, BackendUnavailableError)
        assert "has less than was read before" in str(page)

        await settled(backend, harness.unique_key())  # now it has more: what it has not of the other stream is gone
        assert await read_all(backend.store, writer.key) == [b"first"]


async def test_doubts_about_a_server_do_not_add_up(cluster: NatsCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async with harness_on(cluster.url, **REPLICATED) as harness:
        backend = await harness.make()
        writer = await settled(backend, harness.unique_key())
        streams, subject = backend._session.streams, backend._session.names.stream(writer.key)
        since = time.monotonic()
        for _ in range(3):
            newest = await streams._last(subject)
            assert newest is not None
            streams.saw(subject, newest.sequence + 1)
            (page,) = await backend.store.read([Read(writer.key, 0)])
            assert isinstance(page, BackendUnavailableError)
            await writer.append(b"x")  # what was seen is there
            await read_all(backend.store, writer.key)
            monkeypatch.setattr(ledger, "_BELIEF_SECONDS", (time.monotonic() - since) / 2)


async def test_store_that_has_gone_back_is_believed_in_the_end(
    cluster: NatsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_BELIEF_SECONDS", 1.0)
    async with harness_on(cluster.url, **REPLICATED) as harness:
        backend = await harness.make()
        writer = await settled(backend, harness.unique_key())
        await writer.append(b"first")
        backend._session.streams.saw(backend._session.names.stream(writer.key), 2**60)
        since = time.monotonic()
        await eventually(
            lambda: backend.store.read([Read(writer.key, 0)]), lambda pages: isinstance(pages[0], Page), within=PATIENCE
        )
        assert time.monotonic() - since >= 1.0
        assert await read_all(backend.store, writer.key) == [b"first"]


async def test_what_is_stored_here_or_told_of_counts_as_seen(cluster: NatsCluster) -> None:
    async with harness_on(cluster.url, **REPLICATED) as harness:
        here, there = await harness.make(), await harness.make()
        writer = await settled(here, harness.unique_key())
        told, subject = there._session.streams, there._session.names.stream(writer.key)
        async with there.store.changes() as feed:
            await feed.follow(writer.key)
            await writer.append(b"second")
            await soon(anext(aiter(feed)), PATIENCE)
        newest = await here._session.streams._last(subject)
        assert newest is not None
        assert here._session.streams._seen.get(subject) == told._seen.get(subject) == newest.sequence


@asynccontextmanager
async def partitionable() -> AsyncGenerator[tuple[NatsCluster, dict[tuple[int, int], Proxy]]]:
    """Run a cluster whose servers reach each other through proxies."""
    routes = [free_port() for _ in range(3)]
    async with AsyncExitStack() as stack:
        proxies = {
            (one, other): await stack.enter_async_context(proxied("127.0.0.1", routes[other], opaque=True))
            for one, other in itertools.permutations(range(3), 2)
        }
        ways = {pair: proxy.port for pair, proxy in proxies.items()}
        cluster = NatsCluster(servers.nats_binary("2.15"), routes=routes, ways=ways)
        try:
            await asyncio.to_thread(cluster.start)
            yield cluster, proxies
        finally:
            await asyncio.to_thread(cluster.close)


async def test_nothing_is_lost_or_doubled_while_the_leader_is_cut_off_from_the_others() -> None:
    async with partitionable() as (cluster, proxies), harness_on(cluster.url, **REPLICATED) as harness:

        async def disturb(_: int) -> None:
            leader = await asyncio.to_thread(cluster.leader, f"SH_{harness.token}")
            number = cluster.servers.index(leader)
            cut_off = [proxy for pair, proxy in proxies.items() if number in pair]
            for proxy in cut_off:
                proxy.refuse()
            await asyncio.sleep(15.0)  # longer than it takes to elect another one
            for proxy in cut_off:
                proxy.heal()
            for server in cluster.servers:
                await asyncio.to_thread(server.wait, "/healthz")

        assert await work_through(harness, pairs=5, disturb=disturb, rounds=2) < PATIENCE


async def test_a_server_in_lame_duck_mode_is_left_without_loss() -> None:
    config = 'lame_duck_duration: "30s"\nlame_duck_grace_period: "1s"'
    with clustered(servers.nats_binary("2.15"), config=config) as cluster:
        async with harness_on(cluster.url, **REPLICATED) as harness:

            async def disturb(_: int) -> None:
                leader = await asyncio.to_thread(cluster.leader, f"SH_{harness.token}")
                process = leader._process
                assert process is not None
                process.send_signal(signal.SIGUSR2)
                await asyncio.to_thread(process.wait, 60)
                leader.stop()

            assert await work_through(harness, pairs=5, disturb=disturb, rounds=1) < PATIENCE


async def test_processes_that_start_together_make_the_streams_of_a_new_namespace_once(cluster: NatsCluster) -> None:
    for _ in range(3):
        async with harness_on(cluster.url, replicas=3, timeout_seconds=10) as harness:
            backends = [NatsBackend(str(harness.url)) for _ in range(6)]
            try:
                await asyncio.gather(*(backend.connect() for backend in backends))
                writer = await begun(backends[0], harness.unique_key())
                await writer.append(b"first")
                for backend in backends:
                    assert await read_all(backend.store, writer.key) == [b"first"]
            finally:
                for backend in backends:
                    await backend.aclose()


async def test_replicas_ask_for_longer_leases(cluster: NatsCluster) -> None:
    async with harness_on(cluster.url, replicas=3, timeout_seconds=10) as harness:
        assert (await harness.make()).leases.min_ttl_seconds == 20.0
        async with Hub.from_url(f"{harness.url}") as hub:
            async with hub.produce(harness.unique_key()) as producer:
                for chunk in words(3):
                    await producer.send(chunk)
