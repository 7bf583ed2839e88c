"""Takeover: a run outlives its producer, and nobody is left waiting for one that will not come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from streamhub import (
    Hub,
    LeaseHeldError,
    StreamAbandonedError,
    StreamReplacedError,
)
from streamhub.conformance.claims import ClaimTests
from streamhub.conformance.drive import (
    UNPOLLED,
    collect,
    data_of,
    enter,
    indexes_of,
    leave_released,
    leave_unfinished,
    produce_all,
    reading,
    replay,
    send_all,
    soon,
    ttl_of,
    words,
)
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.losing import LosingTests
from streamhub.conformance.waiting import PATIENCE_SECONDS, SLACK, settle
from streamhub.types import COMPLETED


class TakeoverTests(LosingTests, ClaimTests):
    """L4 to L10 as users meet them, and L13."""

    # --- a producer dies

    async def test_the_stream_of_a_killed_producer_is_resumed_within_its_time_to_live(self, harness: Harness) -> None:
        """L4: A killed producer's stream (SIGKILL) is acquirable within the time-to-live plus slack."""
        hub = await harness.hub()
        key, ttl = harness.unique_key(), ttl_of(hub)
        async with harness.process() as peer:
            await soon(peer.call("produce", key, run="r1"))
            await soon(peer.call("send", key, b"a", b"b"))
            await soon(peer.call("flush", key))
            peer.kill()
            await soon(peer.gone())
        killed = time.monotonic()
        async with hub.produce(key, run="r1", unfinished="resume", wait=PATIENCE_SECONDS) as producer:
            assert time.monotonic() - killed < SLACK * ttl
            assert [chunk.data async for chunk in producer.history()] == [b"a", b"b"]
            await producer.send(b"c")
        assert data_of(await replay(hub, key)) == [b"a", b"b", b"c"]

    async def test_a_dead_producers_stream_is_resumed_within_its_time_to_live(self, harness: Harness) -> None:
        """L4: A killed producer's stream … is acquirable within the time-to-live plus slack."""
        backend, hub = await harness.make(), await harness.hub()
        key, ttl = harness.unique_key(), ttl_of(hub)
        died = time.monotonic()
        await leave_unfinished(backend, key, [b"a", b"b"], lease_seconds=ttl)
        async with hub.produce(key, unfinished="resume", wait=PATIENCE_SECONDS) as producer:
            assert time.monotonic() - died < SLACK * ttl
            assert (producer.run, producer.resumed) == ("r1", True)
            assert [chunk.data async for chunk in producer.history()] == [b"a", b"b"]
            await producer.send(b"c")
        assert data_of(await replay(hub, key)) == [b"a", b"b", b"c"]

    async def test_a_dead_producers_lease_is_respected_until_it_runs_out(self, harness: Harness) -> None:
        """L4: A killed producer's run can be taken over within the lease time-to-live, not before it ran out."""
        backend, hub = await harness.make(), await harness.hub()
        key, ttl = harness.unique_key(), 2 * harness.ttl_seconds(backend)
        begun = time.monotonic()
        await leave_unfinished(backend, key, lease_seconds=ttl)
        with pytest.raises(LeaseHeldError):
            await soon(enter(hub, key, unfinished="resume"))
        with pytest.raises(LeaseHeldError):
            await soon(enter(hub, key, unfinished="resume", wait=0.05))
        if time.monotonic() - begun > ttl:
            return  # so slow a machine that nothing was shown
        assert await soon(enter(hub, key, unfinished="resume", wait=PATIENCE_SECONDS))
        assert time.monotonic() - begun >= 0.9 * ttl

    # --- a lease is given back

    async def test_a_finished_run_leaves_no_lease(self, harness: Harness) -> None:
        """L7: Release lets another acquire at once."""
        here, there = await harness.hub(**UNPOLLED), await harness.hub()
        backend, key = await harness.make(), harness.unique_key()
        await produce_all(here, key, [b"a"], run="r1")
        [holder] = await backend.leases.holders([key])
        assert holder is None
        await soon(produce_all(there, key, [b"b"], run="r2"))

    async def test_a_run_that_is_handed_over_can_be_resumed_at_once(self, harness: Harness) -> None:
        """L7: Release lets another acquire at once; here a drained producer's."""
        here, there = await harness.hub(**UNPOLLED, on_interrupt="handover"), await harness.hub()
        key = harness.unique_key()
        entered = asyncio.Event()
        leaving = asyncio.create_task(_produce_until_interrupted(here, key, [b"a"], entered))
        await soon(entered.wait())
        await soon(here.drain(0.0))
        await asyncio.gather(leaving, return_exceptions=True)
        async with asyncio.timeout(PATIENCE_SECONDS), there.produce(key, unfinished="resume") as producer:
            await producer.send(b"b")
        assert data_of(await replay(there, key)) == [b"a", b"b"]

    # --- resuming and replacing

    async def test_a_resumed_run_goes_on_for_its_subscribers(self, harness: Harness) -> None:
        """L8: Resuming continues the run: subscribers go on without gap or duplicate and see the generation change."""
        backend, hub, reader = await harness.make(), await harness.hub(), await harness.hub(lease_seconds=30.0)
        key = harness.unique_key()
        await leave_released(backend, key, words(3))
        async with reading(reader, key) as live:
            await live.has(3)
            for number in (1, 2):
                await leave_released(backend, key, words(3, f"again {number}-"))
            await produce_all(hub, key, words(3, "last"), run="r1", unfinished="resume")
            chunks = await live.finished()
        assert data_of(chunks) == words(3) + words(3, "again 1-") + words(3, "again 2-") + words(3, "last")
        assert indexes_of(chunks) == list(range(1, 13))
        generations = [chunk.offset.generation for chunk in chunks]
        assert generations == sorted(generations)
        assert [generations.count(generation) for generation in dict.fromkeys(generations)] == [3, 3, 3, 3]
        assert await replay(hub, key) == chunks

    async def test_replacing_a_run_tells_its_subscribers(self, harness: Harness) -> None:
        """L8: Replacing gives them StreamReplacedError, never spliced text."""
        backend, hub, reader = await harness.make(), await harness.hub(), await harness.hub(lease_seconds=30.0)
        key = harness.unique_key()
        # The new run is shorter than, as long as, and longer than what was read.
        for count in (0, 1, 3, 5):
            await leave_released(backend, key, words(3, "old"), run=f"old {count}")
            async with reading(reader, key) as live:
                await live.has(3)
                await produce_all(hub, key, words(count, "new"), run=f"new {count}", unfinished="replace")
                with pytest.raises(StreamReplacedError):
                    await live.finished()
                assert live.data == words(3, "old")

    async def test_a_cursor_of_a_replaced_run_is_refused(self, harness: Harness) -> None:
        """L8: Replacing gives them StreamReplacedError, never spliced text; also who comes back with a cursor."""
        backend, hub = await harness.make(), await harness.hub()
        key = harness.unique_key()
        writer = await leave_released(backend, key, words(3, "old"), run="old")
        await produce_all(hub, key, words(6, "new"), run="new", unfinished="replace")
        for index in range(4):
            with pytest.raises(StreamReplacedError):
                await replay(hub, key, f"{writer.generation}-{index}")
        assert data_of(await replay(hub, key)) == words(6, "new")

    async def test_a_subscriber_between_two_runs_is_never_given_spliced_text(self, harness: Harness) -> None:
        """L8: … never spliced text: a subscription is pinned to its first page's run, even before any chunk."""
        backend, hub, reader = await harness.make(), await harness.hub(), await harness.hub(lease_seconds=30.0)
        key = harness.unique_key()
        await leave_released(backend, key, run="old")
        async with reader.subscribe(key) as subscription:
            await produce_all(hub, key, words(3, "new"), run="new", unfinished="replace")
            with pytest.raises(StreamReplacedError):
                await collect(subscription)

    async def test_a_subscriber_of_a_named_run_never_sees_another(self, harness: Harness) -> None:
        """L8: A subscriber to a named run never sees another run's chunks."""
        hub = await harness.hub()
        key = harness.unique_key()
        await produce_all(hub, key, words(3, "first"), run="first")
        async with reading(hub, key, run="second", wait=PATIENCE_SECONDS) as live:
            await settle(30)
            assert live.chunks == []
            await produce_all(hub, key, words(3, "second"), run="second")
            assert data_of(await live.finished()) == words(3, "second")

    # --- readers of the dead

    async def test_subscribers_of_a_dead_producer_are_told_within_the_bound(self, harness: Harness) -> None:
        """L10: A dead producer's subscribers raise StreamAbandonedError within the bound: no hang."""
        backend, hub = await harness.make(), await harness.hub()
        key, ttl = harness.unique_key(), ttl_of(hub)
        died = time.monotonic()
        await leave_unfinished(backend, key, words(2), lease_seconds=ttl)
        async with reading(hub, key) as live:
            await live.has(2)
            with pytest.raises(StreamAbandonedError) as caught:
                await live.finished()
        # The lease runs out, then nobody holds it for another time-to-live, which the poll has to notice.
        assert ttl <= time.monotonic() - died <= SLACK * 3 * ttl
        assert (caught.value.key, caught.value.run) == (key, "r1")

    async def test_a_late_subscriber_of_a_dead_producer_gets_its_chunks_and_is_told(self, harness: Harness) -> None:
        """L10: A dead producer's subscribers raise StreamAbandonedError within the bound: no hang; late ones too."""
        backend, hub = await harness.make(), await harness.hub()
        key = harness.unique_key()
        await leave_released(backend, key, words(2))
        other = await harness.hub()
        async with reading(hub, key) as first, reading(hub, key) as second, reading(other, key) as third:
            for live in (first, second, third):
                with pytest.raises(StreamAbandonedError):
                    await live.finished(SLACK * 3 * ttl_of(hub))
                assert live.data == words(2)

    async def test_a_resumed_run_serves_abandoned_subscribers_again(self, harness: Harness) -> None:
        """L10: … a resumed run serves them again."""
        backend, hub, reader = await harness.make(), await harness.hub(), await harness.hub()
        key = harness.unique_key()
        await leave_released(backend, key, words(2))
        subscription = reader.subscribe(key)
        first = await collect(subscription, limit=2)
        with pytest.raises(StreamAbandonedError):
            await collect(subscription)
        async with reader.subscribe(key, after=subscription.offset) as again:
            async with hub.produce(key, unfinished="resume") as producer:
                await producer.send(b"more")
            chunks = first + await collect(again)
        assert data_of(chunks) == [*words(2), b"more"]

    async def test_a_live_producer_that_is_silent_is_not_abandoned(self, harness: Harness) -> None:
        """L10: … abandoned: un-ended, no holder for a while. A producer that holds its lease is not."""
        here, there = await harness.hub(), await harness.hub(poll_seconds=0.1)
        key = harness.unique_key()
        async with here.produce(key) as producer, reading(there, key) as live:
            await send_all(producer, [b"before"])
            await asyncio.sleep(3 * ttl_of(here))
            await send_all(producer, [b"after"])
            assert data_of(await live.has(2)) == [b"before", b"after"]

    async def test_an_outage_of_the_leases_abandons_nobody(self, harness: Harness) -> None:
        """L10: … abandoned: un-ended and no holder. Not to know who holds the lease is not the same."""
        faults, key = Faults(), harness.unique_key()
        here, there = await harness.hub(), await harness.hub(faulty(await harness.make(), faults), poll_seconds=0.1)
        async with here.produce(key) as producer, reading(there, key) as live:
            await send_all(producer, [b"before"])
            await live.has(1)
            faults.fail("holders", times=float("inf"))
            seen = faults.calls["holders"]
            await asyncio.sleep(2.5 * ttl_of(here))
            assert faults.calls["holders"] > seen
            await send_all(producer, [b"after"])
            assert data_of(await live.has(2)) == [b"before", b"after"]

    # --- a lease that outlived its run

    async def test_a_lease_left_behind_by_an_ended_run_delays_nobody(self, harness: Harness) -> None:
        """L13: A lease left behind by an ended run does not delay the next one."""
        backend, hub = await harness.make(), await harness.hub()
        key = harness.unique_key()
        _, writer = await leave_unfinished(backend, key, [b"a"], lease_seconds=600.0)
        await writer.append(end=COMPLETED)
        await soon(produce_all(hub, key, [b"b"], run="r2"))
        assert data_of(await replay(hub, key)) == [b"b"]

    async def test_a_lease_left_behind_by_a_deleted_run_delays_nobody(self, harness: Harness) -> None:
        """L13: A lease left behind by an ended run does not delay the next one; nor does that of a deleted one."""
        backend, hub = await harness.make(), await harness.hub()
        key = harness.unique_key()
        await leave_unfinished(backend, key, [b"a"], lease_seconds=600.0)
        assert await backend.store.delete(key)
        await soon(produce_all(hub, key, [b"b"], run="r2"))
        assert data_of(await replay(hub, key)) == [b"b"]


async def _produce_until_interrupted(hub: Hub, key: str, chunks: Sequence[bytes], entered: asyncio.Event) -> None:
    async with hub.produce(key) as producer:
        await send_all(producer, chunks)
        entered.set()
        await asyncio.Event().wait()
