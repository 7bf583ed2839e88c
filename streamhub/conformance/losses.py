"""Losses: each call of a scenario fails, or its reply is lost, and the outcome is as if nothing had happened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeAlias

from streamhub import (
    Backend,
    End,
    Hub,
    Producer,
    Started,
)
from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import (
    Stalled,
    data_of,
    indexes_of,
    leave_released,
    leave_unfinished,
    produce_all,
    reading,
    send_all,
    soon,
    words,
)
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import PATIENCE_SECONDS, eventually
from streamhub.conformance.writer import described, read_all
from streamhub.types import COMPLETED


class Scene(NamedTuple):
    """A hub whose backend fails as ``faults`` say, a key of its own, and another connection to judge by."""

    hub: Hub
    key: str
    judge: Backend
    faults: Faults


Scenario: TypeAlias = Callable[[Scene], Coroutine[Any, Any, None]]
"""Uses the hub, and judges what came of it."""


class LossTests(ContractTests):
    """X1 and X2, call by call."""

    async def test_producing_survives_the_loss_of_any_call(self, harness: Harness) -> None:
        """X2: During append: it raises, or succeeded exactly once after the retry; and so for every call it makes."""
        calls = await _lose_each_in_turn(harness, _produce)
        assert calls >= {"describe", "acquire", "requests", "listen", "open", "pending", "append", "release"}

    async def test_renewing_survives_the_loss_of_any_call(self, harness: Harness) -> None:
        """X2: … and so for every call that keeps a run alive."""
        calls = await _lose_each_in_turn(harness, _renew)
        assert calls >= {"renew", "pending", "describe"}

    async def test_resuming_survives_the_loss_of_any_call(self, harness: Harness) -> None:
        """X2: … and so for every call that takes a run over."""
        calls = await _lose_each_in_turn(harness, _resume)
        assert calls >= {"describe", "acquire", "open", "read", "append"}

    async def test_starting_survives_the_loss_of_any_call(self, harness: Harness) -> None:
        """X2: … and so for every call of a run in a task of the hub's: its source is called once."""
        calls = await _lose_each_in_turn(harness, _start)
        assert calls >= {"describe", "acquire", "open", "append", "release"}

    async def test_subscribing_survives_the_loss_of_any_call(self, harness: Harness) -> None:
        """X1: … no gap, no duplicate, whichever call of a subscriber's is lost."""
        calls = await _lose_each_in_turn(harness, _subscribe)
        assert calls >= {"changes", "follow", "read", "describe", "holders"}

    async def test_cancelling_a_dead_run_survives_the_loss_of_any_call(self, harness: Harness) -> None:
        """X2: … and so for every call of a cancel that writes the end itself."""
        calls = await _lose_each_in_turn(harness, _cancel_dead)
        assert calls >= {"describe", "request", "holders", "pending", "acquire", "open", "append", "release"}

    async def test_cancelling_a_live_run_survives_the_loss_of_any_call(self, harness: Harness) -> None:
        """X2: … and so for every call of a cancel, and of the run it is for."""
        calls = await _lose_each_in_turn(harness, _cancel_live)
        assert calls >= {"request", "listen", "pending"}


# --- scenarios of which every call is lost in turn


async def _lose_each_in_turn(harness: Harness, scenario: Scenario) -> set[str]:
    """Run a scenario once for each call it makes, that call failing or its reply being lost; return their names."""
    backend, judge = await harness.make(), await harness.make()
    calm = Faults()
    await soon(scenario(Scene(await harness.hub(faulty(backend, calm)), harness.unique_key(), judge, calm)))
    turns = asyncio.Semaphore(16)

    async def run(call: str, nth: int, way: str) -> None:
        async with turns:
            faults = Faults()
            faults.delay(call, 0, times=nth - 1) if nth > 1 else None
            getattr(faults, way)(call)
            try:
                hub = await harness.hub(faulty(backend, faults))
                await soon(scenario(Scene(hub, harness.unique_key(), judge, faults)))
            except Exception as exc:
                raise AssertionError(f"{way} of {call} number {nth}: {exc!r}") from exc

    async with asyncio.TaskGroup() as group:
        for call, count in calm.calls.items():
            for nth in range(1, min(count, 2) + 1):
                for way in ("fail", "lose_reply"):
                    group.create_task(run(call, nth, way))
    return set(calm.calls)


