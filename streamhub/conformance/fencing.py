"""Fencing: a generation that is not the current one changes nothing (F1 to F13)."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from streamhub.conformance.contract import ContractTests
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.process import Peer
from streamhub.conformance.waiting import eventually, settle
from streamhub.conformance.writer import FIRST_GENERATION, Writer, append, describe, described, read, read_all
from streamhub.errors import (
    BackendUnavailableError,
    DataLostError,
    LimitExceededError,
    OffsetConflictError,
    OpenConflictError,
    StaleGenerationError,
    StreamDeletedError,
    StreamEndedError,
    StreamExpiredError,
    StreamHubError,
    StreamUnfinishedError,
)
from streamhub.protocols import Backend, StreamStore
from streamhub.types import COMPLETED, Append, Appended, End, Lease, Retention, Seen, Span, StreamInfo

T = TypeVar("T")

RACES = 60
"""How often a race is run. Each takes a handful of round trips."""

CANCELLED = End(state="cancelled", reason="user")


async def acquire(backend: Backend, key: str, *, above: int = 0, void: int = 0, ttl_seconds: float = 30.0) -> Lease:
    """Take a lease as a new owner."""
    return await backend.leases.acquire(
        key, owner=secrets.token_hex(8), run="run-1", ttl_seconds=ttl_seconds, above=above, void=void
    )


async def successor(store: StreamStore, key: str, *, resume: bool = True, run: str = "run-1") -> Writer:
    """Open the next generation of a stream."""
    writer = Writer(store, key, run=run)
    await writer.open(resume=resume)
    return writer


class FencingTests(ContractTests):
    """F: fencing."""

    # F1

    async def test_generations_increase_across_connections(self, harness: Harness) -> None:
        """F1: "with a generation greater than `above` and than all given before for the key"."""
        key = harness.unique_key()
        backends = [await harness.make() for _ in range(3)]
        given: list[int] = []
        for number in range(12):
            lease = await acquire(backends[number % 3], key)
            await backends[(number + 1) % 3].leases.release(lease)
            given.append(lease.generation)
        assert given[0] >= 1
        assert given == sorted(set(given))

    async def test_generations_increase_across_delete_and_the_fences_end(self, harness: Harness) -> None:
        """F1: "an integer >= 1 that only grows for a key, also across delete and expiry"."""
        key = harness.unique_key()
        backend = await harness.make()
        short = harness.short_seconds
        retention = Retention(unfinished_seconds=60, ended_seconds=short, fence_seconds=short)
        last = 0
        for how in ("deleted", "expired", "deleted"):
            lease = await acquire(backend, key)
            assert lease.generation > last
            last = lease.generation
            writer = Writer(backend.store, key, retention=retention)
            await writer.open(last)
            await writer.append(b"a", end=COMPLETED)
            if how == "deleted":
                assert await backend.store.delete(key)
            await backend.leases.release(lease)
            await eventually(lambda: describe(backend.store, key), lambda info: info is None)

    async def test_generations_exceed_the_stores_when_the_leases_lost_their_state(self, harness: Harness) -> None:
        """F1: the leases know nothing of the key, the store's generation is far ahead: `above` decides."""
        key = harness.unique_key()
        backend = await harness.make()
        ahead = 2**52
        await Writer(backend.store, key).open(ahead)
        lease = await acquire(backend, key, above=ahead)
        assert lease.generation > ahead
        await backend.leases.release(lease)
        later = await acquire(backend, key)
        assert later.generation > lease.generation

    async def test_generations_increase_when_the_chunks_are_lost(self, harness: Harness) -> None:
        """F1: the store knows nothing of the key (`above` is 0): the leases alone keep generations growing."""
        key = harness.unique_key()
        backend = await harness.make()
        lease = await acquire(backend, key, ttl_seconds=harness.ttl_seconds(backend))
        await eventually(lambda: backend.leases.holders([key]), lambda found: found == [None])
        later = await acquire(backend, key)
        assert later.generation > lease.generation

    # F2

    async def test_stale_generation_cannot_append(self, harness: Harness) -> None:
        """F2: "appends, ends and metadata of a generation below g change nothing and raise StaleGenerationError"."""
        await _assert_stale_item_changes_nothing(harness, lambda stale: stale.item(b"x"))

    async def test_stale_generation_cannot_end(self, harness: Harness) -> None:
        """F2: a stale end changes nothing."""
        await _assert_stale_item_changes_nothing(harness, lambda stale: stale.item(end=COMPLETED))

    async def test_stale_generation_cannot_change_metadata(self, harness: Harness) -> None:
        """F2: stale metadata changes nothing."""
        await _assert_stale_item_changes_nothing(harness, lambda stale: stale.item(b"x", metadata={"by": "stale"}))

    @pytest.mark.parametrize("generation", [9, 99, 2**31 - 1, 2**32 - 1, 10**15 - 1, 2**52])
    async def test_generations_are_compared_as_numbers(self, harness: Harness, generation: int) -> None:
        """F2: "an integer", whatever its text or its machine word."""
        key = harness.unique_key()
        store = (await harness.make()).store
        stale = Writer(store, key)
        await stale.open(generation)
        await stale.append(b"a")
        current = Writer(store, key)
        info = await current.open(generation + 1, resume=True)
        assert info.spans == (Span(generation, 1), Span(generation + 1, 2))
        with pytest.raises(StaleGenerationError) as caught:
            await stale.append(b"x")
        assert caught.value.current == generation + 1
        await current.append(b"b")
        assert await read_all(store, key) == [b"a", b"b"]

    async def test_stale_generation_cannot_open(self, harness: Harness) -> None:
        """F2: "`generation` is below the stored one: StaleGenerationError(current)"; on an open and an ended run."""
        key = harness.unique_key()
        store = (await harness.make()).store
        current = Writer(store, key)
        await current.open(9)
        for end in (None, COMPLETED):
            await current.append(b"a", end=end)
            before = await described(store, key)
            for resume in (True, False):
                with pytest.raises(StaleGenerationError):
                    await _open(store, key, 8, owner="late", expect=before.seen, resume=resume)
                assert await described(store, key) == before

    async def test_stale_lease_is_not_renewed(self, harness: Harness) -> None:
        """F2: "True if it is still owned, False if it is definitely lost or has expired"."""
        key, other = harness.unique_key(), harness.unique_key()
        one, two = await harness.make(), await harness.make()
        stale = await acquire(one, key)
        untouched = await acquire(one, other)
        current = await acquire(two, key, void=stale.generation)
        assert list(await one.leases.renew([stale, untouched])) == [False, True]
        assert list(await two.leases.renew([current, stale])) == [True, False]
        (holder,) = await one.leases.holders([key])
        assert holder is not None
        assert holder.generation == current.generation

    async def test_stale_release_does_nothing(self, harness: Harness) -> None:
        """F2: "harmless when it is stale, or released already"."""
        key = harness.unique_key()
        one, two = await harness.make(), await harness.make()
        stale = await acquire(one, key)
        current = await acquire(two, key, void=stale.generation)
        await one.leases.release(stale)
        (holder,) = await one.leases.holders([key])
        assert holder is not None
        assert holder.generation == current.generation
        assert list(await two.leases.renew([current])) == [True]

    # F3

    @pytest.mark.parametrize("what", ["chunks", "metadata", "end"])
    async def test_append_paused_before_it_is_made_is_refused_after_a_new_open(
        self, harness: Harness, what: str
    ) -> None:
        """F3: a stale call is paused, a new generation opens, the call goes on: it is refused."""
        key = harness.unique_key()
        faults = Faults()
        slow = faulty(await harness.make(), faults)
        store = (await harness.make()).store
        stale = Writer(slow.store, key)
        await stale.open()
        await stale.append(b"a")
        pause = faults.pause("append")
        late = asyncio.create_task(stale.put(_item(stale, what)))
        await pause.reached.wait()
        await successor(store, key)
        before = await described(store, key)
        pause.resume()
        with pytest.raises(StaleGenerationError):
            await late
        assert await described(store, key) == before
        assert await read_all(store, key) == [b"a"]

    @pytest.mark.parametrize("what", ["chunks", "metadata", "end"])
    async def test_append_racing_with_a_new_open_is_before_it_or_refused(self, harness: Harness, what: str) -> None:
        """F3: "check and write are one atomic step": an append is seen by the open that follows it, or refused."""
        rng = random.Random(3)
        one, two = await harness.make(), await harness.make()
        for _ in range(RACES // 2):
            key = harness.unique_key()
            old, new = Writer(one.store, key), Writer(two.store, key)
            await old.open()
            await old.append(b"a", metadata={"by": "old"})
            seen = (await described(two.store, key)).seen
            item = _item(old, what)
            turns = rng.randrange(6), rng.randrange(6)
            appended, opened = await asyncio.gather(
                _after(turns[0], append(one.store, item)),
                _after(turns[1], _open(two.store, key, seen.generation + 1, owner=new.owner, expect=seen, resume=True)),
                return_exceptions=True,
            )
            await _assert_one_came_first(two.store, item, appended, opened)

    async def test_racing_opens_have_one_winner(self, harness: Harness) -> None:
        """F3: two opens rest on the same describe: one succeeds, and it is what is stored."""
        rng = random.Random(4)
        stores = [(await harness.make()).store for _ in range(2)]
        for _ in range(RACES // 2):
            key = harness.unique_key()
            opens = [
                _after(
                    rng.randrange(4), _open(stores[side], key, 5 + side, owner=f"o{side}", run=f"r{side}", expect=None)
                )
                for side in range(2)
            ]
            outcomes = await asyncio.gather(*opens, return_exceptions=True)
            won = [outcome for outcome in outcomes if isinstance(outcome, StreamInfo)]
            lost = [outcome for outcome in outcomes if isinstance(outcome, (StaleGenerationError, OpenConflictError))]
            assert (len(won), len(lost)) == (1, 1), outcomes
            assert await described(stores[0], key) == won[0]

    async def test_append_racing_with_delete_leaves_nothing_readable(self, harness: Harness) -> None:
        """F3: after `delete` the stream is a fence, whatever was on its way."""
        one, two = await harness.make(), await harness.make()
        for _ in range(RACES // 3):
            key = harness.unique_key()
            writer = Writer(one.store, key)
            await writer.open()
            appended, deleted = await asyncio.gather(
                append(one.store, writer.item(b"x", metadata={"a": 1})), two.store.delete(key), return_exceptions=True
            )
            assert isinstance(appended, (Appended, StreamDeletedError)), appended
            assert deleted is True
            info = await described(two.store, key)
            assert (info.state, info.generation) == ("deleted", writer.generation)
            with pytest.raises(StreamDeletedError):
                await read(one.store, key)

    async def test_process_stopped_in_its_appends_is_refused_when_it_wakes(self, harness: Harness) -> None:
        """F3: [c] SIGSTOP anywhere in a process that appends, a new generation opens, SIGCONT: nothing more lands."""
        rng = random.Random(5)
        store = (await harness.make()).store
        async with harness.process() as peer:
            for _ in range(8):
                await _stop_in_the_middle(harness, store, peer, after=rng.randrange(1, 12))

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

    # F5

    async def test_stale_error_carries_the_current_generation(self, harness: Harness) -> None:
        """F5: "StaleGenerationError(current=g)", from append and from open, also of a fence."""
        key = harness.unique_key()
        store = (await harness.make()).store
        stale = Writer(store, key)
        await stale.open(4)
        current = await successor(store, key)
        await store.open(
            key,
            90,
            owner=current.owner,
            run="run-1",
            expect=(await described(store, key)).seen,
            resume=True,
            retention=Retention(),
        )
        with pytest.raises(StaleGenerationError) as caught:
            await stale.append(b"x")
        assert (caught.value.key, caught.value.generation, caught.value.current) == (key, 4, 90)
        for _ in ("open", "deleted"):
            with pytest.raises(StaleGenerationError) as caught:
                await _open(store, key, 89, owner="late", expect=(await described(store, key)).seen)
            assert (caught.value.generation, caught.value.current) == (89, 90)
            await store.delete(key)

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
        item = _item(writer, what)
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

    # F8

    async def test_successor_on_the_same_connection_fences_its_predecessor(self, harness: Harness) -> None:
        """F8: the fence is in the data, not in the connection: one process is no exception."""
        key = harness.unique_key()
        backend = await harness.make()
        predecessor = Writer(backend.store, key)
        await predecessor.open()
        await predecessor.append(b"a")
        new = await successor(backend.store, key)
        with pytest.raises(StaleGenerationError):
            await predecessor.append(b"x")
        await new.append(b"b", end=COMPLETED)
        assert await read_all(backend.store, key) == [b"a", b"b"]
        info = await described(backend.store, key)
        assert info.spans == (Span(predecessor.generation, 1), Span(new.generation, 2))

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
                _after(rng.randrange(3), append(one.store, items[0])),
                _after(rng.randrange(3), append(two.store, items[1])),
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

    # F11

    async def test_open_retried_by_its_owner_is_the_same_open(self, harness: Harness) -> None:
        """F11: "(generation, owner) are the stored pair: this open has happened; answer as it did"."""
        key = harness.unique_key()
        faults = Faults()
        store = faulty(await harness.make(), faults).store
        first = Writer(store, key)
        await first.open(metadata={"a": 1})
        await first.append(b"a", b"b")
        seen = (await described(store, key)).seen
        faults.lose_reply("open")
        with pytest.raises(BackendUnavailableError):
            await _open(store, key, 20, owner="me", expect=seen, resume=True)
        stored = await described(store, key)
        for _ in range(2):
            assert await _open(store, key, 20, owner="me", expect=seen, resume=True) == stored
        assert stored.spans == (Span(first.generation, 1), Span(20, 3))
        assert await described(store, key) == stored

    async def test_open_sent_twice_at_once_is_one_open(self, harness: Harness) -> None:
        """F11: the retry may meet the first attempt: both get the same answer."""
        one, two = await harness.make(), await harness.make()
        for _ in range(RACES // 4):
            key = harness.unique_key()
            both = await asyncio.gather(
                _open(one.store, key, 7, owner="me", expect=None), _open(two.store, key, 7, owner="me", expect=None)
            )
            assert both[0] == both[1] == await described(one.store, key)

    async def test_open_of_the_same_generation_by_another_owner_is_refused(self, harness: Harness) -> None:
        """F11: "or equal and stored for another owner: StaleGenerationError(current)"."""
        key = harness.unique_key()
        store = (await harness.make()).store
        await _open(store, key, 7, owner="me", expect=None)
        before = await described(store, key)
        for expect in (None, before.seen):
            with pytest.raises(StaleGenerationError) as caught:
                await _open(store, key, 7, owner="you", expect=expect)
            assert caught.value.current == 7
        assert await described(store, key) == before

    async def test_open_retried_after_delete_or_expiry_says_so(self, harness: Harness) -> None:
        """F11: "or raise StreamDeletedError / StreamExpiredError if the stream has gone since"."""
        deleted, expired = harness.unique_key(), harness.unique_key()
        store = (await harness.make()).store
        short = Retention(unfinished_seconds=harness.short_seconds)
        for key in (deleted, expired):
            await _open(store, key, 7, owner="me", expect=None, retention=short)
        await store.delete(deleted)
        await eventually(lambda: described(store, expired), lambda info: info.state == "expired")
        with pytest.raises(StreamDeletedError):
            await _open(store, deleted, 7, owner="me", expect=None)
        with pytest.raises(StreamExpiredError):
            await _open(store, expired, 7, owner="me", expect=None)

    # F12

    @pytest.mark.parametrize("meanwhile", ["ended", "replaced", "deleted", "resumed", "created"])
    async def test_open_whose_expectation_no_longer_holds_is_refused(self, harness: Harness, meanwhile: str) -> None:
        """F12: "`expect` differs from what is stored (None: nothing, not even a fence): OpenConflictError"."""
        key = harness.unique_key()
        store = (await harness.make()).store
        current = Writer(store, key)
        seen = None
        if meanwhile != "created":
            seen = (await current.open()).seen
        await _change(store, key, current, meanwhile)
        before = await described(store, key)
        for resume in (True, False):
            with pytest.raises(OpenConflictError) as caught:
                await _open(store, key, 1000, owner="me", expect=seen, resume=resume, metadata={"by": "me"})
            assert caught.value.found == before.seen
            assert await described(store, key) == before

    async def test_open_that_expects_something_is_refused_where_nothing_is(self, harness: Harness) -> None:
        """F12: a stream that is gone, fence and all, is not what the decision rested on."""
        key = harness.unique_key()
        store = (await harness.make()).store
        for state in ("open", "ended", "deleted", "expired"):
            with pytest.raises(OpenConflictError) as caught:
                await _open(store, key, 7, owner="me", expect=Seen(3, state))
            assert caught.value.found is None
        assert await describe(store, key) is None

    @pytest.mark.parametrize("what", ["ended", "deleted", "another run", "nothing"])
    async def test_resume_needs_an_unended_run_of_the_same_name(self, harness: Harness, what: str) -> None:
        """F12: "`resume` of anything but an un-ended run of the same name: OpenConflictError"."""
        key = harness.unique_key()
        store = (await harness.make()).store
        if what != "nothing":
            writer = Writer(store, key, run="other" if what == "another run" else "run-1")
            await writer.open()
            if what == "ended":
                await writer.append(b"a", end=COMPLETED)
            if what == "deleted":
                await store.delete(key)
        before = await describe(store, key)
        with pytest.raises(OpenConflictError):
            await _open(store, key, 50, owner="me", expect=None if before is None else before.seen, resume=True)
        assert await describe(store, key) == before

    async def test_unattended_open_of_an_attended_unended_run_is_refused(self, harness: Harness) -> None:
        """F12: "attended=False on an attended, un-ended run: StreamUnfinishedError"; an ended one is replaced."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key)
        await writer.open()
        before = await described(store, key)
        for resume in (True, False):
            with pytest.raises(StreamUnfinishedError):
                await _open(store, key, 50, owner="me", expect=before.seen, resume=resume, attended=False)
            assert await described(store, key) == before
        await writer.append(b"a", end=COMPLETED)
        seen = (await described(store, key)).seen
        info = await _open(store, key, 50, owner="me", run="run-2", expect=seen, attended=False)
        assert (info.attended, info.run, info.tail) == (False, "run-2", 0)

    async def test_open_says_what_is_stored(self, harness: Harness) -> None:
        """F12: a new run begins at index 1 with nothing of the old one; a resumed one keeps metadata unless given."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key)
        info = await writer.open(3, metadata={"a": 1})
        assert (info.key, info.state, info.run, info.attended, info.end) == (key, "open", "run-1", True, None)
        assert (info.spans, info.first, info.tail, info.size_bytes) == ((Span(3, 1),), 1, 0, 0)
        assert (dict(info.metadata), info.retention) == ({"a": 1}, Retention())
        await writer.append(b"abc", b"de")
        info = await _open(store, key, 5, owner="me", expect=info.seen, resume=True)
        assert (info.spans, info.first, info.tail, info.size_bytes) == ((Span(3, 1), Span(5, 3)), 1, 2, 5)
        assert info.metadata == {"a": 1}
        info = await _open(store, key, 6, owner="me", expect=info.seen, resume=True, metadata={"b": 2})
        assert info.metadata == {"b": 2}
        info = await _open(store, key, 8, owner="me", run="run-2", expect=info.seen)
        assert (info.spans, info.first, info.tail, info.size_bytes) == ((Span(8, 1),), 1, 0, 0)
        assert (info.run, dict(info.metadata)) == ("run-2", {})
        assert info == await described(store, key)
        assert await read_all(store, key) == []

    # F13

    @pytest.mark.parametrize("gone", ["deleted", "expired"])
    async def test_producer_overtaken_between_acquire_and_open_cannot_open(self, harness: Harness, gone: str) -> None:
        """F13: a higher generation came, completed and went: its fence refuses the lower one's open."""
        key = harness.unique_key()
        one, two = await harness.make(), await harness.make()
        assert await describe(one.store, key) is None
        early = await acquire(one, key, ttl_seconds=30)
        late = await acquire(two, key, void=early.generation)
        assert late.generation > early.generation
        writer = Writer(two.store, key, retention=Retention(ended_seconds=harness.short_seconds))
        await writer.open(late.generation)
        await writer.append(b"a", end=COMPLETED)
        if gone == "deleted":
            await two.store.delete(key)
        before = await eventually(lambda: described(two.store, key), lambda info: info.state == gone)
        for expect in (None, before.seen):
            with pytest.raises(StaleGenerationError) as caught:
                await _open(one.store, key, early.generation, owner=early.owner, expect=expect)
            assert caught.value.current == late.generation
        assert await described(two.store, key) == before


async def _open(
    store: StreamStore,
    key: str,
    generation: int,
    *,
    owner: str,
    expect: Seen | None,
    run: str = "run-1",
    resume: bool = False,
    attended: bool = True,
    metadata: dict[str, object] | None = None,
    retention: Retention | None = None,
) -> StreamInfo:
    return await store.open(
        key,
        generation,
        owner=owner,
        run=run,
        expect=expect,
        resume=resume,
        attended=attended,
        metadata=metadata,
        retention=retention or Retention(),
    )


def _item(writer: Writer, what: str) -> Append:
    end = COMPLETED if what.startswith("end") else None
    chunks = () if what == "end" else (b"x", b"y")
    return writer.item(*chunks, end=end, metadata={"by": "item"} if what == "metadata" else None)


async def _after(turns: int, call: Awaitable[T]) -> T:
    await settle(turns)
    return await call


async def _assert_stale_item_changes_nothing(harness: Harness, make: Callable[[Writer], Append]) -> None:
    key = harness.unique_key()
    one, two = await harness.make(), await harness.make()
    stale = Writer(one.store, key)
    await stale.open(metadata={"by": "open"})
    await stale.append(b"a")
    for resume, run in ((True, "run-1"), (False, "run-2")):
        current = await successor(two.store, key, resume=resume, run=run)
        await current.append(b"b")
        before, chunks = await described(two.store, key), await read_all(two.store, key)
        for first in (stale.tail + 1, current.tail + 1):
            stale.tail = first - 1
            with pytest.raises(StaleGenerationError):
                await append(one.store, make(stale))
            assert await described(two.store, key) == before
            assert await read_all(two.store, key) == chunks


async def _assert_one_came_first(store: StreamStore, item: Append, appended: object, opened: object) -> None:
    info, chunks = await described(store, item.key), await read_all(store, item.key)
    if isinstance(appended, StaleGenerationError):
        assert isinstance(opened, StreamInfo)
        assert (opened.tail, opened.metadata, opened.end) == (1, {"by": "old"}, None)
        assert chunks == [b"a"]
    else:
        assert appended == Appended(item.last)
        assert chunks == [b"a", *item.chunks]
        assert info.end == item.end
        if item.end is None:
            assert isinstance(opened, StreamInfo)
            assert opened.tail == item.last
        else:
            assert isinstance(opened, OpenConflictError)
    if isinstance(opened, StreamInfo):
        assert info == opened


async def _change(store: StreamStore, key: str, current: Writer, how: str) -> None:
    if how == "ended":
        await current.append(end=COMPLETED)
    elif how == "deleted":
        await store.delete(key)
    else:
        new = Writer(store, key, run="run-1" if how == "resumed" else "run-2")
        await new.open(resume=how == "resumed")


async def _stop_in_the_middle(harness: Harness, store: StreamStore, peer: Peer, *, after: int) -> None:
    key = harness.unique_key()
    old = Writer(store, key)
    await old.open()
    items = [old.item(b"%d" % index, first=index) for index in range(1, 3000)]
    appending = asyncio.create_task(peer.call("append_each", items))
    while (await described(store, key)).tail < after:
        await asyncio.sleep(0)
    peer.stop()
    new = Writer(store, key)
    try:
        await new.open(resume=True)
    except (BackendUnavailableError, OpenConflictError):
        # Stopped where it holds a lock of the backend's, nobody gets on before it does: what is unknown is repeated.
        peer.cont()
        new = Writer(store, key)
        await new.open(resume=True)
    peer.cont()
    answers: list[Appended | StreamHubError] = await appending
    assert (await described(store, key)).tail == new.tail
    assert len(await read_all(store, key)) == new.tail
    # The last answer is the refusal; what was acknowledged before it is stored.
    assert isinstance(answers[-1], StaleGenerationError) or new.tail == len(items)
    acknowledged = [answer.tail for answer in answers if isinstance(answer, Appended)]
    assert acknowledged == list(range(1, len(acknowledged) + 1))
    assert len(acknowledged) <= new.tail
