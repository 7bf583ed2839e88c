"""The aim of a cancel: one run, the named or the current one, whenever it begins, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamhub import CancelResult, End, Producer, ProducerCancelledError, RunRef
from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import (
    UNPOLLED,
    Stalled,
    dismiss,
    leave_unfinished,
    produce_all,
    read_end,
    soon,
)
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import PATIENCE_SECONDS


class AimTests(ContractTests):
    """C3 to C6."""

    async def test_a_cancel_of_a_named_run_that_is_not_open_yet_is_kept_for_it(self, harness: Harness) -> None:
        """C3: A cancel before the producer listens, and of a named run before it opens, is not lost."""
        here, there = await harness.hub(**UNPOLLED), await harness.hub()
        key = harness.unique_key()
        result = await there.cancel(key, run="r1", reason="early", requested_by="u7")
        assert result == CancelResult(state="requested", run="r1")
        error = await Stalled(here, key, run="r1").cancelled()
        assert (error.reason, error.requested_by) == ("early", "u7")
        assert await read_end(there, key) == End(state="cancelled", reason="early", requested_by="u7")

    async def test_a_cancel_of_a_run_that_is_not_open_yet_outlives_other_runs(self, harness: Harness) -> None:
        """C3: A cancel … of a named run before it opens, is not lost: it lasts, also across delete and replace."""
        here, there = await harness.hub(**UNPOLLED), await harness.hub()
        key = harness.unique_key()
        await there.cancel(key, run="r2", reason="early")
        await produce_all(here, key, [b"a"], run="r1")
        await there.delete(key)
        await produce_all(here, key, [b"a"], run="another r1")
        assert (await Stalled(here, key, run="r2").cancelled()).reason == "early"

    async def test_a_cancel_at_any_step_of_opening_is_not_lost(self, harness: Harness) -> None:
        """C3: A cancel before the producer listens, and of a named run before it opens, is not lost."""
        for step in ("describe", "acquire", "requests", "listen", "open", "pending"):
            for after in (False, True):
                faults, key = Faults(), harness.unique_key()
                here = await harness.hub(faulty(await harness.make(), faults), **UNPOLLED)
                there = await harness.hub()
                held = faults.pause(step, after=after)
                stalled = Stalled(here, key, run="r1")
                await soon(held.reached.wait())
                await soon(there.cancel(key, run="r1", reason=step))
                held.resume()
                assert (await stalled.cancelled()).reason == step
                assert (await read_end(there, key)) == End(state="cancelled", reason=step)

    async def test_a_source_is_not_started_for_a_run_that_is_cancelled_already(self, harness: Harness) -> None:
        """C3: A cancel … of a named run before it opens, is not lost, and costs no call of the source."""
        hub = await harness.hub()
        key, called = harness.unique_key(), list[str]()

        async def source(producer: Producer) -> AsyncIterator[str]:
            called.append(producer.run)
            yield "never"

        await hub.cancel(key, run="r1", reason="early")
        with pytest.raises(ProducerCancelledError) as caught:
            await soon(hub.start(key, source, run="r1"))
        assert caught.value.reason == "early"
        assert await read_end(hub, key, wait=PATIENCE_SECONDS) == End(state="cancelled", reason="early")
        assert called == []

    async def test_a_cancel_of_one_run_leaves_the_others_alone(self, harness: Harness) -> None:
        """C4: A cancel of one run never affects another run of the stream."""
        here, there = await harness.hub(), await harness.hub()
        key = harness.unique_key()
        await produce_all(here, key, [b"a"], run="before")
        for run in ("before", "after", "r"):
            await there.cancel(key, run=run, reason="not you")
        async with here.produce(key, run="r1") as producer:
            for run in ("before", "after", "r"):
                await there.cancel(key, run=run, reason="not you")
            # Every way by which a request could arrive has its turn.
            await asyncio.sleep(2 * harness.ttl_seconds(await harness.make()))
            await producer.send(b"b")
        assert await read_end(there, key) == End(state="completed")
        await produce_all(here, key, [b"c"], run="r2")
        assert await read_end(there, key) == End(state="completed")

    async def test_a_cancel_of_one_stream_leaves_the_same_run_of_another_alone(self, harness: Harness) -> None:
        """C4: A cancel of one run never affects another run: requests are stored under key and run."""
        here, there = await harness.hub(), await harness.hub()
        key = harness.unique_key()
        other = Stalled(here, f"{key}:b", run="r1")
        victim = Stalled(here, key, run="b:r1")
        await other.ready()
        await victim.ready()
        assert (await there.cancel(key, run="b:r1", wait=PATIENCE_SECONDS)).state == "cancelled"
        await victim.cancelled()
        assert not other.task.done()
        assert await _pending(harness, f"{key}:b", "r1") is None
        await dismiss(other.task)

    async def test_a_cancel_without_a_run_hits_the_current_one_only(self, harness: Harness) -> None:
        """C5: Without a run it hits the current one only."""
        here, there = await harness.hub(), await harness.hub()
        key = harness.unique_key()
        await produce_all(here, key, [b"a"], run="r1")
        stalled = Stalled(here, key, run="r2")
        await stalled.ready()
        assert (await there.cancel(key, wait=PATIENCE_SECONDS)).run == "r2"
        await stalled.cancelled()
        for run in ("r1", "r3"):
            assert await _pending(harness, key, run) is None
        await produce_all(here, key, [b"c"], run="r3")
        assert await read_end(there, key) == End(state="completed")

    async def test_a_cancel_between_acquire_and_open_hits_the_run_that_begins(self, harness: Harness) -> None:
        """C5: Without a run it hits the current one only, also between acquire and open."""
        for before in ("nothing", "an ended run"):
            faults, key = Faults(), harness.unique_key()
            here, there = await harness.hub(faulty(await harness.make(), faults), **UNPOLLED), await harness.hub()
            if before != "nothing":
                await produce_all(there, key, [b"a"], run="ended")
            held = faults.pause("open")
            stalled = Stalled(here, key, run="r1")
            await soon(held.reached.wait())
            result = await soon(there.cancel(key, reason="now"))
            assert (result.state, result.run) == ("requested", "r1")
            held.resume()
            assert (await stalled.cancelled()).reason == "now"
            assert await read_end(there, key) == End(state="cancelled", reason="now")

    async def test_a_cancel_with_nothing_to_cancel_says_so(self, harness: Harness) -> None:
        """C6: Nothing running and no run named: the answer says so and nothing is stored."""
        backend, hub = await harness.make(), await harness.hub()
        never, ended, deleted, leased = (harness.unique_key() for _ in range(4))
        await produce_all(hub, ended, [b"a"], run="r1")
        await produce_all(hub, deleted, [b"a"], run="r1")
        await hub.delete(deleted)
        _, writer = await leave_unfinished(backend, leased, lease_seconds=600.0)
        await writer.append(end=End(state="completed"))
        for key in (never, ended, deleted, leased):
            assert await soon(hub.cancel(key, wait=PATIENCE_SECONDS)) == CancelResult(state="nothing")
            assert await backend.cancels.pending([RunRef(key, "r1")]) == [None]
        assert await backend.store.describe([never]) == [None]
        for key in (never, ended, deleted, leased):
            await produce_all(hub, key, [b"b"], run="r2")
            assert await read_end(hub, key) == End(state="completed")

    async def test_a_cancel_of_an_ended_run_says_how_it_ended(self, harness: Harness) -> None:
        """C6: … a named, ended run: `ended`."""
        hub = await harness.hub()
        key = harness.unique_key()
        await produce_all(hub, key, [b"a"], run="r1")
        result = await soon(hub.cancel(key, run="r1", wait=PATIENCE_SECONDS))
        assert result == CancelResult(state="ended", run="r1", end=End(state="completed"))
        assert await _pending(harness, key, "r1") is None


async def _pending(harness: Harness, key: str, run: str) -> object:
    backend = await harness.make()
    [request] = await backend.cancels.pending([RunRef(key, run)])
    return request
