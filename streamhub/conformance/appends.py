"""Appends by the store alone: what is refused, what is retried, what is one step (F4, F6, F7, F9, F10)."""

from __future__ import annotations

import asyncio
import random

import pytest

from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import cancel_everywhere
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import after_turns, eventually
from streamhub.conformance.writer import FIRST_GENERATION, Writer, append, described, item_of, read, read_all, successor
from streamhub.errors import (
    BackendUnavailableError,
    DataLostError,
    LimitExceededError,
    OffsetConflictError,
    StaleGenerationError,
    StreamDeletedError,
    StreamEndedError,
    StreamExpiredError,
)
from streamhub.types import COMPLETED, Appended, End, Retention

RACES = 60
"""How often a race is run. Each takes a handful of round trips."""

CANCELLED = End(state="cancelled", reason="user")


class AppendTests(ContractTests):
    """F: appends."""

    # F4

    async def test_stale_is_decided_before_retry(self, harness: Harness) -> None:
        """F4: "a higher generation is stored: StaleGenerationError", also for an append that is stored."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key)
        await writer.open()
        item = writer.item(b"a")
        await writer.put(item)
        await successor(store, key)
        with pytest.raises(StaleGenerationError):
            await append(store, item)

    async def test_retry_is_decided_before_ended(self, harness: Harness) -> None:
        """F4: "the record at `first`, or the stored end, carries this nonce: success again", on an ended run."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key)
        await writer.open()
        first, last, end = writer.item(b"a"), writer.item(b"b", b"c", first=2), writer.item(end=COMPLETED, first=4)
        for item in (first, last, end):
            await append(store, item)
        for item in (first, last, end):
            assert await append(store, item) == Appended(item.last)

    async def test_ended_is_decided_before_conflict(self, harness: Harness) -> None:
        """F4: "the run has ended: StreamEndedError", wherever the append begins."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key)
        await writer.open()
        await writer.append(b"a", b"b", end=CANCELLED)
        for first in (1, 2, 3, 9):
            with pytest.raises(StreamEndedError) as caught:
                await append(store, writer.item(b"x", first=first))
            assert caught.value.end == CANCELLED

    async def test_retry_is_decided_before_conflict(self, harness: Harness) -> None:
        """F4: an append whose record is stored succeeds again, though it does not follow the tail any more."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key)
        await writer.open()
        items = [writer.item(b"a", b"b", first=1), writer.item(b"c", first=3), writer.item(b"d", first=4)]
        for item in items:
            await append(store, item)
        assert [await append(store, item) for item in items] == [Appended(2), Appended(3), Appended(4)]

    async def test_conflict_is_decided_before_limits(self, harness: Harness) -> None:
        """F4: "first != tail + 1: OffsetConflictError(tail)" comes before the caps."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key, retention=Retention(max_chunks=1))
        await writer.open()
        await writer.append(b"a")
        with pytest.raises(OffsetConflictError):
            await append(store, writer.item(b"x", first=5))
        with pytest.raises(LimitExceededError):
            await append(store, writer.item(b"x", first=2))

    async def test_missing_deleted_and_expired_are_decided_first(self, harness: Harness) -> None:
        """F4: "no such stream: DataLostError; deleted: StreamDeletedError; expired: StreamExpiredError"."""
        backend = await harness.make()
        store = backend.store
        missing = Writer(store, harness.unique_key())
        missing.generation = FIRST_GENERATION
        with pytest.raises(DataLostError):
            await missing.append(b"a")
        deleted = Writer(store, harness.unique_key())
        await deleted.open(9)
        await store.delete(deleted.key)
        short = Retention(unfinished_seconds=harness.short_seconds)
        expired = Writer(store, harness.unique_key(), retention=short)
        await expired.open(9)
        await eventually(lambda: described(store, expired.key), lambda info: info.state == "expired")
        for generation in (8, 9, 10):
            deleted.generation = expired.generation = generation
            with pytest.raises(StreamDeletedError):
                await deleted.append(b"a")
            with pytest.raises(StreamExpiredError):
                await expired.append(b"a")

    async def test_generation_above_the_stored_one_is_data_lost(self, harness: Harness) -> None:
        """F4: "a higher generation is stored: StaleGenerationError(current); a lower one: DataLostError"."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key)
        await writer.open(5)
        writer.generation = 6
        with pytest.raises(DataLostError):
            await writer.append(b"a")
        assert await read_all(store, key) == []

    # F6

    @pytest.mark.parametrize("what", ["chunks", "metadata", "end", "end with chunks"])
    async def test_append_retried_after_a_lost_reply_is_stored_once(self, harness: Harness, what: str) -> None:
        """F6: "nonce is fresh for each append, frozen for its retries": the retry succeeds and changes nothing."""
        key = harness.unique_key()
        faults = Faults()
        backend = faulty(await harness.make(), faults)
        writer = Writer(backend.store, key)
        await writer.open()
        await writer.append(b"a")
        item = item_of(writer, what)
        faults.lose_reply("append")
        with pytest.raises(BackendUnavailableError):
            await writer.put(item)
        stored = await described(backend.store, key)
        assert await writer.put(item) == Appended(item.last)
        assert await described(backend.store, key) == stored
        assert await read_all(backend.store, key) == [b"a", *item.chunks]

    async def test_append_sent_twice_at_once_is_stored_once(self, harness: Harness) -> None:
        """F6: the retry may overtake, or meet, the first attempt: both succeed, one is stored."""
        one, two = await harness.make(), await harness.make()
        for number in range(RACES // 3):
            key = harness.unique_key()
            writer = Writer(one.store, key)
            await writer.open()
            item = writer.item(b"a", b"b", end=COMPLETED if number % 2 else None)
            both = await asyncio.gather(append(one.store, item), append(two.store, item))
            assert both == [Appended(2), Appended(2)]
            assert await read_all(one.store, key) == [b"a", b"b"]

    @pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
    async def test_append_cancelled_at_any_await_can_be_repeated(self, harness: Harness, late: bool) -> None:
        """F6: "a cancelled call may or may not have happened"; the connection serves on, the retry is one append."""
        store = (await harness.make()).store
        writer = Writer(store, harness.unique_key())
        await writer.open()
        sent: list[bytes] = []
        item = writer.item(b"0", b"x")

        async def repeat() -> None:
            nonlocal item
            await writer.put(item)
            sent.extend(item.chunks)
            item = writer.item(b"%d" % len(sent), b"x")

        await cancel_everywhere(lambda: append(store, item), repeat, late=late)
        assert await read_all(store, writer.key) == sent

    async def test_nonce_of_another_index_is_not_a_retry(self, harness: Harness) -> None:
        """F6: only "the record at `first`, or the stored end" is compared: equal chunks elsewhere are new ones."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key)
        await writer.open()
        for _ in range(3):
            await writer.append(b"same")
        assert await read_all(store, key) == [b"same"] * 3

    # F7

    async def test_append_that_leaves_a_gap_is_refused(self, harness: Harness) -> None:
        """F7: "first != tail + 1: OffsetConflictError(tail)"; nothing is changed, neither chunks, metadata nor end."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key)
        await writer.open(metadata={"by": "open"})
        await writer.append(b"a", b"b")
        before = await described(store, key)
        for first in (1, 2, 4, 5, 100):
            with pytest.raises(OffsetConflictError) as caught:
                await append(store, writer.item(b"x", first=first, metadata={"by": "x"}, end=COMPLETED))
            assert (caught.value.first, caught.value.tail) == (first, 2)
            assert await described(store, key) == before
        assert await read_all(store, key) == [b"a", b"b"]
        await writer.append(b"c")

    # F9

    async def test_two_writers_of_one_generation_never_both_get_an_index(self, harness: Harness) -> None:
        """F9: one is stored, the other gets OffsetConflictError, never an acknowledgement."""
        rng = random.Random(9)
        one, two = await harness.make(), await harness.make()
        key = harness.unique_key()
        left, right = Writer(one.store, key), Writer(two.store, key)
        await left.open(attended=False)
        right.generation = left.generation
        expected: list[bytes] = []
        for number in range(RACES):
            items = [left.item(f"left {number}".encode()), right.item(f"right {number}".encode())]
            outcomes = await asyncio.gather(
                after_turns(rng.randrange(3), append(one.store, items[0])),
                after_turns(rng.randrange(3), append(two.store, items[1])),
                return_exceptions=True,
            )
            stored = [item for item, outcome in zip(items, outcomes, strict=True) if isinstance(outcome, Appended)]
            refused = [outcome for outcome in outcomes if isinstance(outcome, OffsetConflictError)]
            assert (len(stored), len(refused)) == (1, 1), outcomes
            expected.extend(stored[0].chunks)
            left.tail = right.tail = len(expected)
        assert await read_all(one.store, key) == expected

    # F10

    async def test_refused_append_changes_nothing_at_all(self, harness: Harness) -> None:
        """F10: "Then chunks, metadata and end are stored, durably in the backend's documented sense, all or none"."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key, retention=Retention(max_chunks=3))
        await writer.open(metadata={"by": "open"})
        await writer.append(b"a", b"b")
        before = await described(store, key)
        with pytest.raises(LimitExceededError):
            await append(store, writer.item(b"c", b"d", metadata={"by": "x"}, end=COMPLETED))
        assert await described(store, key) == before
        assert await read_all(store, key) == [b"a", b"b"]

    async def test_appends_of_one_call_succeed_or_fail_separately(self, harness: Harness) -> None:
        """F10: "Each item succeeds or fails by itself"; answers are in the batch's order."""
        store = (await harness.make()).store
        writers = {name: Writer(store, harness.unique_key(name)) for name in ("fine", "stale", "ended", "gap", "gone")}
        for writer in writers.values():
            await writer.open()
        await successor(store, writers["stale"].key)
        await writers["ended"].append(end=COMPLETED)
        await store.delete(writers["gone"].key)
        also_fine = Writer(store, harness.unique_key("fine-too"))
        await also_fine.open()
        batch = [
            writers["stale"].item(b"x"),
            writers["fine"].item(b"1", b"2", end=COMPLETED),
            writers["ended"].item(b"x"),
            writers["gap"].item(b"x", first=3),
            also_fine.item(b"3", metadata={"a": 1}),
            writers["gone"].item(b"x"),
        ]
        answers = await store.append(batch)
        kinds = [StaleGenerationError, Appended, StreamEndedError, OffsetConflictError, Appended, StreamDeletedError]
        assert [type(answer) for answer in answers] == kinds
        assert await read_all(store, writers["fine"].key) == [b"1", b"2"]
        assert await read_all(store, also_fine.key) == [b"3"]
        assert await read_all(store, writers["gap"].key) == []

    async def test_append_is_seen_whole_or_not_at_all(self, harness: Harness) -> None:
        """F10: whoever looks meanwhile sees chunks, metadata and end of an append together [c]."""
        key = harness.unique_key()
        one, two = await harness.make(), await harness.make()
        writer = Writer(one.store, key)
        await writer.open(metadata={"appends": 0})
        size, count = 20, 25

        async def write() -> None:
            for number in range(1, count + 1):
                end = COMPLETED if number == count else None
                await writer.append(*[b"x"] * size, metadata={"appends": number}, end=end)

        writing = asyncio.create_task(write())
        while True:
            over = writing.done()
            info, page = await described(two.store, key), await read(two.store, key, max_chunks=size * count)
            for seen in (info, page):
                assert seen.tail == seen.metadata["appends"] * size
                assert (seen.end is not None) == (seen.tail == size * count)
            assert len(page.chunks) % size == 0
            if over:
                break
            await asyncio.sleep(0)
        await writing
