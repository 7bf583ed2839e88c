"""Fencing: a generation that is not the current one changes nothing (F1 to F3, F5, F8)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from streamhub.conformance.contract import ContractTests
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.process import Peer
from streamhub.conformance.waiting import after_turns, eventually
from streamhub.conformance.writer import (
    Writer,
    acquire,
    append,
    describe,
    described,
    item_of,
    open_stream,
    read,
    read_all,
    successor,
)
from streamhub.errors import OpenConflictError, StaleGenerationError, StreamDeletedError, StreamHubError
from streamhub.protocols import StreamStore
from streamhub.types import COMPLETED, Append, Appended, Retention, Span, StreamInfo

RACES = 60
"""How often a race is run. Each takes a handful of round trips."""


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
                    await open_stream(store, key, 8, owner="late", expect=before.seen, resume=resume)
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
        late = asyncio.create_task(stale.put(item_of(stale, what)))
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
            item = item_of(old, what)
            turns = rng.randrange(6), rng.randrange(6)
            appended, opened = await asyncio.gather(
                after_turns(turns[0], append(one.store, item)),
                after_turns(
                    turns[1],
                    open_stream(two.store, key, seen.generation + 1, owner=new.owner, expect=seen, resume=True),
                ),
                return_exceptions=True,
            )
            await _assert_one_came_first(two.store, item, appended, opened)

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
            for _ in range(6):
                await _stop_in_the_middle(harness, store, peer, after=rng.randrange(1, 12))

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
                await open_stream(store, key, 89, owner="late", expect=(await described(store, key)).seen)
            assert (caught.value.generation, caught.value.current) == (89, 90)
            await store.delete(key)

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
    opening = asyncio.create_task(new.open(resume=True))
    # Stopped where it holds a lock of the backend's, nobody gets on before it does: then it goes on first.
    await asyncio.wait({opening}, timeout=1.0)
    peer.cont()
    await opening
    answers: list[Appended | StreamHubError] = await appending
    assert (await described(store, key)).tail == new.tail
    assert len(await read_all(store, key)) == new.tail
    # The last answer is the refusal; what was acknowledged before it is stored.
    assert isinstance(answers[-1], StaleGenerationError) or new.tail == len(items)
    acknowledged = [answer.tail for answer in answers if isinstance(answer, Appended)]
    assert acknowledged == list(range(1, len(acknowledged) + 1))
    assert len(acknowledged) <= new.tail
