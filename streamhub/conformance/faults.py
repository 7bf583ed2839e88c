"""Faults: replies get lost, connections break, servers stop, hang or forget; no chunk is lost, and nobody hangs."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from streamhub import (
    Append,
    Appended,
    Backend,
    BackendUnavailableError,
    Change,
    ChangeFeed,
    DataLostError,
    End,
    Hub,
    LeaseHeldError,
    Page,
    Producer,
    ProducerCancelledError,
    Read,
    Seen,
    Started,
    StreamHubError,
    StreamInfo,
    StreamNotFoundError,
    StreamStore,
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
    read_end,
    reading,
    replay,
    send_all,
    soon,
    words,
)
from streamhub.conformance.faulty import Faults, FaultyChangeFeed, FaultyStore, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import PATIENCE_SECONDS, SLACK, eventually, settle
from streamhub.conformance.writer import described, read_all
from streamhub.types import COMPLETED, Metadata, Retention

Scenario = Callable[[Hub, str, Backend], Coroutine[Any, Any, None]]
"""Uses a hub whose backend fails, and judges by another connection what came of it."""


class FaultsTests(ContractTests):
    """X1 to X10, and: the outcome of a call whose reply is lost is as if nothing had happened."""

    # --- every protocol call, lost in turn

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

    # --- outages

    async def test_reading_survives_outages(self, harness: Harness) -> None:
        """X1: Backend restarted during reading: no gap, no duplicate."""
        faults, key = Faults(), harness.unique_key()
        here, there = await harness.hub(), await harness.hub(faulty(await harness.make(), faults))
        source = words(120)
        async with here.produce(key) as producer, reading(there, key) as live:
            for number in range(0, len(source), 20):
                await producer.send(source[number])
                async with _outage(faults):
                    await send_all(producer, source[number + 1 : number + 20])
                await live.has(number + 20)
        async with _outage(faults):
            late = asyncio.create_task(replay(there, key))
            await settle()
        assert data_of(await soon(late)) == source

    async def test_a_subscriber_gives_up_on_an_outage_that_lasts(self, harness: Harness) -> None:
        """X1: … outages are ridden out for `outage_seconds`, then told; what was read is where to go on from."""
        faults, key = Faults(), harness.unique_key()
        here = await harness.hub()
        there = await harness.hub(faulty(await harness.make(), faults), outage_seconds=0.4)
        async with here.produce(key) as producer:
            await send_all(producer, words(3))
            subscription = there.subscribe(key)
            first = await collect(subscription, limit=3)
            faults.down = True
            faults.break_feeds()
            with pytest.raises(BackendUnavailableError):
                await collect(subscription)
            await producer.send(b"meanwhile")
            faults.down = False
            async with there.subscribe(key, after=subscription.offset) as again:
                assert data_of(first + await collect(again, limit=1)) == [*words(3), b"meanwhile"]

    async def test_producing_and_reading_survive_a_restart(self, harness: Harness) -> None:
        """X1: Backend restarted during reading: no gap, no duplicate. X2: During append: … exactly once."""
        harness.require("restart")
        here, there = await harness.hub(lease_seconds=120.0), await harness.hub(lease_seconds=120.0)
        key, source = harness.unique_key(), words(60)
        async with here.produce(key) as producer, reading(there, key) as live:
            await send_all(producer, source[:20])
            await live.has(20)
            async with harness.down():
                for chunk in source[20:40]:
                    await producer.send(chunk)
            await soon(producer.flush(), 60.0)
            await send_all(producer, source[40:])
            assert data_of(await live.has(len(source), 60.0)) == source
        assert data_of(await replay(there, key)) == source

    async def test_producing_and_reading_survive_killed_connections(self, harness: Harness) -> None:
        """X1: … no gap, no duplicate. X2: … exactly once; here when the server drops every connection."""
        harness.require("kill_connections")
        here, there = await harness.hub(), await harness.hub()
        key, source = harness.unique_key(), words(60)
        async with here.produce(key) as producer, reading(there, key) as live:
            for number in range(0, len(source), 10):
                await producer.send(source[number])
                killing = asyncio.create_task(harness.kill_connections())
                await send_all(producer, source[number + 1 : number + 10])
                await soon(killing)
            assert data_of(await live.has(len(source))) == source
        assert data_of(await replay(there, key)) == source

    async def test_every_chunk_is_stored_once_though_calls_fail_at_random(self, harness: Harness) -> None:
        """X2: During append: it raises, or succeeded exactly once after the retry."""
        dice = random.Random(2)
        backend, reader = await harness.make(), await harness.hub()
        for _ in range(4):
            key, source = harness.unique_key(), words(150)
            hub = await harness.hub(faulty(backend, _Chaos(dice, 0.15)))
            async with reading(hub, key, wait=PATIENCE_SECONDS) as live:
                async with asyncio.timeout(PATIENCE_SECONDS), hub.produce(key) as producer:
                    for chunk in source:
                        await producer.send(chunk)
                        if dice.random() < 0.2:
                            await producer.flush()
                assert data_of(await live.finished()) == source
            chunks = await replay(reader, key)
            assert data_of(chunks) == source
            assert indexes_of(chunks) == list(range(1, len(source) + 1))

    async def test_an_append_that_never_succeeds_raises(self, harness: Harness) -> None:
        """X2: During append: it raises, or succeeded exactly once …: never both, never neither."""
        for way in ("fail", "lose_reply"):
            faults, key = Faults(), harness.unique_key()
            backend = await harness.make()
            hub = await harness.hub(faulty(backend, faults), outage_seconds=0.3)
            with pytest.raises(BackendUnavailableError):
                async with asyncio.timeout(PATIENCE_SECONDS), hub.produce(key) as producer:
                    await send_all(producer, [b"a"])
                    getattr(faults, way)("append", times=float("inf"))
                    await producer.send(b"b")
                    await producer.flush()
            stored = await read_all(backend.store, key)
            assert stored == ([b"a"] if way == "fail" else [b"a", b"b"])

    async def test_every_call_ends_within_the_outage_it_may_ride_out(self, harness: Harness) -> None:
        """X3: Connection black-holed: calls end within their time limit. The hub's own waits do."""
        faults, key = Faults(), harness.unique_key()
        await produce_all(await harness.hub(), key, [b"a"])
        hub = await harness.hub(faulty(await harness.make(), faults), outage_seconds=0.3)
        faults.down = True
        begun = time.monotonic()
        await _assert_unavailable(hub, key)
        assert time.monotonic() - begun < SLACK * 0.3 + 1.0

    async def test_everybody_is_told_when_a_server_stops_answering(self, harness: Harness) -> None:
        """X3: Connection black-holed: calls end within their time limit."""
        harness.require("pause")
        hub = await harness.hub(outage_seconds=1.0)
        key, untouched = harness.unique_key(), harness.unique_key()
        for written in (key, untouched):
            await produce_all(hub, written, [b"a"])
        async with harness.paused():
            await soon(_assert_unavailable(hub, key), 40.0)
        # What the other one was asked for may have happened, or happen still: a delete, for one.
        assert data_of(await soon(replay(hub, untouched))) == [b"a"]

    async def test_a_hub_closes_during_an_outage(self, harness: Harness) -> None:
        """X3: … calls end within their time limit: closing too, with a producer and a subscriber there."""
        faults, key = Faults(), harness.unique_key()
        hub = await harness.hub(faulty(await harness.make(), faults), outage_seconds=0.3)
        entered = asyncio.Event()
        stalled = asyncio.create_task(_stall(hub, key, entered))
        await soon(entered.wait())
        async with reading(hub, key) as live:
            await live.has(1)
            faults.down = True
            faults.break_feeds()
            await soon(hub.aclose())
            for task in (stalled, live.task):
                with pytest.raises(StreamHubError):
                    await soon(task)

    # --- notifications

    async def test_delivery_goes_on_when_the_feed_breaks(self, harness: Harness) -> None:
        """X4: Only the notification connection killed: delivery continues, the listener returns."""
        faults, key = Faults(), harness.unique_key()
        here, there = await harness.hub(), await harness.hub(faulty(await harness.make(), faults), **UNPOLLED)
        async with here.produce(key) as producer, reading(there, key) as live:
            await send_all(producer, [b"1"])
            await live.has(1)
            for number in (2, 4, 6):
                held = faults.pause("changes")
                faults.break_feeds()
                await soon(held.reached.wait())
                # Nobody hints at this one; the returning listener has to look.
                await send_all(producer, [b"%d" % number])
                held.resume()
                await live.has(number)
                await send_all(producer, [b"%d" % (number + 1)])
                assert data_of(await live.has(number + 1))[-2:] == [b"%d" % number, b"%d" % (number + 1)]

    async def test_a_reconnect_that_fails_half_way_is_made_again(self, harness: Harness) -> None:
        """X4: … the listener returns, whatever fails on its way: opening the feed, or following what it followed."""
        faults, keys = Faults(), [harness.unique_key() for _ in range(3)]
        here, there = await harness.hub(), await harness.hub(faulty(await harness.make(), faults), **UNPOLLED)
        async with contextlib.AsyncExitStack() as stack:
            producers = [await stack.enter_async_context(here.produce(key)) for key in keys]
            for producer in producers:
                await send_all(producer, [b"a"])
            lives = [await stack.enter_async_context(reading(there, key)) for key in keys]
            for live in lives:
                await live.has(1)
            for call in ("changes", "follow"):
                faults.fail(call, times=2)
                faults.lose_reply(call)
                faults.break_feeds()
            for producer in producers:
                await send_all(producer, [b"b"])
            for live in lives:
                assert data_of(await live.has(2)) == [b"a", b"b"]

    async def test_delivery_goes_on_when_the_server_drops_notification_connections(self, harness: Harness) -> None:
        """X4: Only the notification connection killed: delivery continues, the listener returns."""
        harness.require("kill_notifications")
        here, there = await harness.hub(), await harness.hub(**UNPOLLED)
        key = harness.unique_key()
        async with here.produce(key) as producer, reading(there, key) as live:
            for number in range(1, 4):
                await send_all(producer, [b"%d" % number])
                assert data_of(await live.has(number)) == [b"%d" % n for n in range(1, number + 1)]
                await harness.kill_notifications()

    async def test_a_server_that_forgets_its_caches_goes_on(self, harness: Harness) -> None:
        """X5: Server-side script or statement cache flushed: works."""
        harness.require("flush_caches")
        here, there = await harness.hub(), await harness.hub()
        for _ in range(2):
            key = harness.unique_key()
            async with here.produce(key, run="r1") as producer, reading(there, key) as live:
                await send_all(producer, [b"a"])
                await live.has(1)
                await harness.flush_caches()
                await send_all(producer, [b"b"])
                assert data_of(await live.has(2)) == [b"a", b"b"]
                await harness.flush_caches()
            assert (await there.cancel(key, run="r1")).state == "ended"
            await harness.flush_caches()
            assert await there.delete(key)
            await harness.flush_caches()

    # --- a backend that is emptied

    async def test_a_producer_sends_again_what_an_emptied_store_lost(self, harness: Harness) -> None:
        """X6: Backend emptied: … re-sends what was lost if it still holds it; subscribers get it once, or are told."""
        amnesia, key = _Amnesia(), harness.unique_key()
        here = await harness.hub(store=amnesia.of((await harness.make()).store))
        there = await harness.hub(store=amnesia.of((await harness.make()).store))
        source = words(9)
        async with reading(there, key, wait=PATIENCE_SECONDS) as live:
            async with asyncio.timeout(PATIENCE_SECONDS), here.produce(key, metadata={"model": "m"}) as producer:
                for number in range(0, 9, 3):
                    await send_all(producer, source[number : number + 3])
                    amnesia.forget()
            await _assert_whole_or_told(live.finished(), source)
        chunks = await replay(there, key)
        assert data_of(chunks) == source
        assert indexes_of(chunks) == list(range(1, 10))
        info = await there.info(key)
        assert info is not None
        assert (info.end, info.metadata) == (COMPLETED, {"model": "m"})

    async def test_a_producer_that_cannot_send_again_is_told(self, harness: Harness) -> None:
        """X6: Backend emptied: producers and subscribers get typed errors, no hang: else raises `DataLostError`."""
        amnesia, key = _Amnesia(), harness.unique_key()
        here = await harness.hub(store=amnesia.of((await harness.make()).store))
        there = await harness.hub(store=amnesia.of((await harness.make()).store))
        async with reading(there, key, wait=PATIENCE_SECONDS) as live:
            with pytest.raises(DataLostError):
                async with asyncio.timeout(PATIENCE_SECONDS), here.produce(key) as producer:
                    for _ in range(20):
                        await send_all(producer, [bytes(500_000)])
                    await live.has(20)
                    amnesia.forget()
                    await send_all(producer, [b"after"])
            with pytest.raises(StreamHubError):
                await live.finished()
            assert live.end is None

    async def test_subscribers_of_an_emptied_store_are_told(self, harness: Harness) -> None:
        """X6: Backend emptied: producers and subscribers get typed errors, no hang."""
        amnesia, key = _Amnesia(), harness.unique_key()
        backend = await harness.make()
        hub = await harness.hub(store=amnesia.of((await harness.make()).store))
        lease, writer = await leave_unfinished(backend, key, words(3), lease_seconds=600.0)
        behind = hub.subscribe(key)
        await collect(behind, limit=1)
        async with reading(hub, key) as live:
            await live.has(3)
            amnesia.forget()
            with pytest.raises(StreamNotFoundError):
                await live.finished()
        with pytest.raises(StreamNotFoundError):
            await replay(hub, key)
        # What follows under this key is another stream, and a cursor of the old one is no position in it.
        await backend.leases.release(lease)
        await produce_all(hub, key, words(5, "new"), run="new")
        for index in range(4):
            with pytest.raises(StreamHubError):
                await replay(hub, key, f"{writer.generation}-{index}")
        with pytest.raises(StreamHubError):
            assert data_of(await collect(behind)) == words(3)[1:]
            await anext(behind)

    async def test_everybody_is_told_when_a_backend_is_emptied(self, harness: Harness) -> None:
        """X6: Backend emptied: producers and subscribers get typed errors, no hang."""
        harness.require("wipe")
        here, there = await harness.hub(), await harness.hub()
        key, source = harness.unique_key(), words(3)
        async with reading(there, key, wait=PATIENCE_SECONDS) as live:
            with contextlib.suppress(StreamHubError):
                async with asyncio.timeout(PATIENCE_SECONDS), here.produce(key, run="r1") as producer:
                    await send_all(producer, source)
                    await live.has(3)
                    await harness.wipe()
                    await send_all(producer, [b"after"])
                    source.append(b"after")
            await _assert_whole_or_told(live.finished(), [*source])
        await produce_all(there, key, [b"new"], run="new", unfinished="replace", wait=PATIENCE_SECONDS)
        assert data_of(await replay(here, key)) == [b"new"]

    # --- time

    async def test_everything_works_after_a_long_silence(self, harness: Harness) -> None:
        """X7: Idle for three times the driver's default time-out: no error."""
        backend = await harness.make()
        here, there = await harness.hub(lease_seconds=600.0), await harness.hub(**UNPOLLED)
        key, other = harness.unique_key(), harness.unique_key()
        entered = asyncio.Event()
        stalled = asyncio.create_task(_stall(there, other, entered))
        async with here.produce(key) as producer, reading(there, key) as live:
            await send_all(producer, [b"before"])
            await live.has(1)
            await soon(entered.wait())
            await asyncio.sleep(harness.idle_seconds)
            await send_all(producer, [b"after"])
            assert data_of(await live.has(2)) == [b"before", b"after"]
        await soon(backend.ping())
        assert (await soon(here.cancel(other, run="r1", wait=PATIENCE_SECONDS))).state == "cancelled"
        with pytest.raises(ProducerCancelledError):
            await soon(stalled)

    async def test_a_hub_recovers_from_a_backend_that_was_down_at_its_start(self, harness: Harness) -> None:
        """X8: Backend down at start: clear error, later recovery."""
        faults, key = Faults(down=True), harness.unique_key()
        hub = await harness.hub(faulty(await harness.make(), faults), outage_seconds=0.2)
        await soon(_assert_unavailable(hub, key))
        faults.down = False
        async with reading(hub, key, wait=PATIENCE_SECONDS) as live:
            await produce_all(hub, key, words(3))
            assert data_of(await live.finished()) == words(3)

    async def test_a_backend_that_is_down_at_the_start_says_so(self, harness: Harness) -> None:
        """X8: Backend down at start: clear error, later recovery."""
        harness.require("restart")
        async with harness.down():
            with pytest.raises(BackendUnavailableError):
                await soon(harness.connect(), 60.0)
        hub = await harness.hub()
        await produce_all(hub, key := harness.unique_key(), [b"a"])
        assert data_of(await replay(hub, key)) == [b"a"]

    async def test_readers_do_not_keep_appends_out(self, harness: Harness) -> None:
        """X9: Pool exhausted by readers: appends go through."""
        faults, key, big = Faults(), harness.unique_key(), harness.unique_key()
        hub = await harness.hub(faulty(await harness.make(), faults))
        offsets = await produce_all(hub, big, [bytes(100_000)] * 20)
        held = [faults.pause("read") for _ in range(200)]
        readers = [asyncio.create_task(replay(hub, big, offset)) for offset in offsets * 5]
        await soon(held[0].reached.wait())
        await settle()
        # As many reads as the hub makes at once stand still; producing goes on beside them.
        await soon(produce_all(hub, key, words(5), flush_each=True))
        faults.clear()
        for pause in held:
            pause.resume()
        for offset, reader in zip(offsets * 5, readers, strict=True):
            assert len(await soon(reader)) == 20 - offset.index

    async def test_appends_go_through_while_everybody_reads(self, harness: Harness) -> None:
        """X9: Pool exhausted by readers: appends go through; here with all the reads that a hub can make."""
        hub = await harness.hub()
        bigs = [harness.unique_key() for _ in range(5)]
        for big in bigs:
            await produce_all(hub, big, [bytes(100_000)] * 30)
        key, reading_on = harness.unique_key(), True

        async def read_on(number: int) -> None:
            while reading_on:
                assert len(await replay(hub, bigs[number % 5])) == 30

        readers = [asyncio.create_task(read_on(number)) for number in range(50)]
        await settle()
        await soon(produce_all(hub, key, words(20), flush_each=True))
        reading_on = False
        await soon(asyncio.gather(*readers))

    async def test_a_step_of_the_clock_changes_nothing(self, harness: Harness) -> None:
        """X10: Client clock stepped by an hour: nothing changes."""
        here, there = await harness.hub(), await harness.hub(unfinished_seconds=600.0)
        ended = harness.unique_key()
        await produce_all(here, ended, words(3), retention=Retention(ended_seconds=600.0))
        for hours in (1, -1):
            key = harness.unique_key()
            async with here.produce(key, run="r1") as producer, reading(there, key) as live:
                await send_all(producer, [b"before"])
                with harness.skewed_clock(3600.0 * hours):
                    await asyncio.sleep(1.5 * harness.ttl_seconds(await harness.make()))
                    await send_all(producer, [b"during"])
                    assert data_of(await live.has(2)) == [b"before", b"during"]
                    with pytest.raises(LeaseHeldError) as caught:
                        async with there.produce(key, run="r2", unfinished="replace"):
                            pass
                    assert caught.value.expires_in < 60.0
                    assert data_of(await replay(there, ended)) == words(3)
                await send_all(producer, [b"after"])
                assert data_of(await live.has(3)) == [b"before", b"during", b"after"]
            assert await read_end(there, key) == COMPLETED


