"""Interruptions: what a producer leaves that is cancelled from outside, drained, or closed down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamhub import (
    DrainingError,
    Hub,
    Producer,
)
from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import (
    UNPOLLED,
    Stalled,
    data_of,
    never,
    produce_all,
    read_end,
    replay,
    send_all,
    soon,
    words,
)
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import PATIENCE_SECONDS, settle
from streamhub.conformance.writer import described

INTERRUPTED = ("failed", "interrupted")


class InterruptionTests(ContractTests):
    """T5."""

    async def test_an_outer_cancellation_is_stored_as_interrupted(self, harness: Harness) -> None:
        """T5: Outer cancellation and drain: flushed, failed("interrupted") …, then re-raised."""
        faults, key = Faults(), harness.unique_key()
        here, there = await harness.hub(faulty(await harness.make(), faults)), await harness.hub()
        # One chunk is in flight, the others wait for their turn.
        held = faults.pause("append")
        stalled = Stalled(here, key, chunks=words(9))
        await stalled.ready()
        await soon(held.reached.wait())
        stalled.task.cancel()
        await settle()
        held.resume()
        with pytest.raises(asyncio.CancelledError):
            await soon(stalled.task)
        assert await _stored(there, key) == (words(9), INTERRUPTED)

    async def test_an_outer_cancellation_hands_over_as_asked(self, harness: Harness) -> None:
        """T5: Outer cancellation and drain: flushed, … or handed over as asked, then re-raised."""
        here, there = await harness.hub(**UNPOLLED), await harness.hub()
        key = harness.unique_key()
        stalled = Stalled(here, key, run="r1", on_interrupt="handover", chunks=words(9))
        await stalled.ready()
        stalled.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(stalled.task)
        await _assert_handed_over(harness, there, key)

    async def test_a_drain_is_stored_as_interrupted(self, harness: Harness) -> None:
        """T5: Outer cancellation and drain: flushed, failed("interrupted") …, then re-raised."""
        here, there = await harness.hub(), await harness.hub()
        block, started = await _both_kinds(harness, here)
        await soon(here.drain(0.05))
        with pytest.raises(DrainingError):
            await soon(block.task)
        assert await _stored(there, block.key) == (words(9), INTERRUPTED)
        assert await _stored(there, started) == (words(9), INTERRUPTED)

    async def test_a_drain_hands_over_as_asked(self, harness: Harness) -> None:
        """T5: Outer cancellation and drain: flushed, … or handed over as asked, then re-raised."""
        here, there = await harness.hub(**UNPOLLED, on_interrupt="handover"), await harness.hub()
        block, started = await _both_kinds(harness, here)
        await soon(here.drain(0.05))
        with pytest.raises(DrainingError):
            await soon(block.task)
        await _assert_handed_over(harness, there, block.key)
        await _assert_handed_over(harness, there, started)

    async def test_a_drain_lets_producers_finish(self, harness: Harness) -> None:
        """T5: … `drain` lets producers finish, and takes no new ones."""
        here, there = await harness.hub(drain_seconds=PATIENCE_SECONDS), await harness.hub()
        stalled = Stalled(here, harness.unique_key(), chunks=words(9))
        await stalled.ready()
        draining = asyncio.create_task(here.drain())
        await settle()
        with pytest.raises(DrainingError):
            async with here.produce(harness.unique_key()):
                pass
        with pytest.raises(DrainingError):
            await here.start(harness.unique_key(), never)
        assert not draining.done()
        stalled.leave.set()
        await soon(draining)
        await soon(stalled.task)
        assert await _stored(there, stalled.key) == (words(9), ("completed", None))

    async def test_closing_a_hub_stores_interrupted(self, harness: Harness) -> None:
        """T5: … a task the hub owns is awaited or cancelled by `aclose`/`drain`; so is a block."""
        here, there = await harness.hub(), await harness.hub()
        block, started = await _both_kinds(harness, here)
        await soon(here.aclose())
        with pytest.raises(DrainingError):
            await soon(block.task)
        assert await _stored(there, block.key) == (words(9), INTERRUPTED)
        assert await _stored(there, started) == (words(9), INTERRUPTED)

    async def test_an_outer_cancellation_wins_over_a_cancel(self, harness: Harness) -> None:
        """T5: Outer cancellation …, then re-raised: it wins, whatever else interrupts the block meanwhile."""
        here, there = await harness.hub(), await harness.hub()
        key = harness.unique_key()
        entered, cleaning, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def produce() -> None:
            async with here.produce(key, run="r1") as producer:
                await producer.send(b"a")
                try:
                    entered.set()
                    await asyncio.Event().wait()
                finally:
                    cleaning.set()
                    await go_on.wait()

        task = asyncio.create_task(produce())
        await soon(entered.wait())
        await there.cancel(key, run="r1", reason="user")
        await soon(cleaning.wait())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        assert await read_end(there, key) is not None

    async def test_a_timeout_around_a_block_is_an_outer_cancellation(self, harness: Harness) -> None:
        """T5: Outer cancellation …: flushed, failed("interrupted") …, then re-raised: a timeout stays a timeout."""
        hub = await harness.hub()
        key = harness.unique_key()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit, hub.produce(key) as producer:
                await send_all(producer, words(9))
                limit.reschedule(asyncio.get_running_loop().time() + 0.1)
                await asyncio.Event().wait()
        assert await _stored(hub, key) == (words(9), INTERRUPTED)


async def _both_kinds(harness: Harness, hub: Hub) -> tuple[Stalled, str]:
    """Begin a block, and a run in a task of the hub's; both of run "r1", both stalled."""
    block, key = Stalled(hub, harness.unique_key(), chunks=words(9), run="r1"), harness.unique_key()
    sent = asyncio.Event()

    async def source(producer: Producer) -> AsyncIterator[bytes]:
        for chunk in words(9):
            yield chunk
        sent.set()
        await asyncio.Event().wait()
        raise AssertionError(f"{producer.key!r} is never left so")

    await hub.start(key, source, run="r1")
    await block.ready()
    await soon(sent.wait())
    return block, key


async def _stored(hub: Hub, key: str) -> tuple[list[bytes], tuple[str, str | None]]:
    """Return a run's chunks, and its end's state and code."""
    end = await read_end(hub, key)
    assert end is not None
    return data_of(await replay(hub, key, strict=False)), (end.state, end.code)


async def _assert_handed_over(harness: Harness, hub: Hub, key: str) -> None:
    """The run has no end, holds all that was sent, and can be resumed at once."""
    backend = await harness.make()
    info = await described(backend.store, key)
    assert (info.state, info.run, info.tail, info.end) == ("open", "r1", 9, None)
    assert await backend.leases.holders([key]) == [None]
    await produce_all(hub, key, [b"more"], run="r1", unfinished="resume")
    assert await _stored(hub, key) == ([*words(9), b"more"], ("completed", None))
