"""Claims: who may produce a run, begin it, continue it, replace it or join it, however the claims race."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

import pytest

from streamhub import (
    Hub,
    Joined,
    LeaseHeldError,
    Producer,
    Started,
    StreamEndedError,
    StreamUnfinishedError,
)
from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import (
    data_of,
    enter,
    leave_released,
    leave_unfinished,
    never,
    replay,
    send_all,
    soon,
)
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import PATIENCE_SECONDS, settle
from streamhub.conformance.writer import described
from streamhub.types import COMPLETED


class ClaimTests(ContractTests):
    """L9."""

    async def test_an_unfinished_run_is_refused_unless_the_caller_says(self, harness: Harness) -> None:
        """L9: resume, replace and raise behave as named: raise, the default."""
        backend, hub = await harness.make(), await harness.hub()
        key = harness.unique_key()
        await leave_released(backend, key, [b"a"])
        for run in ("r1", None, "other"):
            with pytest.raises(StreamUnfinishedError) as caught:
                await soon(enter(hub, key, run=run))
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
            await soon(enter(hub, key, run="other", unfinished="resume"))
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
                    await soon(enter(there, key, run=state, unfinished=unfinished))
                assert caught.value.end.state == state
                with pytest.raises(StreamEndedError):
                    await soon(there.start(key, never, run=state, unfinished=unfinished))
            assert data_of(await replay(there, key, strict=False)) == [b"a"]

    async def test_an_ended_run_is_not_started_again_by_whoever_raced_its_end(self, harness: Harness) -> None:
        """L9: An ended run is never started again, however the race goes."""
        hubs = [await harness.hub() for _ in range(3)]

        async def race() -> list[str]:
            key = harness.unique_key()
            entering = [enter(hub, key, run="r1", wait=PATIENCE_SECONDS) for hub in hubs]
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
            redelivered = asyncio.create_task(enter(hub, key, run="r1", unfinished="resume"))
            await soon(held.reached.wait())
            await writer.append(end=COMPLETED)
            held.resume()
            with pytest.raises(StreamEndedError):
                await soon(redelivered)
            assert await backend.leases.holders([key]) == [None]
            assert data_of(await replay(hub, key)) == [b"a"]

    async def test_start_does_not_join_a_run_that_has_just_ended(self, harness: Harness) -> None:
        """L9: `start` joins only a run that a fresh describe shows un-ended: its lease may outlast it."""
        looks: list[tuple[Literal["raise", "resume"], str]] = [("raise", "holders"), ("resume", "acquire")]
        for unfinished, step in looks:
            faults, key = Faults(), harness.unique_key()
            hub, backend = await harness.hub(faulty(await harness.make(), faults)), await harness.make()
            _, writer = await leave_unfinished(backend, key, [b"a"], lease_seconds=600.0)
            held = faults.pause(step, after=step == "holders")
            starting = asyncio.create_task(hub.start(key, never, run="r1", unfinished=unfinished))
            await soon(held.reached.wait())
            await writer.append(end=COMPLETED)
            held.resume()
            with pytest.raises(StreamEndedError):
                await soon(starting)

    async def test_start_joins_the_live_run_of_its_name(self, harness: Harness) -> None:
        """L9: A live one of the same name is joined, one of another name is not."""
        here, there = await harness.hub(), await harness.hub()
        key = harness.unique_key()
        async with here.produce(key, run="r1") as producer:
            for run in ("r1", None):
                joined = await soon(there.start(key, never, run=run))
                assert joined == Joined(key, "r1", producer.generation)
            with pytest.raises(LeaseHeldError) as caught:
                await soon(there.start(key, never, run="r2"))
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


async def _end_as(hub: Hub, producer: Producer, state: str) -> None:
    if state == "failed":
        raise ValueError("an error of the application's")
    if state == "cancelled":
        await hub.cancel(producer.key, run=producer.run)
        await asyncio.Event().wait()
