"""Faults: replies get lost, connections break, servers stop, hang or forget; no chunk is lost, and nobody hangs."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from streamhub import (
    BackendUnavailableError,
    Hub,
    LeaseHeldError,
    StreamHubError,
)
from streamhub.conformance.amnesia import AmnesiaTests
from streamhub.conformance.drive import (
    UNPOLLED,
    Stalled,
    collect,
    data_of,
    enter,
    indexes_of,
    never,
    produce_all,
    read_end,
    reading,
    replay,
    send_all,
    soon,
    words,
)
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.losses import LossTests
from streamhub.conformance.waiting import PATIENCE_SECONDS, SLACK, settle
from streamhub.conformance.writer import read_all
from streamhub.types import COMPLETED, Retention


class FaultsTests(LossTests, AmnesiaTests):
    """X1 to X10."""

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
        stalled = Stalled(hub, key)
        await stalled.ready()
        async with reading(hub, key) as live:
            await live.has(1)
            faults.down = True
            faults.break_feeds()
            await soon(hub.aclose())
            for task in (stalled.task, live.task):
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

    # --- time

    async def test_everything_works_after_a_long_silence(self, harness: Harness) -> None:
        """X7: Idle for three times the driver's default time-out: no error."""
        backend = await harness.make()
        here, there = await harness.hub(lease_seconds=600.0), await harness.hub(**UNPOLLED)
        key, other = harness.unique_key(), harness.unique_key()
        stalled = Stalled(there, other, run="r1")
        async with here.produce(key) as producer, reading(there, key) as live:
            await send_all(producer, [b"before"])
            await live.has(1)
            await stalled.ready()
            await asyncio.sleep(harness.idle_seconds)
            await send_all(producer, [b"after"])
            assert data_of(await live.has(2)) == [b"before", b"after"]
        await soon(backend.ping())
        assert (await soon(here.cancel(other, run="r1", wait=PATIENCE_SECONDS))).state == "cancelled"
        await stalled.cancelled()

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


# --- calls that must end


async def _list(hub: Hub, key: str) -> list[str]:
    return [found async for found in hub.keys(key)]


_USES: list[Callable[[Hub, str], Coroutine[Any, Any, object]]] = [
    lambda hub, key: enter(hub, key, run="r2"),
    lambda hub, key: hub.start(key, never, run="r2"),
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
