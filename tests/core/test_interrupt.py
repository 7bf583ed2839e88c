"""A produce block interrupts its task as asyncio.timeout does: its own cancellation only, an outer one wins."""

import asyncio

import pytest

from streamhub import Hub, HubContextError, LeaseLostError, ProducerCancelledError
from streamhub.conformance.writer import Writer
from streamhub.interrupt import Interrupter

CAUSE = LeaseLostError("k", generation=1)


async def test_the_blocks_own_cancellation_is_recognised_and_taken_back():
    stop = Interrupter()
    stop.enter()
    asyncio.get_running_loop().call_soon(stop.interrupt, CAUSE)
    with pytest.raises(asyncio.CancelledError) as caught:
        await asyncio.sleep(60)
    assert stop.leave(caught.value)
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)  # nothing is left to be raised


async def test_a_block_that_interrupts_itself_is_cancelled_where_it_waits_next():
    stop = Interrupter()
    stop.enter()
    stop.interrupt(CAUSE)
    with pytest.raises(asyncio.CancelledError) as caught:
        await asyncio.sleep(60)
    assert stop.leave(caught.value)
    await asyncio.sleep(0)


async def test_a_block_that_interrupts_itself_and_leaves_is_not_cancelled_afterwards():
    stop = Interrupter()
    stop.enter()
    stop.interrupt(CAUSE)
    assert not stop.leave(CAUSE)
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0.01)


async def test_an_outer_cancellation_wins():
    entered = asyncio.Event()
    seen = []

    async def block():
        stop = Interrupter()
        stop.enter()
        entered.set()
        asyncio.get_running_loop().call_soon(stop.interrupt, CAUSE)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as exc:
            seen.append(stop.leave(exc))
            raise

    task = asyncio.create_task(block())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [False]
    assert task.cancelled()


async def test_only_the_first_cause_counts_and_none_after_the_block():
    stop = Interrupter()
    stop.enter()
    stop.leave(None)
    stop.interrupt(CAUSE)
    stop.interrupt(LeaseLostError("k", generation=2))
    await asyncio.sleep(0)
    assert stop.cause is CAUSE


async def test_a_timeout_around_a_produce_block_still_raises_timeout_error():
    async with Hub.from_url("memory://interrupt-timeout") as hub:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), hub.produce("k") as producer:
                await producer.send("a")
                await asyncio.sleep(60)
        info = await hub.info("k")
        assert (info.end.state, info.end.code) == ("failed", "interrupted")


async def test_a_timeout_inside_a_cancelled_body_does_not_swallow_the_cancel():
    async with Hub.from_url("memory://interrupt-inner") as hub:
        started = asyncio.Event()

        async def produce():
            async with hub.produce("k", run="r"):
                started.set()
                async with asyncio.timeout(60):
                    await asyncio.sleep(60)

        task = asyncio.create_task(produce())
        await started.wait()
        assert (await hub.cancel("k", run="r", reason="why", wait=5)).state == "cancelled"
        with pytest.raises(ProducerCancelledError) as caught:
            await task
        assert caught.value.reason == "why"


async def test_a_body_that_swallows_the_interruption_still_ends_as_cancelled():
    async with Hub.from_url("memory://interrupt-swallow") as hub:
        started = asyncio.Event()

        async def produce():
            async with hub.produce("k", run="r") as producer:
                started.set()
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass
                with pytest.raises(ProducerCancelledError):
                    await producer.send("too late")

        task = asyncio.create_task(produce())
        await started.wait()
        assert (await hub.cancel("k", run="r", wait=5)).state == "cancelled"
        with pytest.raises(ProducerCancelledError):
            await task
        assert task.cancelling() == 0


async def test_a_run_that_many_write_to_is_still_one_after_its_cancel():
    async with Hub.from_url("memory://cancel-unattended") as hub:
        await Writer(hub.store, "k").open(attended=False, metadata={"of": "its writers"})
        assert (await hub.cancel("k", wait=5)).state == "cancelled"
        info = await hub.info("k")
        assert (info.attended, info.metadata, info.end.state) == (False, {"of": "its writers"}, "cancelled")


async def test_a_producer_is_refused_in_another_event_loop():
    def elsewhere(call):
        return asyncio.run(call())

    async with Hub.from_url("memory://other-loop") as hub:
        async with hub.produce("k") as producer:
            for call in (lambda: producer.send("a"), producer.flush):
                with pytest.raises(HubContextError):
                    await asyncio.to_thread(elsewhere, call)
        assert (await hub.info("k")).tail == 0


async def test_nothing_is_sent_after_the_block():
    async with Hub.from_url("memory://after-block") as hub:
        async with hub.produce("k") as producer:
            await producer.send("a")
        with pytest.raises(LeaseLostError, match="block was left"):
            await producer.send("b")
        assert (await hub.info("k")).tail == 1
