"""Handoff: from what is stored to what is live, without gap or duplicate, however the two race."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from streamhub import Change, ChangeFeed, Chunk, Hub, Offset, OffsetTrimmedError, Page, Producer, Read, StreamHubError
from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import (
    UNPOLLED,
    collect,
    data_of,
    dismiss,
    indexes_of,
    leave_unfinished,
    produce_all,
    reading,
    replay,
    send_all,
    soon,
    until,
    words,
)
from streamhub.conformance.faulty import Faults, FaultyChangeFeed, FaultyStore, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import PATIENCE_SECONDS, SLACK, settle
from streamhub.protocols import StreamStore
from streamhub.types import COMPLETED

MEBIBYTE = 1024 * 1024


class _OneChunkPages(FaultyStore):
    """Pages hold one chunk; tail and end are as new as ever: "the rest may be newer than the chunks"."""

    def __init__(self, inner: StreamStore) -> None:
        super().__init__(inner, Faults())

    async def read(self, reads: Sequence[Read]) -> Sequence[Page | StreamHubError]:
        """See ``StreamStore.read``."""
        answers = await super().read(reads)
        return [replace(answer, chunks=answer.chunks[:1]) if isinstance(answer, Page) else answer for answer in answers]


class _StaleHints(FaultyStore):
    """Gives each hint twice, the second time after the next one: late and repeated."""

    def changes(self) -> AbstractAsyncContextManager[ChangeFeed]:
        """See ``StreamStore.changes``."""
        return self._stale()

    @contextlib.asynccontextmanager
    async def _stale(self) -> AsyncGenerator[ChangeFeed]:
        async with self._inner.changes() as feed:
            yield _StaleFeed(feed, self._faults)


class _StaleFeed(FaultyChangeFeed):
    async def __aiter__(self) -> AsyncIterator[Change]:
        former: Change | None = None
        async for change in self._inner:
            yield change
            if former is not None:
                yield former
            former = change


class HandoffTests(ContractTests):
    """H1 to H10."""

    async def test_attaching_while_chunks_are_appended_leaves_no_gap(self, harness: Harness) -> None:
        """H1: Appends racing with attach: no gap, no duplicate."""
        here, there = await harness.hub(), await harness.hub()
        dice = random.Random(1)
        key = harness.unique_key()
        async with here.produce(key) as producer:
            await send_all(producer, words(3))
            talking = asyncio.create_task(_talk(producer, random.Random(11)))
            for number in range(200):
                hub = dice.choice((here, there))
                back = dice.randrange(3)
                stored = (await producer.flush()).index
                cursor = Offset(producer.generation, max(stored - back, 0))
                await settle(dice.randrange(8))
                async with hub.subscribe(key, after=cursor) as subscription:
                    chunks = await collect(subscription, limit=back + dice.randrange(1, 8))
                expected = range(cursor.index + 1, cursor.index + 1 + len(chunks))
                assert [chunk.offset.index for chunk in chunks] == list(expected), f"iteration {number}"
                assert data_of(chunks) == [b"w%d " % index for index in expected]
            await dismiss(talking)

    async def test_attaching_while_a_run_begins_and_ends_leaves_no_gap(self, harness: Harness) -> None:
        """H1: Appends racing with attach: no gap, no duplicate; here the whole run races."""
        here, there = await harness.hub(), await harness.hub()
        dice = random.Random(2)
        for number in range(40):
            key, source = harness.unique_key(), words(dice.randrange(8))
            async with asyncio.TaskGroup() as group:
                readers = [group.create_task(replay(hub, key, wait=5.0)) for hub in (here, there)]
                await settle(dice.randrange(10))
                group.create_task(_produce_haltingly(here, key, source, dice))
                await settle(dice.randrange(20))
                readers += [group.create_task(replay(hub, key, wait=5.0)) for hub in (here, there)]
            for reader in readers:
                assert data_of(reader.result()) == source, f"iteration {number}"

    async def test_another_process_attaching_while_chunks_are_appended_sees_no_gap(self, harness: Harness) -> None:
        """H1: Appends racing with attach: no gap, no duplicate; between processes."""
        hub = await harness.hub()
        key, source = harness.unique_key(), words(300)
        async with harness.process() as peer:
            names = [f"reader {number}" for number in range(30)]
            async with hub.produce(key) as producer:
                await producer.flush()
                for number, chunk in enumerate(source):
                    await producer.send(chunk)
                    if number % 10 == 0:
                        await soon(peer.call("subscribe", names[number // 10], key))
            for name in names:
                chunks, end = await soon(peer.call("read_all", name))
                assert [data for _, data in chunks] == source
                assert end == COMPLETED

    async def test_forty_subscribers_joining_during_production_all_get_the_source(self, harness: Harness) -> None:
        """H2: 40 subscribers joining every 3 ms during production all equal the source."""
        here, there = await harness.hub(), await harness.hub()
        key, source = harness.unique_key(), words(200)
        async with asyncio.TaskGroup() as group, here.produce(key) as producer:
            await producer.flush()
            talking = group.create_task(_talk(producer, random.Random(22), source))
            readers: list[asyncio.Task[list[Chunk]]] = []
            for number in range(40):
                readers.append(group.create_task(replay((here, there)[number % 2], key)))
                await asyncio.sleep(0.003)
            await soon(talking)
        for reader in readers:
            assert data_of(reader.result()) == source

    async def test_a_chunk_stored_with_the_end_reaches_a_subscriber_at_the_tail(self, harness: Harness) -> None:
        """H3: A chunk appended together with the end reaches a subscriber already at the tail."""
        backend, hub = await harness.make(), await harness.hub()
        for last in ([b"last"], [b"last but one", b"last"], []):
            key = harness.unique_key()
            _, writer = await leave_unfinished(backend, key, [b"first"], lease_seconds=60.0)
            async with reading(hub, key) as reader:
                await reader.has(1)
                await settle(20)
                await writer.append(*last, end=COMPLETED)
                assert data_of(await reader.finished()) == [b"first", *last]
                assert reader.end == COMPLETED

    async def test_an_end_seen_before_its_chunks_does_not_finish_a_subscription(self, harness: Harness) -> None:
        """H4: A subscription finishes only when its index equals the end's last index."""
        hub, backend = await harness.hub(), await harness.make()
        reader = await harness.hub(backend, store=_OneChunkPages(backend.store))
        key, source = harness.unique_key(), words(12)
        await produce_all(hub, key, source)
        assert data_of(await replay(reader, key)) == source

    async def test_an_end_stored_while_a_page_is_read_does_not_cut_the_page_off(self, harness: Harness) -> None:
        """H4: A subscription finishes only when its index equals the end's last index (a delay injected between
        reading chunks and reading the end).
        """
        faults, key = Faults(), harness.unique_key()
        backend, reader = await harness.make(), await harness.hub(faulty(await harness.make(), faults))
        _, writer = await leave_unfinished(backend, key, [b"1"], lease_seconds=60.0)
        page = faults.pause("read", after=True)
        async with reading(reader, key) as live:
            await soon(page.reached.wait())
            await writer.append(b"2")
            await writer.append(b"3", end=COMPLETED)
            page.resume()
            assert data_of(await live.finished()) == [b"1", b"2", b"3"]

    async def test_a_lost_hint_only_delays_delivery(self, harness: Harness) -> None:
        """H5: A lost hint (notifications suppressed) only delays delivery, bounded by the poll interval."""
        faults, key = Faults(), harness.unique_key()
        here, there = await harness.hub(), await harness.hub(faulty(await harness.make(), faults), poll_seconds=0.3)
        bound = SLACK * 0.3
        faults.drop_hints = True
        async with reading(there, key, wait=PATIENCE_SECONDS) as live:
            async with here.produce(key) as producer:
                await producer.flush()
                await soon(live.attached.wait(), bound)
                for number, chunk in enumerate(words(3), 1):
                    await producer.send(chunk)
                    await live.has(number, bound)
                await producer.send(b"last")
            assert data_of(await live.finished(bound)) == [*words(3), b"last"]

    async def test_hints_that_are_lost_in_between_leave_no_gap(self, harness: Harness) -> None:
        """H5: A lost hint … only delays delivery: the next one that comes makes up for it."""
        faults, key, dice = Faults(), harness.unique_key(), random.Random(5)
        here, there = await harness.hub(), await harness.hub(faulty(await harness.make(), faults), **UNPOLLED)
        source = words(120)
        async with here.produce(key) as producer, reading(there, key) as live:
            for number, chunk in enumerate(source, 1):
                faults.drop_hints = number % 10 != 0 and dice.random() < 0.5
                await send_all(producer, [chunk])
                await settle(dice.randrange(10))
                if number % 10 == 0:
                    await live.has(number)
            assert live.data == source

    async def test_hints_that_repeat_or_come_late_leave_no_gap_and_no_duplicate(self, harness: Harness) -> None:
        """H1: … no gap, no duplicate; hints may repeat, be late or be lost."""
        here, backend = await harness.hub(), await harness.make()
        there = await harness.hub(backend, store=_StaleHints(backend.store, Faults()))
        key, source = harness.unique_key(), words(150)
        async with reading(there, key, wait=PATIENCE_SECONDS) as live:
            await _produce_haltingly(here, key, source, random.Random(6))
            chunks = await live.finished()
        assert data_of(chunks) == source
        assert indexes_of(chunks) == list(range(1, len(source) + 1))

    async def test_what_is_appended_before_a_stream_is_followed_is_not_lost(self, harness: Harness) -> None:
        """H1: Appends racing with attach: no gap …: follow first, then read."""
        faults, key, other = Faults(), harness.unique_key(), harness.unique_key()
        here, there = await harness.hub(), await harness.hub(faulty(await harness.make(), faults), **UNPOLLED)
        async with here.produce(key) as producer, here.produce(other), reading(there, other) as another:
            # The feed is open for another stream already: its opening makes up for nothing.
            await another.ready()
            await send_all(producer, [b"1"])
            held = faults.pause("follow")
            async with reading(there, key) as live:
                await soon(held.reached.wait())
                await settle(50)
                await send_all(producer, [b"2"])
                await settle(50)
                held.resume()
                assert data_of(await live.has(2)) == [b"1", b"2"]

    async def test_an_idle_subscriber_gets_the_next_chunk(self, harness: Harness) -> None:
        """H6: A subscriber idle for longer than any driver time-out then gets the next chunk."""
        here, there = await harness.hub(), await harness.hub(**UNPOLLED)
        key = harness.unique_key()
        async with here.produce(key) as producer, reading(there, key) as live:
            await send_all(producer, [b"before"])
            await live.has(1)
            await asyncio.sleep(harness.idle_seconds)
            await send_all(producer, [b"after"])
            assert data_of(await live.has(2)) == [b"before", b"after"]

    async def test_a_subscriber_of_an_empty_run_gets_the_first_chunk(self, harness: Harness) -> None:
        """H7: A subscriber of an opened, still empty run gets the first chunk."""
        here, there = await harness.hub(), await harness.hub(**UNPOLLED)
        key = harness.unique_key()
        async with here.produce(key) as producer, there.subscribe(key) as subscription:
            waiting = asyncio.create_task(anext(subscription))
            await settle(30)
            await producer.send(b"first")
            chunk = await soon(waiting)
        assert (chunk.data, chunk.offset.index) == (b"first", 1)

    async def test_a_subscriber_that_waits_for_a_stream_gets_the_first_chunk(self, harness: Harness) -> None:
        """H7: A subscriber of an opened, still empty run gets the first chunk; with `wait`, one of a stream that does
        not exist yet too.
        """
        here, there = await harness.hub(), await harness.hub(**UNPOLLED)
        for run in (None, "r1"):
            key = harness.unique_key()
            async with reading(there, key, run=run, wait=15.0) as live:
                await settle(30)
                async with here.produce(key, run="r1") as producer:
                    await producer.send(b"first")
                    assert data_of(await live.has(1)) == [b"first"]
                assert data_of(await live.finished()) == [b"first"]

    async def test_a_slow_subscriber_loses_nothing(self, harness: Harness) -> None:
        """H8: A slow subscriber (…, 5 000 chunks, producer done at once) loses nothing."""
        here, there = await harness.hub(), await harness.hub(window_bytes=1024)
        key, source = harness.unique_key(), [b"%d " % number for number in range(5000)]
        async with asyncio.TaskGroup() as group, here.produce(key) as producer:
            await producer.flush()
            slow = [group.create_task(_read_slowly(hub, key)) for hub in (here, there)]
            await send_all(producer, source)
        for reader in slow:
            assert reader.result() == source

    async def test_a_stuck_subscriber_slows_nobody_down(self, harness: Harness) -> None:
        """H9: A slow subscriber does not slow the producer or other subscribers."""
        here, there = await harness.hub(), await harness.hub(window_bytes=1024)
        key, source = harness.unique_key(), [b"x" * 1000 + b"%d" % number for number in range(2000)]
        async with here.produce(key) as producer:
            await send_all(producer, source[:1])
            async with here.subscribe(key) as stuck_here, there.subscribe(key) as stuck_there:
                # Both have begun, and read no further until everybody else has finished.
                begun = [await collect(stuck, limit=1) for stuck in (stuck_here, stuck_there)]
                async with reading(there, key) as quick:
                    await soon(send_all(producer, source[1:]))
                    assert data_of(await quick.has(len(source))) == source
                for first, stuck in zip(begun, (stuck_here, stuck_there), strict=True):
                    assert data_of(first + await collect(stuck, limit=len(source) - 1)) == source

    async def test_the_memory_of_a_stuck_subscriber_is_bounded(self, harness: Harness) -> None:
        """H10: A subscriber's memory stays bounded."""
        # What is stored is trimmed, so that a backend inside this process holds little of it as well.
        bounds: dict[str, Any] = {"max_bytes": MEBIBYTE, "overflow": "trim", "window_bytes": MEBIBYTE // 4}
        here, there = await harness.hub(**bounds), await harness.hub(**bounds)
        key = harness.unique_key()
        async with here.produce(key) as producer:
            await send_all(producer, [b"first"])
            stuck = [hub.subscribe(key) for hub in (here, there) for _ in range(5)]
            for subscription in stuck:
                await collect(subscription, limit=1)
            # Others of their hubs keep up, and take what comes into the windows that all share.
            quick = [_Counting(here, key), _Counting(there, key)]
            grown = await _growth(_feed(producer, quick, 32 * MEBIBYTE))
            await dismiss(*(reader.task for reader in quick))
            assert grown < 12 * MEBIBYTE, f"grew by {grown / MEBIBYTE:.1f} MiB while 32 MiB were appended"
            for subscription in stuck:
                with pytest.raises(OffsetTrimmedError):
                    await collect(subscription)
                await subscription.aclose()

    async def test_a_subscriber_far_behind_reads_in_bounded_memory(self, harness: Harness) -> None:
        """H10: A subscriber's memory stays bounded, also while it catches up."""
        here, there = await harness.hub(), await harness.hub()
        key = harness.unique_key()
        async with here.produce(key) as producer:
            await _flood(producer, 16 * MEBIBYTE)
        received = 0

        async def read() -> None:
            nonlocal received
            async for chunk in there.subscribe(key):
                received += len(chunk.data)

        grown = await _growth(soon(read()))
        assert received == 16 * MEBIBYTE
        assert grown < 8 * MEBIBYTE, f"grew by {grown / MEBIBYTE:.1f} MiB while 16 MiB were read"


async def _talk(producer: Producer, dice: random.Random, source: Sequence[bytes] | None = None) -> None:
    """Send the chunks that follow, or all of ``source``, in bursts and with halts of no certain length."""
    while source is None or producer.offset.index < len(source):
        index = producer.offset.index
        await producer.send(b"w%d " % (index + 1) if source is None else source[index])
        if dice.random() < 0.3:
            await producer.flush()
        await asyncio.sleep(dice.choice((0, 0, 0.001)))


async def _produce_haltingly(hub: Hub, key: str, source: Sequence[bytes], dice: random.Random) -> None:
    async with hub.produce(key) as producer:
        for chunk in source:
            await producer.send(chunk)
            await settle(dice.randrange(4))


async def _read_slowly(hub: Hub, key: str) -> list[bytes]:
    chunks: list[bytes] = []
    async for chunk in hub.subscribe(key):
        chunks.append(chunk.data)
        if len(chunks) % 50 == 0:
            await asyncio.sleep(0.01)
    return chunks


class _Counting:
    """Reads a stream and keeps nothing of it."""

    def __init__(self, hub: Hub, key: str) -> None:
        self.index = 0
        self.task = asyncio.create_task(self._read(hub, key))

    async def _read(self, hub: Hub, key: str) -> None:
        async for chunk in hub.subscribe(key):
            self.index = chunk.offset.index


async def _feed(producer: Producer, readers: Sequence[_Counting], size_bytes: int) -> None:
    """Send chunks, each when all readers have the one before."""
    for _ in range(size_bytes // 262_144):
        await producer.send(random.randbytes(262_144))
        index = (await producer.flush()).index
        await until(lambda index=index: all(reader.index >= index for reader in readers))


async def _flood(producer: Producer, size_bytes: int) -> None:
    for _ in range(size_bytes // 65_536):
        await producer.send(random.randbytes(65_536))
    await producer.flush()


async def _growth(work: Coroutine[object, object, object]) -> int:
    """Return by how many bytes the memory of this process was larger, at its peak, while ``work`` ran."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await work
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before
