"""Replay: what was stored is read back, byte for byte and in order, from any cursor, as often as asked."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from unittest import mock

import pytest

from streamhub import Offset, StreamExpiredError
from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import (
    UNPOLLED,
    PageLog,
    collect,
    data_of,
    indexes_of,
    leave_released,
    produce_all,
    reading,
    replay,
    send_all,
    soon,
    words,
)
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import PATIENCE_SECONDS, settle
from streamhub.records import encode_end, pack_chunks
from streamhub.types import COMPLETED

AWKWARD = [
    b"",
    b"x",
    bytes(range(256)),
    *(bytes([value]) for value in range(256)),
    "a😀b\u2028é".encode(),
    "𝄞".encode(),
    b"\0",
    b"a\0b",
    b"[DONE]",
    b"[END]",
    b"DONE_SENTINEL",
    b"data: x\n\n",
    b"\r\n",
    b"null",
    b'{"type":"end"}',
    encode_end(COMPLETED).encode(),
    pack_chunks([b"a", b""]),
    b"1-1",
    b"latest",
    b"",
]
"""Payloads that a store, or a marker in the log, might be taken for."""


class ReplayTests(ContractTests):
    """R1 to R13."""

    async def test_subscribers_joining_at_every_point_of_a_run_get_all_of_it(self, harness: Harness) -> None:
        """R1: A subscriber that joins before, during or after production gets byte-identical chunks in order."""
        here, there = await harness.hub(), await harness.hub()
        key, source = harness.unique_key(), words(24)
        async with asyncio.TaskGroup() as group:
            before = group.create_task(replay(there, key, wait=PATIENCE_SECONDS))
            await settle()
            async with here.produce(key) as producer:
                during = [group.create_task(replay(here, key)), group.create_task(replay(there, key))]
                for chunk in source:
                    await producer.send(chunk)
                    during += [group.create_task(replay(hub, key)) for hub in (here, there)]
                    await settle(3)
        after = await replay(there, key)
        for chunks in (before.result(), *(task.result() for task in during), after):
            assert data_of(chunks) == source
            assert indexes_of(chunks) == list(range(1, len(source) + 1))

    async def test_an_ended_stream_replays_until_its_retention_ends(self, harness: Harness) -> None:
        """R2: An ended stream replays until its retention ends."""
        kept = 3 * harness.short_seconds
        hub = await harness.hub(ended_seconds=kept)
        key, source = harness.unique_key(), words(5)
        begun = time.monotonic()
        await produce_all(hub, key, source)
        reader = await harness.hub()
        replays = 0
        with pytest.raises(StreamExpiredError):
            while time.monotonic() < begun + PATIENCE_SECONDS:
                assert data_of(await replay(reader, key)) == source
                replays += 1
                await asyncio.sleep(0.02)
        assert time.monotonic() - begun >= 0.9 * kept
        assert replays > 1

    async def test_a_cursor_yields_exactly_what_follows_it(self, harness: Harness) -> None:
        """R3: Subscribing after offset k yields exactly k+1 …, for every k."""
        hub = await harness.hub()
        key, source = harness.unique_key(), words(30)
        offsets = await produce_all(hub, key, source)
        start = Offset(offsets[0].generation, 0)
        for k, cursor in enumerate([start, *offsets]):
            assert data_of(await replay(hub, key, cursor)) == source[k:]
            assert data_of(await replay(hub, key, str(cursor))) == source[k:]

    async def test_a_cursor_of_any_generation_of_a_run_yields_what_follows_it(self, harness: Harness) -> None:
        """R3: Subscribing after offset k yields exactly k+1 …, for every k; a run may have several generations."""
        backend, hub = await harness.make(), await harness.hub()
        key, source = harness.unique_key(), words(18)
        await leave_released(backend, key, source[:6])
        await leave_released(backend, key, source[6:12])
        await produce_all(hub, key, source[12:], run="r1", unfinished="resume")
        offsets = [chunk.offset for chunk in await replay(hub, key)]
        assert len({offset.generation for offset in offsets}) == 3
        for k, cursor in enumerate(offsets, 1):
            assert data_of(await replay(hub, key, cursor)) == source[k:]

    async def test_after_the_last_offset_an_open_run_waits_and_an_ended_one_finishes(self, harness: Harness) -> None:
        """R4: After the last offset of an open run a subscriber waits; of an ended run it finishes at once."""
        here, there = await harness.hub(), await harness.hub(**UNPOLLED)
        key = harness.unique_key()
        async with here.produce(key) as producer:
            [*_, last] = await send_all(producer, words(3))
            async with there.subscribe(key, after=last) as subscription:
                waiting = asyncio.create_task(anext(subscription))
                await settle(50)
                assert not waiting.done()
                await producer.send(b"next")
                assert (await soon(waiting)).data == b"next"
        async with there.subscribe(key, after=Offset(last.generation, last.index + 1)) as subscription:
            # No poll comes in time: it has to know at once.
            assert await collect(subscription) == []
            assert subscription.end == COMPLETED

    async def test_offsets_increase_though_the_clock_stands_still(self, harness: Harness) -> None:
        """R5: Offsets strictly increase, also for 1 000 appends in one millisecond."""
        hub = await harness.hub()
        key = harness.unique_key()
        now, now_ns = time.time(), time.time_ns()
        with mock.patch("time.time", lambda: now), mock.patch("time.time_ns", lambda: now_ns):
            async with hub.produce(key) as producer:
                sent = await send_all(producer, words(1000), flush_each=True)
        stored = [chunk.offset for chunk in await replay(hub, key)]
        assert stored == sent
        assert all(former < latter for former, latter in itertools.pairwise(stored))

    async def test_offsets_increase_though_the_clock_steps_back(self, harness: Harness) -> None:
        """R5: Offsets strictly increase, also when the wall clock steps back."""
        backend, hub = await harness.make(), await harness.hub()
        key = harness.unique_key()
        offsets: list[Offset] = []
        await leave_released(backend, key, words(2))
        for hours in range(1, 4):
            with harness.skewed_clock(-3600.0 * hours):
                await leave_released(backend, key, words(2))
                offsets += await produce_all(hub, key, words(2), run="r1", unfinished="resume")
                offsets += await produce_all(hub, key, words(2), run=f"run at {hours}")
                await leave_released(backend, key, words(2))
        assert all(former < latter for former, latter in itertools.pairwise(offsets))

    async def test_the_text_of_an_offset_round_trips(self, harness: Harness) -> None:
        """R6: An offset's text round-trips, has at most 64 URL-safe characters and is never a reserved word."""
        hub = await harness.hub()
        for offset in [
            *await produce_all(hub, harness.unique_key(), words(12)),
            Offset(1, 0),
            Offset(2**63 - 1, 2**63 - 1),
        ]:
            text = str(offset)
            assert Offset.parse(text) == offset
            assert re.fullmatch(r"[A-Za-z0-9_.~-]{1,64}", text)
            assert text not in {"start", "latest", "now", "-1", "0", "$", "end"}

    async def test_start_is_the_default_cursor(self, harness: Harness) -> None:
        """R7: after="start" and after=None are equal."""
        hub = await harness.hub()
        key = harness.unique_key()
        await produce_all(hub, key, words(7))
        assert await replay(hub, key, "start") == await replay(hub, key, None) == await replay(hub, key)

    async def test_latest_gives_what_is_appended_after_it_attached(self, harness: Harness) -> None:
        """R8: after="latest" gives only later chunks, none lost between attach and first append."""
        here, there = await harness.hub(), await harness.hub()
        key = harness.unique_key()
        async with here.produce(key) as producer:
            for number in range(20):
                await send_all(producer, [f"old {number}"])
                async with there.subscribe(key, after="latest") as subscription:
                    await producer.send(f"new {number}")
                    assert [chunk.text for chunk in await collect(subscription, limit=1)] == [f"new {number}"]

    async def test_latest_loses_nothing_while_it_attaches(self, harness: Harness) -> None:
        """R8: after="latest" gives only later chunks, none lost between attach and first append."""
        here, there = await harness.hub(), await harness.hub()
        dice = random.Random(8)
        key = harness.unique_key()
        async with here.produce(key) as producer:
            for _ in range(40):
                stored = (await producer.flush()).index
                subscription = there.subscribe(key, after="latest")
                async with asyncio.TaskGroup() as group:
                    group.create_task(subscription.__aenter__())
                    for _ in range(dice.randrange(6)):
                        await producer.send(b"x")
                        await settle(dice.randrange(4))
                marker = await producer.send(b"marker")
                chunks = await collect(subscription, limit=1)
                while chunks[-1].data != b"marker":
                    chunks += await collect(subscription, limit=1)
                await subscription.aclose()
                assert stored < chunks[0].offset.index
                assert indexes_of(chunks) == list(range(chunks[0].offset.index, marker.index + 1))

    async def test_latest_is_resolved_once(self, harness: Harness) -> None:
        """R8: after="latest" gives only later chunks, none lost …: it is resolved once, not anew by every poll."""
        faults, key = Faults(), harness.unique_key()
        here, there = await harness.hub(), await harness.hub(faulty(await harness.make(), faults), poll_seconds=0.1)
        faults.drop_hints = True
        async with here.produce(key) as producer:
            await send_all(producer, words(3))
            async with there.subscribe(key, after="latest") as subscription:
                for number in range(3):
                    await send_all(producer, [f"{number}", "between two polls"])
                    first, _ = await collect(subscription, limit=2)
                    assert first.text == f"{number}"

    async def test_latest_of_an_ended_run_finishes_at_once(self, harness: Harness) -> None:
        """R8: after="latest" gives only later chunks: of an ended run none."""
        hub = await harness.hub(**UNPOLLED)
        key = harness.unique_key()
        await produce_all(hub, key, words(3))
        assert await replay(hub, key, "latest") == []

    async def test_chunk_boundaries_are_kept(self, harness: Harness) -> None:
        """R9: Chunk boundaries are kept, however appends were grouped."""
        hub, reader = await harness.hub(), await harness.hub()
        dice = random.Random(9)
        for _ in range(8):
            key = harness.unique_key()
            source = [dice.randbytes(dice.choice((0, 0, 1, 2, 3, 127, 128, 300, 5000))) for _ in range(60)]
            async with hub.produce(key) as producer, reading(reader, key) as live:
                for chunk in source:
                    await producer.send(chunk)
                    if dice.random() < 0.2:
                        await producer.flush()
                    await settle(dice.randrange(3))
                await live.has(len(source))
            assert live.data == source
            assert data_of(await replay(reader, key)) == source

    async def test_every_payload_survives(self, harness: Harness) -> None:
        """R10: Empty chunk, 1-byte chunk, all 256 byte values, non-BMP text, NUL and a chunk equal to any internal
        marker survive.
        """
        hub, reader = await harness.hub(), await harness.hub()
        grouped, single = harness.unique_key(), harness.unique_key()
        await produce_all(hub, grouped, AWKWARD)
        await produce_all(hub, single, AWKWARD, flush_each=True)
        assert data_of(await replay(reader, grouped)) == AWKWARD
        assert data_of(await replay(reader, single)) == AWKWARD

    async def test_text_survives(self, harness: Harness) -> None:
        """R10: Empty chunk, 1-byte chunk, … non-BMP text, NUL … survive; sent as text, read as text."""
        hub = await harness.hub()
        key = harness.unique_key()
        source = ["", "a", "😀𝄞", "\0", "e\u0301", "\u2028", "\ufeff", "日本語"]
        await produce_all(hub, key, source)
        assert [chunk.text for chunk in await replay(hub, key)] == source

    async def test_ten_thousand_chunks_replay_in_bounded_pages(self, harness: Harness) -> None:
        """R11: 10 000 chunks replay in bounded pages."""
        writer, backend = await harness.hub(), await harness.make()
        pages = PageLog(backend.store)
        hub = await harness.hub(backend, store=pages)
        key = harness.unique_key()
        source = [b"%d " % number for number in range(10_000)]
        await produce_all(writer, key, source)
        assert data_of(await replay(hub, key)) == source
        batches = [batch async for batch in hub.subscribe(key).batches()]
        assert [chunk.data for batch in batches for chunk in batch] == source
        assert len(pages.pages) > 1
        for read, page in pages.pages:
            assert read.max_chunks < 10_000
            assert len(page.chunks) <= read.max_chunks
            assert sum(map(len, page.chunks)) <= read.max_bytes or len(page.chunks) == 1

    async def test_what_was_flushed_is_seen_elsewhere(self, harness: Harness) -> None:
        """R12: Read your writes: after flush returns, a new subscriber elsewhere sees it."""
        # Neither a hint nor a poll comes in time: it is there, or it is not.
        slow, deaf, key = Faults(), Faults(drop_hints=True), harness.unique_key()
        slow.delay("append", 0.02, times=float("inf"))
        here = await harness.hub(faulty(await harness.make(), slow))
        there = await harness.hub(faulty(await harness.make(), deaf), **UNPOLLED)
        async with here.produce(key) as producer:
            for number, chunk in enumerate(words(20), 1):
                await producer.send(chunk)
                flushed = await producer.flush()
                async with there.subscribe(key) as subscription:
                    seen = await collect(subscription, limit=number)
                assert (seen[-1].data, seen[-1].offset) == (chunk, flushed)

    async def test_what_was_flushed_is_seen_by_another_process(self, harness: Harness) -> None:
        """R12: Read your writes: after flush returns, a new subscriber elsewhere sees it."""
        hub = await harness.hub()
        key, source = harness.unique_key(), words(10)
        async with harness.process() as peer:
            await soon(peer.call("open_hub", **UNPOLLED))
            async with hub.produce(key) as producer:
                for number in range(1, len(source) + 1):
                    await producer.send(source[number - 1])
                    await producer.flush()
                    await soon(peer.call("subscribe", f"reader {number}", key))
                    seen = await soon(peer.call("received", f"reader {number}", number))
                    assert [data for _, data in seen] == source[:number]

    async def test_two_replays_are_equal(self, harness: Harness) -> None:
        """R13: Two replays are equal."""
        here, there = await harness.hub(), await harness.hub()
        key = harness.unique_key()
        await produce_all(here, key, words(50))
        assert await replay(here, key) == await replay(here, key) == await replay(there, key)