# --- scenarios of which every call is lost in turn


async def _lose_each_in_turn(harness: Harness, scenario: Scenario) -> set[str]:
    """Run a scenario once for each call it makes, that call failing or its reply being lost; return their names."""
    backend, judge = await harness.make(), await harness.make()
    calm = Faults()
    await soon(scenario(await harness.hub(faulty(backend, calm)), harness.unique_key(), judge))
    turns = asyncio.Semaphore(16)

    async def run(call: str, nth: int, way: str) -> None:
        async with turns:
            faults = Faults()
            faults.delay(call, 0, times=nth - 1) if nth > 1 else None
            getattr(faults, way)(call)
            try:
                hub = await harness.hub(faulty(backend, faults))
                await soon(scenario(hub, harness.unique_key(), judge))
            except Exception as exc:
                raise AssertionError(f"{way} of {call} number {nth}: {exc!r}") from exc

    async with asyncio.TaskGroup() as group:
        for call, count in calm.calls.items():
            for nth in range(1, min(count, 2) + 1):
                for way in ("fail", "lose_reply"):
                    group.create_task(run(call, nth, way))
    return set(calm.calls)


async def _produce(hub: Hub, key: str, judge: Backend) -> None:
    await produce_all(hub, key, words(3), run="r1", flush_each=True)
    await _assert_stored(judge, key, words(3), COMPLETED)
    info = await described(judge.store, key)
    assert len(info.spans) == 1, "the producer deposed itself"
    await _assert_free(judge, key)


