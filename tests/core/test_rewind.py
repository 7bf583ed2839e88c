"""A store that goes back, as after an asynchronous failover: what it lost is sent again, or DataLostError is raised."""

import asyncio
import copy

import pytest

from streamhub import (
    DataLostError,
    Hub,
    HubSettings,
    StaleGenerationError,
    StreamDeletedError,
    StreamReplacedError,
    open_backend,
)
from streamhub import lane as lane_module

SETTINGS = HubSettings(lease_seconds=2, poll_seconds=0.2)


class Snapshot:
    """What the memory backend held at one moment, to be put back."""

    def __init__(self, backend, key):
        self._namespace, self._key = backend.store._session.namespace, key
        with self._namespace.lock:
            self._stream = copy.deepcopy(self._namespace.streams.get(key))

    def restore(self):
        with self._namespace.lock:
            if self._stream is None:
                self._namespace.streams.pop(self._key, None)
            else:
                self._namespace.streams[self._key] = self._stream


@pytest.fixture
async def backend(request):
    async with open_backend(f"memory://rewind-{request.node.name}") as backend:
        yield backend


@pytest.fixture
async def hub(backend):
    async with Hub(store=backend.store, leases=backend.leases, cancels=backend.cancels, settings=SETTINGS) as hub:
        yield hub


async def _texts(hub, key="k"):
    return [chunk.text async for chunk in hub.subscribe(key)]


async def test_a_lost_tail_is_sent_again(hub, backend):
    async with hub.produce("k", metadata={"a": 1}) as producer:
        for number in range(5):
            await producer.send(str(number))
            await producer.flush()
        snapshot = Snapshot(backend, "k")
        for number in range(5, 9):
            await producer.send(str(number))
            await producer.flush()
        snapshot.restore()
        await producer.send("9")
        assert (await producer.flush()).index == 10
    assert await _texts(hub) == [str(number) for number in range(10)]


async def test_a_live_subscriber_ahead_of_the_store_waits_and_goes_on_without_a_duplicate(hub, backend):
    received = asyncio.Queue()

    async def follow():
        async for chunk in hub.subscribe("k", wait=5):
            received.put_nowait(chunk.text)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(follow())
        async with hub.produce("k") as producer:
            await producer.send("a")
            await producer.flush()
            snapshot = Snapshot(backend, "k")
            await producer.send("b")
            assert [await received.get(), await received.get()] == ["a", "b"]
            snapshot.restore()
            await producer.send("c")
            assert await received.get() == "c"
    assert received.empty()
    assert await _texts(hub) == ["a", "b", "c"]


async def test_a_live_subscriber_ahead_of_a_successor_is_replaced(hub, backend):
    async def overtaken(producer):
        await producer.send("a")
        await producer.flush()
        snapshot = Snapshot(backend, "k")
        await producer.send("b")
        await producer.flush()
        subscription = hub.subscribe("k")
        assert [(await anext(subscription)).text, (await anext(subscription)).text] == ["a", "b"]
        snapshot.restore()
        lease = await backend.leases.acquire("k", owner="o", run="r", ttl_seconds=5, void=producer.generation)
        info = (await backend.store.describe(["k"]))[0]
        await backend.store.open(
            "k", lease.generation, owner="o", run="r", expect=info.seen, resume=True, retention=info.retention
        )
        with pytest.raises(StreamReplacedError):
            async with asyncio.timeout(5):
                await anext(subscription)

    with pytest.raises(StaleGenerationError):
        async with hub.produce("k", run="r") as producer:
            await overtaken(producer)


async def test_a_lost_stream_is_opened_again_by_the_same_generation(hub, backend):
    async with hub.produce("k", run="r", metadata={"a": 1}) as producer:
        nothing = Snapshot(backend, "other")
        nothing._key = "k"
        await producer.send("a")
        await producer.flush()
        nothing.restore()
        await producer.send("b")
        await producer.flush()
    info = await hub.info("k")
    assert (info.run, info.tail, info.metadata, info.generation) == ("r", 2, {"a": 1}, producer.generation)
    assert await _texts(hub) == ["a", "b"]


async def test_a_run_whose_open_was_lost_is_opened_again_over_the_run_before(hub, backend):
    async with hub.produce("k", run="old") as producer:
        await producer.send("old")
    snapshot = Snapshot(backend, "k")
    async with hub.produce("k", run="new", metadata={"a": 1}) as producer:
        await producer.send("1")
        await producer.flush()
        snapshot.restore()
        await producer.send("2")
    assert await _texts(hub) == ["1", "2"]
    assert (await hub.info("k")).metadata == {"a": 1}


async def test_what_the_producer_holds_no_more_is_data_lost(hub, backend, monkeypatch):
    monkeypatch.setattr(lane_module, "RESEND_BYTES", 10)
    with pytest.raises(DataLostError, match="went back to 1"):
        async with hub.produce("k") as producer:
            await producer.send("a")
            await producer.flush()
            snapshot = Snapshot(backend, "k")
            for _ in range(5):
                await producer.send("x" * 8)
                await producer.flush()
            snapshot.restore()
            await producer.send("b")
            await producer.flush()


async def test_a_deleted_stream_is_not_opened_again(hub, backend):
    with pytest.raises(StreamDeletedError):
        async with hub.produce("k") as producer:
            await producer.send("a")
            await producer.flush()
            await hub.delete("k")
            await producer.send("b")
            await producer.flush()
    assert await hub.info("k") is None