async def _produce(scene: Scene) -> None:
    hub, key, judge, _ = scene
    await produce_all(hub, key, words(3), run="r1", flush_each=True)
    await _assert_stored(judge, key, words(3), COMPLETED)
    info = await described(judge.store, key)
    assert len(info.spans) == 1, "the producer deposed itself"
    await _assert_free(judge, key)


async def _renew(scene: Scene) -> None:
    hub, key, judge, _ = scene
    async with hub.produce(key, run="r1") as producer:
        await send_all(producer, [b"a"])
        await asyncio.sleep(2.5 * (hub.settings.lease_seconds or 0.0))
        await send_all(producer, [b"b"])
    await _assert_stored(judge, key, [b"a", b"b"], COMPLETED)


async def _resume(scene: Scene) -> None:
    hub, key, judge, _ = scene
    await leave_released(judge, key, words(2))
    async with hub.produce(key, run="r1", unfinished="resume") as producer:
        assert [chunk.data async for chunk in producer.history()] == words(2)
        await send_all(producer, [b"more"])
    await _assert_stored(judge, key, [*words(2), b"more"], COMPLETED)
    assert len((await described(judge.store, key)).spans) == 2
    await _assert_free(judge, key)


async def _start(scene: Scene) -> None:
    hub, key, judge, _ = scene
    calls: list[str] = []

    async def source(producer: Producer) -> AsyncIterator[bytes]:
        calls.append(producer.run)
        for chunk in words(3):
            yield chunk

    started = await hub.start(key, source, run="r1")
    assert isinstance(started, Started)

    async def ended() -> bool:
        return (await described(judge.store, key)).end is not None

    await eventually(ended)
    assert calls == ["r1"]
    await _assert_stored(judge, key, words(3), COMPLETED)
    await _assert_free(judge, key)


async def _subscribe(scene: Scene) -> None:
    hub, key, judge, faults = scene
    _, writer = await leave_unfinished(judge, key, [b"1"], lease_seconds=600.0)
    async with reading(hub, key) as live:
        await live.has(1)
        await eventually(lambda: _polled(faults))
        for number in (b"2", b"3"):
            await writer.append(number)
            await live.has(int(number))
        await writer.append(b"4", end=COMPLETED)
        chunks = await live.finished()
    assert data_of(chunks) == [b"1", b"2", b"3", b"4"]
    assert indexes_of(chunks) == [1, 2, 3, 4]


async def _polled(faults: Faults) -> bool:
    return faults.calls["holders"] > 0


async def _cancel_dead(scene: Scene) -> None:
    hub, key, judge, _ = scene
    await leave_released(judge, key, words(2))
    result = await hub.cancel(key, reason="user", wait=PATIENCE_SECONDS)
    end = End(state="cancelled", reason="user")
    assert (result.state, result.run, result.end) == ("cancelled", "r1", end)
    await _assert_stored(judge, key, words(2), end)
    await _assert_free(judge, key)


async def _cancel_live(scene: Scene) -> None:
    hub, key, judge, _ = scene
    stalled = Stalled(hub, key, run="r1")
    await stalled.ready()
    result = await hub.cancel(key, run="r1", reason="user", wait=PATIENCE_SECONDS)
    assert (result.state, result.end) == ("cancelled", End(state="cancelled", reason="user"))
    await stalled.cancelled()
    await _assert_stored(judge, key, [b"a"], End(state="cancelled", reason="user"))
    await _assert_free(judge, key)


async def _assert_stored(judge: Backend, key: str, chunks: Sequence[bytes], end: End) -> None:
    info = await described(judge.store, key)
    assert (info.tail, info.end) == (len(chunks), end)
    assert await read_all(judge.store, key) == list(chunks)


async def _assert_free(judge: Backend, key: str) -> None:
    """The lease was given back, or runs out by itself."""

    async def holders() -> object:
        return await judge.leases.holders([key])

    await eventually(holders, lambda found: found == [None], within=5.0)