async def _renew(hub: Hub, key: str, judge: Backend) -> None:
    async with hub.produce(key, run="r1") as producer:
        await send_all(producer, [b"a"])
        await asyncio.sleep(2.5 * (hub.settings.lease_seconds or 0.0))
        await send_all(producer, [b"b"])
    await _assert_stored(judge, key, [b"a", b"b"], COMPLETED)


async def _resume(hub: Hub, key: str, judge: Backend) -> None:
    await leave_released(judge, key, words(2))
    async with hub.produce(key, run="r1", unfinished="resume") as producer:
        assert [chunk.data async for chunk in producer.history()] == words(2)
        await send_all(producer, [b"more"])
    await _assert_stored(judge, key, [*words(2), b"more"], COMPLETED)
    assert len((await described(judge.store, key)).spans) == 2
    await _assert_free(judge, key)


async def _start(hub: Hub, key: str, judge: Backend) -> None:
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


async def _subscribe(hub: Hub, key: str, judge: Backend) -> None:
    _, writer = await leave_unfinished(judge, key, [b"1"], lease_seconds=600.0)
    async with reading(hub, key) as live:
        await live.has(1)
        # Long enough for a poll.
        await asyncio.sleep(0.3)
        for number in (b"2", b"3"):
            await writer.append(number)
            await live.has(int(number))
        await writer.append(b"4", end=COMPLETED)
        chunks = await live.finished()
    assert data_of(chunks) == [b"1", b"2", b"3", b"4"]
    assert indexes_of(chunks) == [1, 2, 3, 4]


