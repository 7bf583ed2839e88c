"""Closing a hub: leases are given back, and whatever is under way ends in a known state."""

import asyncio

import pytest

from streamhub import DrainingError, Hub, HubClosedError, HubSettings, open_backend
from streamhub.conformance.faulty import Faults, faulty

SETTINGS = HubSettings(lease_seconds=30, poll_seconds=0.2)


@pytest.fixture
async def backend(request):
    async with open_backend(f"memory://closing-{hash(request.node.name)}") as backend:
        yield backend


def _hub(backend):
    return Hub(store=backend.store, leases=backend.leases, cancels=backend.cancels, settings=SETTINGS)


async def _forever(producer):
    yield "a"
    await asyncio.sleep(600)


async def test_a_handover_on_close_gives_the_lease_back_however_slow_that_is(backend):
    faults = Faults()
    async with _hub(faulty(backend, faults)) as hub:
        await hub.start("k", _forever, run="r", on_interrupt="handover")
        faults.delay("release", 0.1)
    assert await backend.leases.holders(["k"]) == [None]
    async with _hub(backend) as other, other.produce("k", run="r", unfinished="resume") as producer:
        assert [chunk.text async for chunk in producer.history()] == ["a"]


@pytest.mark.parametrize("call", ["acquire", "listen", "open", "pending"])
async def test_closing_while_a_run_is_being_opened_leaves_no_lease(backend, call):
    faults = Faults()
    pause = faults.pause(call)
    hub = await _hub(faulty(backend, faults)).__aenter__()
    starting = asyncio.create_task(hub.start("k", _forever, run="r"))
    await pause.reached.wait()
    closing = asyncio.create_task(hub.aclose())
    await asyncio.sleep(0)
    pause.resume()
    async with asyncio.timeout(10):
        await closing
        with pytest.raises((DrainingError, HubClosedError)):
            await starting
            raise DrainingError("it had been opened already")
    assert await backend.leases.holders(["k"]) == [None]
    info = (await backend.store.describe(["k"]))[0]
    assert info is None or (info.end.state, info.end.code) == ("failed", "interrupted")


@pytest.mark.parametrize("call", ["acquire", "listen", "open", "pending"])
async def test_a_start_whose_caller_is_cancelled_gives_everything_back(backend, call):
    faults = Faults()
    pause = faults.pause(call)
    async with _hub(faulty(backend, faults)) as hub:

        async def produce():
            async with hub.produce("k", run="r"):
                pytest.fail("the body must not begin")

        task = asyncio.create_task(produce())
        await pause.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        pause.resume()
        async with asyncio.timeout(10):
            while (
                (await backend.leases.holders(["k"]))[0] or not (await hub.info("k")) or not (await hub.info("k")).end
            ):
                await asyncio.sleep(0.01)
        assert (await hub.info("k")).end.code == "interrupted"


async def test_a_subscription_that_waits_is_told_that_the_hub_is_closed(backend):
    hub = await _hub(backend).__aenter__()
    tasks = [asyncio.create_task(anext(hub.subscribe(key, wait=60))) for key in ("a", "b")]
    async with hub.produce("a"):
        await asyncio.sleep(0)
    await hub.aclose()
    for task in tasks:
        with pytest.raises((HubClosedError, StopAsyncIteration)):
            await task


async def _subscribing(hub):
    async for _ in hub.subscribe("key", wait=60):
        pass


async def _producing(hub):
    async with hub.produce("other", run="r") as producer:
        await producer.send("a")
        await asyncio.sleep(600)


async def _starting(hub):
    await hub.start("other", _forever, run="r")


@pytest.mark.parametrize("begin", [_subscribing, _producing, _starting])
async def test_closing_a_hub_at_any_moment_ends_what_begins(begin):
    for steps in range(40):
        async with Hub.from_url(f"memory://closing-{begin.__name__}-{steps}") as hub:
            async with hub.produce("key") as producer:
                await producer.send("a")
            beginning = asyncio.create_task(begin(hub))
            for _ in range(steps):
                await asyncio.sleep(0)
            async with asyncio.timeout(5):
                await hub.aclose()
                (outcome,) = await asyncio.gather(beginning, return_exceptions=True)
        # The end of the subscription's stream may have come before the hub's.
        assert outcome is None or isinstance(outcome, (DrainingError, HubClosedError)), (steps, outcome)


@pytest.mark.parametrize("how", ["drain", "aclose"])
async def test_drain_is_called_back_once_when_it_begins_and_at_once_if_it_has_begun(backend, how):
    called = []
    hub = await _hub(backend).__aenter__()
    with hub.on_drain(lambda: called.append("gone")):
        pass
    with hub.on_drain(lambda: called.append("there")):
        assert called == []
        await (hub.drain(0) if how == "drain" else hub.aclose())
        assert called == ["there"]
        await hub.aclose()
        with hub.on_drain(lambda: called.append("late")):
            assert called == ["there", "late"]


async def test_a_run_ends_as_it_should_although_all_idle_tasks_were_cancelled(backend):
    """As `asyncio.run` does when its main task ends first."""
    async with _hub(backend) as hub:
        async with asyncio.timeout(5), hub.produce("k") as producer:
            await producer.send("a")
            await producer.flush()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
        assert (await hub.info("k")).end.state == "completed"
