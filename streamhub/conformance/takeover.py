"""Takeover: a run outlives its producer, and nobody is left waiting for one that will not come back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import pytest

from streamhub import (
    Hub,
    Joined,
    LeaseHeldError,
    LeaseLostError,
    Producer,
    StaleGenerationError,
    Started,
    StreamAbandonedError,
    StreamEndedError,
    StreamReplacedError,
    StreamUnfinishedError,
)
from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import (
    UNPOLLED,
    collect,
    data_of,
    indexes_of,
    leave_released,
    leave_unfinished,
    produce_all,
    reading,
    replay,
    send_all,
    soon,
    until,
    words,
)
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.process import Peer
from streamhub.conformance.waiting import PATIENCE_SECONDS, SLACK, settle
from streamhub.conformance.writer import described
from streamhub.types import COMPLETED


class TakeoverTests(ContractTests):
    """L4 to L10 as users meet them, and L13."""

    # --- a producer dies

    async def test_the_stream_of_a_killed_producer_is_resumed_within_its_time_to_live(self, harness: Harness) -> None:
        """L4: A killed producer's stream (SIGKILL) is acquirable within the time-to-live plus slack."""
        hub = await harness.hub()
        key, ttl = harness.unique_key(), _ttl(hub)
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
        key, ttl = harness.unique_key(), _ttl(hub)
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
            await soon(_enter(hub, key, unfinished="resume"))
        with pytest.raises(LeaseHeldError):
            await soon(_enter(hub, key, unfinished="resume", wait=0.05))
        if time.monotonic() - begun > ttl:
            return  # so slow a machine that nothing was shown
        assert await soon(_enter(hub, key, unfinished="resume", wait=PATIENCE_SECONDS))
        assert time.monotonic() - begun >= 0.9 * ttl

    # --- a producer is paused

    async def test_a_paused_process_that_was_overtaken_is_refused_and_told(self, harness: Harness) -> None:
        """L5: A paused producer (SIGSTOP past the time-to-live) is refused when it wakes, and told."""
        hub = await harness.hub()
        key = harness.unique_key()
        async with harness.process() as peer:
            await soon(peer.call("produce", key, run="r1"))
            await soon(peer.call("send", key, b"before"))
            await soon(peer.call("flush", key))
            peer.stop()
            async with hub.produce(key, run="r1", unfinished="resume", wait=PATIENCE_SECONDS) as producer:
                await send_all(producer, [b"successor"])
                late = asyncio.create_task(_send_there(peer, key))
                peer.cont()
                with pytest.raises((StaleGenerationError, LeaseLostError)):
                    await soon(peer.call("outcome", key))
                with pytest.raises((StaleGenerationError, LeaseLostError)):
                    await soon(late)
                await producer.send(b"more")
        assert data_of(await replay(hub, key)) == [b"before", b"successor", b"more"]

    async def test_a_paused_producer_that_was_overtaken_is_refused_and_told(self, harness: Harness) -> None:
        """L5: A paused producer (… past the time-to-live) is refused when it wakes, and told."""
        faults, key = Faults(), harness.unique_key()
        paused, hub = await harness.hub(faulty(await harness.make(), faults)), await harness.hub()
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def produce() -> None:
            async with paused.produce(key, run="r1") as producer:
                await send_all(producer, [b"before"])
                entered.set()
                await go_on.wait()
                await send_all(producer, [b"late"])

        victim = asyncio.create_task(produce())
        await soon(entered.wait())
        # Its append has passed every check of its own, and stands still before the store.
        held = faults.pause("append")
        faults.fail("renew", times=float("inf"))
        go_on.set()
        await soon(held.reached.wait())
        async with hub.produce(key, run="r1", unfinished="resume", wait=PATIENCE_SECONDS) as successor:
            await send_all(successor, [b"successor"])
            held.resume()
            with pytest.raises((StaleGenerationError, LeaseLostError)):
                await soon(victim)
            await successor.send(b"more")
        assert data_of(await replay(hub, key)) == [b"before", b"successor", b"more"]

    async def test_a_producer_that_wakes_up_without_a_lease_writes_nothing_more(self, harness: Harness) -> None:
        """L5: A paused producer … is refused when it wakes: without a lease it writes nothing, overtaken or not."""
        backend, hub = await harness.make(), await harness.hub()
        key = harness.unique_key()
        with pytest.raises(LeaseLostError):
            async with asyncio.timeout(PATIENCE_SECONDS), hub.produce(key, run="r1") as producer:
                await send_all(producer, [b"a"])
                time.sleep(1.2 * _ttl(hub))  # nothing else of this process runs either
                await send_all(producer, [b"late"])
        info = await described(backend.store, key)
        assert (info.state, info.tail, info.end) == ("open", 1, None)

    async def test_a_producer_without_a_lease_writes_nothing_more(self, harness: Harness) -> None:
        """L5: Without a lease it writes nothing more, not even an end."""
        faults, key = Faults(), harness.unique_key()
        backend = await harness.make()
        hub = await harness.hub(faulty(await harness.make(), faults))
        with pytest.raises(LeaseLostError):
            async with asyncio.timeout(PATIENCE_SECONDS), hub.produce(key, run="r1") as producer:
                await send_all(producer, [b"a"])
                faults.fail("renew", times=float("inf"))
                await asyncio.Event().wait()
        info = await described(backend.store, key)
        assert (info.state, info.tail, info.end) == ("open", 1, None)

    # --- renewals fail

    async def test_failed_renewals_do_not_stop_a_run_within_its_lease(self, harness: Harness) -> None:
        """L6: One failed renewal does not stop the run."""
        faults, key = Faults(), harness.unique_key()
        backend = await harness.make()
        hub = await harness.hub(faulty(backend, faults), lease_seconds=2 * harness.ttl_seconds(backend))
        async with hub.produce(key) as producer:
            for way in (faults.fail, faults.lose_reply, faults.fail):
                way("renew")
                renewals = faults.calls["renew"]
                await until(lambda seen=renewals: faults.calls["renew"] > seen + 1)
                await send_all(producer, [b"x"])
        assert data_of(await replay(hub, key)) == [b"x"] * 3

    async def test_a_lease_that_cannot_be_renewed_is_lost_at_the_producers_own_deadline(self, harness: Harness) -> None:
        """L6: Loss is declared only definitely or past the producer's own monotonic deadline."""
        faults, key = Faults(), harness.unique_key()
        backend = await harness.make()
        ttl = 2 * harness.ttl_seconds(backend)
        hub = await harness.hub(faulty(backend, faults), lease_seconds=ttl)
        entered = time.monotonic()
        faults.fail("renew", times=float("inf"))
        with pytest.raises(LeaseLostError) as caught:
            async with asyncio.timeout(PATIENCE_SECONDS), hub.produce(key):
                await asyncio.Event().wait()
        assert 0.9 * ttl <= time.monotonic() - entered <= SLACK * ttl
        info = await described(backend.store, key)
        assert (caught.value.key, caught.value.generation) == (key, info.generation)

    async def test_a_renewal_that_hangs_is_lost_at_the_producers_own_deadline(self, harness: Harness) -> None:
        """L6: Loss is declared … past the producer's own monotonic deadline, however long a renewal takes."""
        faults, key = Faults(), harness.unique_key()
        backend = await harness.make()
        ttl = harness.ttl_seconds(backend)
        hub = await harness.hub(faulty(backend, faults), lease_seconds=ttl)
        for _ in range(20):
            faults.pause("renew")
        with pytest.raises(LeaseLostError):
            async with asyncio.timeout(SLACK * ttl), hub.produce(key):
                await asyncio.Event().wait()

    async def test_a_definite_loss_stops_a_stalled_producer(self, harness: Harness) -> None:
        """L6: Loss is declared … definitely: a renewal that answers *lost* is acted on at once."""
        backend, hub = await harness.make(), await harness.hub(lease_seconds=3.0)
        key = harness.unique_key()
        begun = time.monotonic()
        with pytest.raises(LeaseLostError):
            async with asyncio.timeout(PATIENCE_SECONDS), hub.produce(key, run="r1") as producer:
                lease = await backend.leases.acquire(
                    key, owner="taker", run="r1", ttl_seconds=60.0, void=producer.generation
                )
                assert lease.generation > producer.generation
                await asyncio.Event().wait()
        assert time.monotonic() - begun < 3.0

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

    # --- resume, replace, raise; join

    async def test_an_unfinished_run_is_refused_unless_the_caller_says(self, harness: Harness) -> None:
        """L9: resume, replace and raise behave as named: raise, the default."""
        backend, hub = await harness.make(), await harness.hub()
        key = harness.unique_key()
        await leave_released(backend, key, [b"a"])
        for run in ("r1", None, "other"):
            with pytest.raises(StreamUnfinishedError) as caught:
                await soon(_enter(hub, key, run=run))
            assert (caught.value.key, caught.value.run) == (key, "r1")
        info = await described(backend.store, key)
        assert (info.state, info.run, info.tail) == ("open", "r1", 1)
        assert await backend.leases.holders([key]) == [None]

    async def test_resume_continues_only_the_same_run(self, harness: Harness) -> None:
        """L9: resume, replace and raise behave as named: resume."""
        backend, hub = await harness.make(), await harness.hub()
        key = harness.unique_key()
        await leave_released(backend, key, [b"a"])
        with pytest.raises(StreamUnfinishedError):
            await soon(_enter(hub, key, run="other", unfinished="resume"))
        async with hub.produce(key, run="r1", unfinished="resume") as producer:
            assert producer.resumed
            assert producer.offset.index == 1
            assert (await producer.send(b"b")).index == 2
        assert data_of(await replay(hub, key)) == [b"a", b"b"]

    async def test_replace_begins_a_new_run(self, harness: Harness) -> None:
        """L9: resume, replace and raise behave as named: replace."""
        backend, hub = await harness.make(), await harness.hub()
        key = harness.unique_key()
        for run in ("r2", None):
            await leave_released(backend, key, [b"a"])
            async with hub.produce(key, run=run, unfinished="replace") as producer:
                assert not producer.resumed
                assert [chunk async for chunk in producer.history()] == []
                assert (await producer.send(b"b")).index == 1
            assert data_of(await replay(hub, key)) == [b"b"]

    async def test_an_ended_run_is_never_started_again(self, harness: Harness) -> None:
        """L9: An ended run is never started again."""
        here, there = await harness.hub(), await harness.hub()
        key, ends = harness.unique_key(), {"completed", "failed", "cancelled"}
        for state in sorted(ends):
            with contextlib.suppress(Exception):
                async with here.produce(key, run=state) as producer:
                    await producer.send(b"a")
                    await _end_as(here, producer, state)
            for unfinished in ("raise", "resume", "replace"):
                with pytest.raises(StreamEndedError) as caught:
                    await soon(_enter(there, key, run=state, unfinished=unfinished))
                assert caught.value.end.state == state
                with pytest.raises(StreamEndedError):
                    await soon(there.start(key, _never_called, run=state, unfinished=unfinished))
            assert data_of(await replay(there, key, strict=False)) == [b"a"]

    async def test_an_ended_run_is_not_started_again_by_whoever_raced_its_end(self, harness: Harness) -> None:
        """L9: An ended run is never started again, however the race goes."""
        hubs = [await harness.hub() for _ in range(3)]

        async def race() -> list[str]:
            key = harness.unique_key()
            entering = [_enter(hub, key, run="r1", wait=PATIENCE_SECONDS) for hub in hubs]
            outcomes = await asyncio.gather(*entering, return_exceptions=True)
            return [type(outcome).__name__ for outcome in outcomes]

        for outcomes in await soon(asyncio.gather(*(race() for _ in range(25)))):
            assert sorted(outcomes) == ["StreamEndedError", "StreamEndedError", "bool"]

    async def test_a_redelivered_job_that_decided_before_the_end_does_not_start_again(self, harness: Harness) -> None:
        """L9: An ended run is never started again, however the race goes: an end between describe and acquire, and
        between acquire and open.
        """
        for step in ("acquire", "open"):
            faults, key = Faults(), harness.unique_key()
            hub, backend = await harness.hub(faulty(await harness.make(), faults)), await harness.make()
            writer = await leave_released(backend, key, [b"a"])
            held = faults.pause(step)
            redelivered = asyncio.create_task(_enter(hub, key, run="r1", unfinished="resume"))
            await soon(held.reached.wait())
            await writer.append(end=COMPLETED)
            held.resume()
            with pytest.raises(StreamEndedError):
                await soon(redelivered)
            assert await backend.leases.holders([key]) == [None]
            assert data_of(await replay(hub, key)) == [b"a"]

    async def test_start_joins_the_live_run_of_its_name(self, harness: Harness) -> None:
        """L9: A live one of the same name is joined, one of another name is not."""
        here, there = await harness.hub(), await harness.hub()
        key = harness.unique_key()
        async with here.produce(key, run="r1") as producer:
            for run in ("r1", None):
                joined = await soon(there.start(key, _never_called, run=run))
                assert joined == Joined(key, "r1", producer.generation)
            with pytest.raises(LeaseHeldError) as caught:
                await soon(there.start(key, _never_called, run="r2"))
            assert (caught.value.run, caught.value.generation) == ("r1", producer.generation)
            assert caught.value.expires_in > 0

    async def test_start_calls_only_the_winners_source(self, harness: Harness) -> None:
        """L9: … however the race goes: `start` calls the factory only after the run is open, so a lost race never
        calls the LLM.
        """
        hubs = [await harness.hub() for _ in range(4)]
        for _ in range(10):
            key, called = harness.unique_key(), list[int]()

            async def source(producer: Producer, called: list[int] = called) -> None:
                called.append(producer.generation)
                await send_all(producer, [b"a"])
                await settle(20)

            outcomes = await soon(
                asyncio.gather(*(hub.start(key, source, run="r1") for hub in hubs), return_exceptions=True)
            )
            [started] = [outcome for outcome in outcomes if isinstance(outcome, Started)]
            assert all(isinstance(outcome, (Started, Joined, StreamEndedError)) for outcome in outcomes), outcomes
            assert data_of(await replay(hubs[0], key)) == [b"a"]
            assert called == [started.generation]

    # --- readers of the dead

    async def test_subscribers_of_a_dead_producer_are_told_within_the_bound(self, harness: Harness) -> None:
        """L10: A dead producer's subscribers raise StreamAbandonedError within the bound: no hang."""
        backend, hub = await harness.make(), await harness.hub()
        key, ttl = harness.unique_key(), _ttl(hub)
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
                    await live.finished(SLACK * 3 * _ttl(hub))
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
            await asyncio.sleep(3 * _ttl(here))
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
            await asyncio.sleep(2.5 * _ttl(here))
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


def _ttl(hub: Hub) -> float:
    seconds = hub.settings.lease_seconds
    assert seconds is not None, "the harness sets it"
    return seconds


async def _enter(hub: Hub, key: str, **options: Any) -> bool:
    """Enter a produce block and leave it in the ordinary way."""
    async with hub.produce(key, **options):
        return True


async def _never_called(producer: Producer) -> None:
    raise AssertionError(f"the source of {producer.key!r} was called")


async def _end_as(hub: Hub, producer: Producer, state: str) -> None:
    if state == "failed":
        raise ValueError("an error of the application's")
    if state == "cancelled":
        await hub.cancel(producer.key, run=producer.run)
        await asyncio.Event().wait()


async def _produce_until_interrupted(hub: Hub, key: str, chunks: Sequence[bytes], entered: asyncio.Event) -> None:
    async with hub.produce(key) as producer:
        await send_all(producer, chunks)
        entered.set()
        await asyncio.Event().wait()


async def _send_there(peer: Peer, key: str) -> None:
    await peer.call("send", key, b"late")
    await peer.call("flush", key)