async def _cancel_dead(hub: Hub, key: str, judge: Backend) -> None:
    await leave_released(judge, key, words(2))
    result = await hub.cancel(key, reason="user", wait=PATIENCE_SECONDS)
    end = End(state="cancelled", reason="user")
    assert (result.state, result.run, result.end) == ("cancelled", "r1", end)
    await _assert_stored(judge, key, words(2), end)
    await _assert_free(judge, key)


async def _cancel_live(hub: Hub, key: str, judge: Backend) -> None:
    entered = asyncio.Event()
    stalled = asyncio.create_task(_stall(hub, key, entered))
    await entered.wait()
    result = await hub.cancel(key, run="r1", reason="user", wait=PATIENCE_SECONDS)
    assert (result.state, result.end) == ("cancelled", End(state="cancelled", reason="user"))
    with pytest.raises(ProducerCancelledError):
        await stalled
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


async def _stall(hub: Hub, key: str, entered: asyncio.Event) -> None:
    async with hub.produce(key, run="r1") as producer:
        await send_all(producer, [b"a"])
        entered.set()
        await asyncio.Event().wait()


# --- calls that must end


async def _enter(hub: Hub, key: str) -> None:
    async with hub.produce(key, run="r2"):
        pass


async def _never(producer: Producer) -> None:
    raise AssertionError(f"the source of {producer.key!r} was called")


