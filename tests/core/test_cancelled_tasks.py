"""Background tasks that somebody cancels, as `asyncio.run` does with all there are once its main task has ended."""

import asyncio
import subprocess
import sys

import pytest

from streamhub import DataLostError, Hub, HubSettings, open_backend
from streamhub.committer import _Flusher
from streamhub.tasks import TaskOwner

SETTINGS = HubSettings(lease_seconds=30, poll_seconds=0.1, outage_seconds=2)


class SlowStore:
    """A store whose appends can be held up: before anything is stored, or after."""

    def __init__(self, store, *, groups, prompt):
        self._store = store
        self.groups_streams = groups
        self.prompt = prompt
        self.held = None
        self.keeps = False
        self.there = asyncio.Event()

    def __getattr__(self, name):
        return getattr(self._store, name)

    def hold(self, *, keeps):
        self.held, self.keeps = asyncio.Event(), keeps

    async def append(self, batch):
        if self.held is None:
            return await self._store.append(batch)
        if self.keeps:
            await self._store.append(batch)
        self.there.set()
        await self.held.wait()
        raise AssertionError("what waits here is cancelled")

    def begin_append(self, append):
        if not self.prompt:
            return None

        async def answered():
            return (await self.append([append]))[0]

        return answered


@pytest.fixture
async def backend(request):
    async with open_backend(f"memory://cancelled-{hash(request.node.name)}") as backend:
        yield backend


def _committers():
    return [task for task in asyncio.all_tasks() if task.get_name() == "streamhub committer"]


async def _texts(hub):
    async with hub.subscribe("k") as subscription:
        return [chunk.text async for chunk in subscription]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("when", ["at once", "in flight"])
@pytest.mark.parametrize("how", ["prompt", "each", "grouped"])
async def test_what_was_in_flight_when_the_committer_was_cancelled_is_stored_once(backend, how, when, kept):
    store = SlowStore(backend.store, groups=how == "grouped", prompt=how == "prompt")
    async with (
        asyncio.timeout(10),
        Hub(store=store, leases=backend.leases, cancels=backend.cancels, settings=SETTINGS) as hub,
    ):
        async with hub.produce("k") as producer:
            await producer.send("first")
            await producer.flush()
            await asyncio.sleep(0)
            store.hold(keeps=kept)
            await producer.send("a")
            if when == "in flight":
                await store.there.wait()
            await producer.send("b")
            for task in _committers():
                task.cancel()
            store.held = None
            await producer.flush()
            await producer.send("c")
        assert await _texts(hub) == ["first", "a", "b", "c"]


async def test_a_committer_cancelled_before_its_first_step_leaves_nobody_waiting(backend):
    async with (
        asyncio.timeout(10),
        Hub(store=backend.store, leases=backend.leases, cancels=backend.cancels, settings=SETTINGS) as hub,
    ):
        async with hub.produce("k") as producer:
            await producer.send("a")
            for task in _committers():
                task.cancel()
            await producer.flush()
        assert await _texts(hub) == ["a"]


@pytest.mark.parametrize("when", ["at once", "under way"])
async def test_a_recovery_that_is_cancelled_is_begun_again(backend, monkeypatch, when):
    append, describe = backend.store.append, backend.store.describe
    under_way = asyncio.Event()

    async def lost(batch):
        monkeypatch.setattr(backend.store, "append", append)
        return [DataLostError("k", "as after a failover")]

    async def stuck(*args, **more):
        monkeypatch.setattr(backend.store, "describe", describe)
        under_way.set()
        await asyncio.Event().wait()

    def recoveries():
        return [task for task in asyncio.all_tasks() if task.get_name() == "streamhub recovery of a lost stream"]

    async with (
        asyncio.timeout(10),
        Hub(store=backend.store, leases=backend.leases, cancels=backend.cancels, settings=SETTINGS) as hub,
    ):
        async with hub.produce("k") as producer:
            monkeypatch.setattr(backend.store, "append", lost)
            monkeypatch.setattr(backend.store, "describe", stuck)
            await producer.send("a")
            while not recoveries():
                await asyncio.sleep(0)
            if when == "under way":
                await under_way.wait()
            monkeypatch.setattr(backend.store, "describe", describe)
            for task in recoveries():
                task.cancel()
            await producer.flush()
        assert await _texts(hub) == ["a"]


PROGRAM = """
import asyncio
import sys

from streamhub import Hub


async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # what is slow because others run is not told
    hub = await Hub.from_url("memory://").__aenter__()
    append, there = hub.store.append, asyncio.Event()

    async def stuck(batch):
        hub.store.append = append
        there.set()
        await asyncio.Event().wait()

    async def produce():
        async with hub.produce("k") as producer:
            await source(producer)

    async def source(producer):
        await producer.send("a")
        await producer.flush()

    hub.store.append = stuck
    if sys.argv[1] == "produce":
        task = asyncio.create_task(produce())
    else:
        await hub.start("k", source)
    await there.wait()


asyncio.run(main())
print("ended")
"""


@pytest.mark.parametrize("how", ["produce", "start"])
def test_a_program_that_never_closes_its_hub_ends_although_an_append_is_in_flight(how):
    command = [sys.executable, "-X", "dev", "-c", PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


async def test_lane_that_comes_when_a_task_has_just_ended_is_flushed_by_the_next():
    class Lane:
        def unknown(self, error):
            raise AssertionError("nothing was cancelled")

    async def flush(lanes):
        flushed.extend(lanes)
        if len(flushed) == 1:
            # Before the event loop tells that the task has ended.
            asyncio.get_running_loop().call_soon(flusher.add, second)

    first, second, flushed, tasks = Lane(), Lane(), [], TaskOwner()
    flusher = _Flusher(lambda lane: None, flush, tasks)
    flusher.add(first)
    flusher.retire()
    async with asyncio.timeout(5):
        while len(flushed) < 2:
            await asyncio.sleep(0)
    assert flushed == [first, second]
    await tasks.aclose()
