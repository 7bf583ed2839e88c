"""Cancel: a request to stop reaches the one run it is for, from anywhere, at any time, and is answered truthfully."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest

from streamhub import CancelResult, End, Hub, Producer, ProducerCancelledError, RunRef
from streamhub.conformance.aims import AimTests
from streamhub.conformance.drive import (
    UNPOLLED,
    Stalled,
    data_of,
    dismiss,
    leave_released,
    leave_unfinished,
    read_end,
    reading,
    replay,
    send_all,
    soon,
    words,
)
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import PATIENCE_SECONDS, SLACK, settle
from streamhub.conformance.writer import described

NOTIFIED_SECONDS = 10.0
"""Within this a notified cancel has arrived on any machine; polls and renewals of an unpolled hub come far later."""


class CancelTests(AimTests):
    """C1 to C14."""

    async def test_a_cancel_reaches_the_producer_without_a_poll(self, harness: Harness) -> None:
        """C1: A cancel from another process reaches the producer with polling disabled."""
        here, there = await harness.hub(**UNPOLLED), await harness.hub()
        for run in ("r1", None):
            key = harness.unique_key()
            stalled = Stalled(here, key, run="r1")
            await stalled.ready()
            result = await soon(there.cancel(key, run=run, reason="user", wait=NOTIFIED_SECONDS))
            await stalled.cancelled()
            assert result == CancelResult(state="cancelled", run="r1", end=End(state="cancelled", reason="user"))

    async def test_a_cancel_from_another_process_reaches_the_producer_without_a_poll(self, harness: Harness) -> None:
        """C1: A cancel from another process reaches the producer with polling disabled."""
        hub = await harness.hub(**UNPOLLED)
        key = harness.unique_key()
        async with harness.process() as peer:
            await soon(peer.call("open_hub", **UNPOLLED))
            stalled = Stalled(hub, key, run="r1")
            await stalled.ready()
            result = await soon(peer.call("hub.cancel", key, run="r1", reason="user", wait=NOTIFIED_SECONDS))
            assert result.state == "cancelled"
            assert (await stalled.cancelled()).reason == "user"
            # And the other way round.
            key = harness.unique_key()
            await soon(peer.call("produce", key, run="r1"))
            result = await soon(hub.cancel(key, run="r1", reason="user", wait=NOTIFIED_SECONDS))
            assert result.state == "cancelled"
            with pytest.raises(ProducerCancelledError) as caught:
                await soon(peer.call("outcome", key))
            assert caught.value.reason == "user"

    async def test_a_cancel_whose_notification_is_dropped_is_seen_by_the_next_poll(self, harness: Harness) -> None:
        """C2: With the notification dropped it is still seen within the poll bound."""
        faults, key = Faults(), harness.unique_key()
        backend, there = await harness.make(), await harness.hub()
        ttl = harness.ttl_seconds(backend)
        # Requests are read at each renewal, a third of the time-to-live apart.
        here = await harness.hub(faulty(backend, faults), lease_seconds=ttl)
        faults.drop_hints = True
        stalled = Stalled(here, key, run="r1")
        await stalled.ready()
        await there.cancel(key, run="r1", reason="user")
        assert (await stalled.cancelled(SLACK * ttl / 3)).reason == "user"

    async def test_reason_and_requester_reach_producer_and_subscribers(self, harness: Harness) -> None:
        """C7: Reason and requester reach producer and subscribers."""
        here, there = await harness.hub(), await harness.hub()
        for facts in ({"reason": "stop — 停", "requested_by": "user-7"}, {"reason": None, "requested_by": None}):
            key, end = harness.unique_key(), End(state="cancelled", **facts)
            stalled = Stalled(here, key, run="r1")
            await stalled.ready()
            async with reading(there, key) as live:
                await live.has(1)
                result = await soon(there.cancel(key, run="r1", wait=PATIENCE_SECONDS, **facts))
                error = await stalled.cancelled()
                await live.finished()
            assert (error.key, error.run) == (key, "r1")
            assert {"reason": error.reason, "requested_by": error.requested_by} == facts
            assert live.end == result.end == await read_end(there, key) == end

    async def test_repeated_cancels_are_one(self, harness: Harness) -> None:
        """C8: Repeated cancels are one; the first reason stays."""
        here, there = await harness.hub(), await harness.hub()
        key = harness.unique_key()
        for number in range(3):
            for hub in (here, there):
                await hub.cancel(key, run="r1", reason=f"{number}", requested_by=f"u{number}")
        stalled = Stalled(here, key, run="r1")
        results = await soon(
            asyncio.gather(
                *(
                    hub.cancel(key, run="r1", reason="late", wait=PATIENCE_SECONDS)
                    for hub in (here, there)
                    for _ in range(5)
                )
            )
        )
        error = await stalled.cancelled()
        assert (error.reason, error.requested_by) == ("0", "u0")
        assert {result.end for result in results} == {End(state="cancelled", reason="0", requested_by="u0")}

    async def test_a_stalled_source_is_interrupted_and_closed(self, harness: Harness) -> None:
        """C9: A stalled source (no chunks) is interrupted and closed."""
        here, there = await harness.hub(), await harness.hub()
        key, events = harness.unique_key(), list[str]()
        stalls, closed = asyncio.Event(), asyncio.Event()

        async def source(_: Producer) -> AsyncIterator[str]:
            try:
                yield "a"
                stalls.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                events.append("interrupted")
                raise
            finally:
                await asyncio.sleep(0)
                events.append("closed")
                closed.set()

        await here.start(key, source, run="r1")
        await soon(stalls.wait())
        result = await soon(there.cancel(key, run="r1", wait=PATIENCE_SECONDS))
        assert result.state == "cancelled"
        await soon(closed.wait())
        assert events == ["interrupted", "closed"]
        assert data_of(await replay(there, key)) == [b"a"]

    async def test_a_source_that_waits_for_its_consumer_is_closed(self, harness: Harness) -> None:
        """C9: It interrupts a producer … and closes that source: also one that is not awaited at that moment."""
        faults, key = Faults(), harness.unique_key()
        here = await harness.hub(faulty(await harness.make(), faults), max_buffer_bytes=1)
        there = await harness.hub()
        closed = asyncio.Event()

        async def source(_: Producer) -> AsyncIterator[str]:
            try:
                while True:
                    yield "a"
            finally:
                closed.set()

        await here.start(key, source, run="r1")
        held = faults.pause("append")
        await soon(held.reached.wait())
        await there.cancel(key, run="r1")
        await settle(20)
        held.resume()
        await soon(closed.wait())
        assert (await read_end(there, key)) == End(state="cancelled")

    async def test_a_body_that_keeps_sending_is_cancelled_at_its_next_call(self, harness: Harness) -> None:
        """C9: … `send` raises ProducerCancelledError when cancelled."""
        here, there = await harness.hub(), await harness.hub()
        key = harness.unique_key()
        cancelling = asyncio.create_task(_cancel_once_open(there, key))
        with pytest.raises(ProducerCancelledError):
            async with asyncio.timeout(PATIENCE_SECONDS), here.produce(key, run="r1") as producer:
                while True:
                    await producer.send(b"x")
        assert (await soon(cancelling)).state == "cancelled"

    async def test_a_cancelled_body_may_clean_up_and_cannot_send(self, harness: Harness) -> None:
        """C9: … interrupted as `asyncio.timeout` does: the body sees a cancellation once, its cleanup may await."""
        hub = await harness.hub()
        key, cleaned = harness.unique_key(), list[str]()
        cancelling = asyncio.create_task(_cancel_once_open(hub, key))
        with pytest.raises(ProducerCancelledError):
            async with hub.produce(key, run="r1") as producer:
                await producer.send(b"a")
                try:
                    await soon(asyncio.Event().wait())
                finally:
                    await asyncio.sleep(0.01)
                    cleaned.append("yes")
                    with pytest.raises(ProducerCancelledError):
                        await producer.send(b"too late")
        assert cleaned == ["yes"]
        assert (await soon(cancelling)).state == "cancelled"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert data_of(await replay(hub, key)) == [b"a"]

    async def test_what_was_sent_before_a_cancel_stays_readable(self, harness: Harness) -> None:
        """C10: All chunks before the cancel stay readable; the end is cancelled."""
        faults, key, source = Faults(), harness.unique_key(), words(100)
        here, there = await harness.hub(faulty(await harness.make(), faults)), await harness.hub()
        entered = asyncio.Event()

        async def produce() -> None:
            async with here.produce(key, run="r1") as producer:
                await send_all(producer, source[:30])
                # When the cancel comes, some are stored, some in flight, and some wait.
                entered.set()
                for chunk in source[30:]:
                    await producer.send(chunk)
                    await settle(1)
                await asyncio.Event().wait()

        producing = asyncio.create_task(produce())
        await soon(entered.wait())
        held = faults.pause("append")
        await soon(held.reached.wait())
        await settle(2 * len(source))
        await there.cancel(key, run="r1")
        await settle(50)
        held.resume()
        with pytest.raises(ProducerCancelledError):
            await soon(producing)
        async with there.subscribe(key) as subscription:
            assert [chunk.data async for chunk in subscription] == source
            assert subscription.end == End(state="cancelled")

    async def test_a_cancel_racing_completion_leaves_one_end_and_a_true_answer(self, harness: Harness) -> None:
        """C11: A cancel racing completion: exactly one end, and the caller learns which."""
        here, there = await harness.hub(), await harness.hub()
        dice, states = random.Random(11), set[str]()
        for number in range(60):
            key = harness.unique_key()
            producing = asyncio.create_task(_produce_briefly(here, key, dice.randrange(30)))
            await settle(dice.randrange(30))
            result = await soon(there.cancel(key, run="r1", wait=PATIENCE_SECONDS))
            try:
                await soon(producing)
                outcome = "completed"
            except ProducerCancelledError:
                outcome = "cancelled"
            end = await read_end(there, key)
            assert end is not None
            assert end.state == outcome, f"iteration {number}"
            assert result == CancelResult(
                state="cancelled" if outcome == "cancelled" else "ended", run="r1", end=end
            ), f"iteration {number}"
            states.add(outcome)
        assert states <= {"completed", "cancelled"}

    async def test_waiting_for_a_cancel_has_a_bound(self, harness: Harness) -> None:
        """C12: wait has a bound."""
        faults, key = Faults(), harness.unique_key()
        here, there = await harness.hub(faulty(await harness.make(), faults), **UNPOLLED), await harness.hub()
        faults.drop_hints = True
        stalled = Stalled(here, key, run="r1")
        await stalled.ready()
        for run in ("r1", "never opened"):
            begun = time.monotonic()
            result = await soon(there.cancel(key, run=run, wait=0.3))
            assert result == CancelResult(state="requested", run=run)
            assert 0.3 <= time.monotonic() - begun <= SLACK * 0.3 + 1.0
        await dismiss(stalled.task)

    async def test_a_dead_producers_run_is_cancelled_by_the_canceller(self, harness: Harness) -> None:
        """C12: wait … returns when the producer died (the canceller writes the end)."""
        backend, hub = await harness.make(), await harness.hub()
        key, ttl = harness.unique_key(), harness.ttl_seconds(backend)
        await leave_unfinished(backend, key, [b"a"], lease_seconds=ttl)
        # Until the dead lease runs out the answer is `requested`.
        assert (await hub.cancel(key, reason="user", requested_by="u7")).state == "requested"
        begun = time.monotonic()
        result = await soon(hub.cancel(key, reason="again", wait=PATIENCE_SECONDS))
        assert time.monotonic() - begun <= SLACK * ttl
        end = End(state="cancelled", reason="user", requested_by="u7")
        assert result == CancelResult(state="cancelled", run="r1", end=end)
        assert data_of(await replay(hub, key)) == [b"a"]
        assert await read_end(hub, key) == end
        assert await backend.leases.holders([key]) == [None]

    async def test_a_handed_over_run_is_cancelled_at_once(self, harness: Harness) -> None:
        """C12: … if the producer is dead, the canceller writes the end itself; and subscribers see it."""
        backend, hub = await harness.make(), await harness.hub()
        for run in (None, "r1"):
            key = harness.unique_key()
            await leave_released(backend, key, [b"a"])
            async with reading(hub, key) as live:
                await live.has(1)
                result = await soon(hub.cancel(key, run=run, reason="user"))
                assert (result.state, result.run) == ("cancelled", "r1")
                assert data_of(await live.finished()) == [b"a"]
                assert live.end == End(state="cancelled", reason="user")

    async def test_cancellers_of_a_dead_run_agree(self, harness: Harness) -> None:
        """C12: … the canceller writes the end; C11: exactly one."""
        backend = await harness.make()
        hubs = [await harness.hub() for _ in range(3)]
        for _ in range(10):
            key = harness.unique_key()
            await leave_released(backend, key, [b"a"])
            cancels = [
                hub.cancel(key, run="r1", reason=f"{number}", wait=PATIENCE_SECONDS) for number, hub in enumerate(hubs)
            ]
            [end] = {result.end for result in await soon(asyncio.gather(*cancels))}
            assert await read_end(hubs[0], key) == end
            info = await described(backend.store, key)
            assert (info.tail, info.end) == (1, end)

    async def test_a_subscriber_that_leaves_is_not_a_cancel(self, harness: Harness) -> None:
        """C13: A subscriber leaving is not a cancel."""
        here, there = await harness.hub(), await harness.hub()
        key = harness.unique_key()
        async with here.produce(key, run="r1") as producer:
            await send_all(producer, [b"a"])
            for hub in (here, there):
                async with hub.subscribe(key) as subscription:
                    await soon(anext(subscription))
                async for _ in hub.subscribe(key):
                    break
                async with reading(hub, key) as live:
                    await live.has(1)
            await there.aclose()
            backend = await harness.make()
            assert await backend.cancels.pending([RunRef(key, "r1")]) == [None]
            await producer.send(b"b")
        assert data_of(await replay(here, key)) == [b"a", b"b"]

    async def test_the_listener_survives_a_dropped_connection(self, harness: Harness) -> None:
        """C14: The listener survives a dropped connection."""
        faults, key = Faults(), harness.unique_key()
        here, there = await harness.hub(faulty(await harness.make(), faults), **UNPOLLED), await harness.hub()
        stalled = Stalled(here, key, run="r1")
        await stalled.ready()
        held = faults.pause("pending", after=True)
        faults.break_feeds()
        await soon(held.reached.wait())
        # It listens again, and has read what was stored before: only a notification can tell it now.
        await soon(there.cancel(key, run="r1", reason="user"))
        held.resume()
        assert (await stalled.cancelled()).reason == "user"

    async def test_a_cancel_while_the_listener_is_away_is_found_when_it_returns(self, harness: Harness) -> None:
        """C14: The listener survives a dropped connection: after every reconnect it reads what is stored."""
        faults, key = Faults(), harness.unique_key()
        here, there = await harness.hub(faulty(await harness.make(), faults), **UNPOLLED), await harness.hub()
        stalled = Stalled(here, key, run="r1")
        await stalled.ready()
        held = faults.pause("requests")
        faults.break_feeds()
        await soon(held.reached.wait())
        await soon(there.cancel(key, run="r1", reason="user"))
        held.resume()
        assert (await stalled.cancelled()).reason == "user"

    async def test_the_listener_survives_connections_that_the_server_drops(self, harness: Harness) -> None:
        """C14: The listener survives a dropped connection: here the server's own doing."""
        harness.require("kill_notifications")
        here, there = await harness.hub(**UNPOLLED), await harness.hub()
        key = harness.unique_key()
        stalled = Stalled(here, key, run="r1")
        await stalled.ready()
        await harness.kill_notifications()
        await soon(there.cancel(key, run="r1", reason="user"))
        assert (await stalled.cancelled(NOTIFIED_SECONDS)).reason == "user"


async def _cancel_once_open(hub: Hub, key: str) -> CancelResult:
    """Cancel the run once a chunk of it is stored."""
    async with reading(hub, key, wait=PATIENCE_SECONDS) as live:
        await live.has(1)
    return await hub.cancel(key, run="r1", wait=PATIENCE_SECONDS)


async def _produce_briefly(hub: Hub, key: str, turns: int) -> None:
    async with hub.produce(key, run="r1") as producer:
        await producer.send(b"a")
        await settle(turns)