async def _list(hub: Hub, key: str) -> list[str]:
    return [found async for found in hub.keys(key)]


_USES: list[Callable[[Hub, str], Coroutine[Any, Any, object]]] = [
    _enter,
    lambda hub, key: hub.start(key, _never, run="r2"),
    lambda hub, key: replay(hub, key),
    lambda hub, key: replay(hub, key, wait=PATIENCE_SECONDS),
    lambda hub, key: hub.cancel(key, run="r2"),
    lambda hub, key: hub.info(key),
    lambda hub, key: hub.delete(key),
    _list,
    lambda hub, _: hub.ping(),
]


async def _assert_unavailable(hub: Hub, key: str) -> None:
    """Every call raises ``BackendUnavailableError``."""
    outcomes = await asyncio.gather(*(use(hub, key) for use in _USES), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [BackendUnavailableError] * len(_USES)


# --- faults of this module's own


@contextlib.asynccontextmanager
async def _outage(faults: Faults) -> AsyncGenerator[None]:
    """Nothing answers, and every feed is broken, for a moment that several retries fall into."""
    faults.down = True
    faults.break_feeds()
    try:
        yield
        await asyncio.sleep(0.1)
    finally:
        faults.down = False


class _Chaos(Faults):
    """Fails every call with some probability, half of them after they were made."""

    def __init__(self, dice: random.Random, probability: float) -> None:
        super().__init__()
        self._dice = dice
        self._probability = probability

    async def through(self, call: str, make: Callable[[], Awaitable[Any]]) -> Any:
        """See ``Faults.through``."""
        if self._dice.random() < self._probability:
            (self.fail if self._dice.random() < 0.5 else self.lose_reply)(call)
        if self._dice.random() < self._probability / 5:
            self.break_feeds()
        return await super().through(call, make)


class _Amnesia:
    """Lets stores forget everything, without a fence, as if emptied behind everybody's back: keys get new names."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._times = 0

    def of(self, inner: StreamStore) -> _ForgetfulStore:
        """Wrap a store; all stores that are wrapped forget together."""
        return _ForgetfulStore(inner, self.faults, self)

    def forget(self) -> None:
        """Forget everything that was stored so far."""
        self._times += 1
        self.faults.break_feeds()  # they follow the old names

    def name(self, key: str) -> str:
        """Return what a key is called now."""
        return f"{key} {self._times}" if self._times else key

    def key(self, name: str) -> str:
        """Return the key that has, or had, a name."""
        return name.partition(" ")[0]


class _ForgetfulStore(FaultyStore):
    def __init__(self, inner: StreamStore, faults: Faults, amnesia: _Amnesia) -> None:
        super().__init__(inner, faults)
        self._amnesia = amnesia

    async def open(
        self,
        key: str,
        generation: int,
        *,
        owner: str,
        run: str,
        expect: Seen | None,
        resume: bool,
        attended: bool = True,
        metadata: Metadata | None = None,
        retention: Retention,
    ) -> StreamInfo:
        """See ``StreamStore.open``."""
        info = await super().open(
            self._amnesia.name(key),
            generation,
            owner=owner,
            run=run,
            expect=expect,
            resume=resume,
            attended=attended,
            metadata=metadata,
            retention=retention,
        )
        return replace(info, key=key)

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | StreamHubError]:
        """See ``StreamStore.append``."""
        return await super().append([replace(item, key=self._amnesia.name(item.key)) for item in batch])

    async def read(self, reads: Sequence[Read]) -> Sequence[Page | StreamHubError]:
        """See ``StreamStore.read``."""
        return await super().read([replace(item, key=self._amnesia.name(item.key)) for item in reads])

    async def describe(self, keys: Sequence[str], *, touch: bool = False) -> Sequence[StreamInfo | None]:
        """See ``StreamStore.describe``."""
        infos = await super().describe([self._amnesia.name(key) for key in keys], touch=touch)
        return [info and replace(info, key=key) for key, info in zip(keys, infos, strict=True)]

    async def delete(self, key: str) -> bool:
        """See ``StreamStore.delete``."""
        return await super().delete(self._amnesia.name(key))

    def changes(self) -> AbstractAsyncContextManager[ChangeFeed]:
        """See ``StreamStore.changes``."""
        return self._forgetful()

    @contextlib.asynccontextmanager
    async def _forgetful(self) -> AsyncGenerator[ChangeFeed]:
        async with self._inner.changes() as feed:
            yield _ForgetfulFeed(feed, self._faults, self._amnesia)


class _ForgetfulFeed(FaultyChangeFeed):
    def __init__(self, inner: ChangeFeed, faults: Faults, amnesia: _Amnesia) -> None:
        super().__init__(inner, faults)
        self._amnesia = amnesia

    async def follow(self, key: str) -> None:
        """See ``ChangeFeed.follow``."""
        await super().follow(self._amnesia.name(key))

    async def unfollow(self, key: str) -> None:
        """See ``ChangeFeed.unfollow``."""
        await super().unfollow(self._amnesia.name(key))

    async def __aiter__(self) -> AsyncIterator[Change]:
        async for change in super().__aiter__():
            key = None if change.key is None else self._amnesia.key(change.key)
            append = change.append and replace(change.append, key=self._amnesia.key(change.append.key))
            yield Change(key, append)


async def _assert_whole_or_told(reading_on: Awaitable[Any], source: Sequence[bytes]) -> None:
    """A subscriber gets everything, or is told that it did not."""
    try:
        chunks = await reading_on
    except StreamHubError:
        return
    assert data_of(chunks) == list(source)
