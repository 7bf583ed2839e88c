"""Opens by the store alone: a decision holds only as long as what it rests on (F3, F11 to F13)."""

from __future__ import annotations

import asyncio
import random

import pytest

from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import cancel_everywhere
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import after_turns, eventually
from streamhub.conformance.writer import Writer, acquire, describe, described, open_stream, read_all
from streamhub.errors import (
    BackendUnavailableError,
    OpenConflictError,
    StaleGenerationError,
    StreamDeletedError,
    StreamExpiredError,
    StreamUnfinishedError,
)
from streamhub.protocols import StreamStore
from streamhub.types import COMPLETED, Retention, Seen, Span, StreamInfo

RACES = 30
"""How often a race is run. Each takes a handful of round trips."""


class OpenTests(ContractTests):
    """F: opens."""

    # F3

    async def test_racing_opens_have_one_winner(self, harness: Harness) -> None:
        """F3: two opens rest on the same describe: one succeeds, and it is what is stored."""
        rng = random.Random(4)
        stores = [(await harness.make()).store for _ in range(2)]
        for _ in range(RACES):
            key = harness.unique_key()
            opens = [
                after_turns(
                    rng.randrange(4),
                    open_stream(stores[side], key, 5 + side, owner=f"o{side}", run=f"r{side}", expect=None),
                )
                for side in range(2)
            ]
            outcomes = await asyncio.gather(*opens, return_exceptions=True)
            won = [outcome for outcome in outcomes if isinstance(outcome, StreamInfo)]
            lost = [outcome for outcome in outcomes if isinstance(outcome, (StaleGenerationError, OpenConflictError))]
            assert (len(won), len(lost)) == (1, 1), outcomes
            assert await described(stores[0], key) == won[0]

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
            await open_stream(store, key, 20, owner="me", expect=seen, resume=True)
        stored = await described(store, key)
        for _ in range(2):
            assert await open_stream(store, key, 20, owner="me", expect=seen, resume=True) == stored
        assert stored.spans == (Span(first.generation, 1), Span(20, 3))
        assert await described(store, key) == stored

    async def test_open_sent_twice_at_once_is_one_open(self, harness: Harness) -> None:
        """F11: the retry may meet the first attempt: both get the same answer."""
        one, two = await harness.make(), await harness.make()
        for _ in range(RACES // 2):
            key = harness.unique_key()
            both = await asyncio.gather(
                open_stream(one.store, key, 7, owner="me", expect=None),
                open_stream(two.store, key, 7, owner="me", expect=None),
            )
            assert both[0] == both[1] == await described(one.store, key)

    @pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
    async def test_open_cancelled_at_any_await_can_be_repeated(self, harness: Harness, late: bool) -> None:
        """F11: "a cancelled call may or may not have happened": repeated as it was, it is one open."""
        store = (await harness.make()).store
        key = harness.unique_key()
        generation = 1
        before: Seen | None = None

        async def repeat() -> None:
            nonlocal generation, before
            info = await open_stream(store, key, generation, owner="me", expect=before, resume=before is not None)
            assert info == await described(store, key)
            assert len(info.spans) == generation
            generation, before = generation + 1, info.seen

        await cancel_everywhere(
            lambda: open_stream(store, key, generation, owner="me", expect=before, resume=before is not None),
            repeat,
            late=late,
        )

    async def test_open_of_the_same_generation_by_another_owner_is_refused(self, harness: Harness) -> None:
        """F11: "or equal and stored for another owner: StaleGenerationError(current)"."""
        key = harness.unique_key()
        store = (await harness.make()).store
        await open_stream(store, key, 7, owner="me", expect=None)
        before = await described(store, key)
        for expect in (None, before.seen):
            with pytest.raises(StaleGenerationError) as caught:
                await open_stream(store, key, 7, owner="you", expect=expect)
            assert caught.value.current == 7
        assert await described(store, key) == before

    async def test_open_retried_after_delete_or_expiry_says_so(self, harness: Harness) -> None:
        """F11: "or raise StreamDeletedError / StreamExpiredError if the stream has gone since"."""
        deleted, expired = harness.unique_key(), harness.unique_key()
        store = (await harness.make()).store
        short = Retention(unfinished_seconds=harness.short_seconds)
        for key in (deleted, expired):
            await open_stream(store, key, 7, owner="me", expect=None, retention=short)
        await store.delete(deleted)
        await eventually(lambda: described(store, expired), lambda info: info.state == "expired")
        with pytest.raises(StreamDeletedError):
            await open_stream(store, deleted, 7, owner="me", expect=None)
        with pytest.raises(StreamExpiredError):
            await open_stream(store, expired, 7, owner="me", expect=None)

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
                await open_stream(store, key, 1000, owner="me", expect=seen, resume=resume, metadata={"by": "me"})
            assert caught.value.found == before.seen
            assert await described(store, key) == before

    async def test_open_that_expects_something_is_refused_where_nothing_is(self, harness: Harness) -> None:
        """F12: a stream that is gone, fence and all, is not what the decision rested on."""
        key = harness.unique_key()
        store = (await harness.make()).store
        for state in ("open", "ended", "deleted", "expired"):
            with pytest.raises(OpenConflictError) as caught:
                await open_stream(store, key, 7, owner="me", expect=Seen(3, state))
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
            await open_stream(store, key, 50, owner="me", expect=None if before is None else before.seen, resume=True)
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
                await open_stream(store, key, 50, owner="me", expect=before.seen, resume=resume, attended=False)
            assert await described(store, key) == before
        await writer.append(b"a", end=COMPLETED)
        seen = (await described(store, key)).seen
        info = await open_stream(store, key, 50, owner="me", run="run-2", expect=seen, attended=False)
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
        info = await open_stream(store, key, 5, owner="me", expect=info.seen, resume=True)
        assert (info.spans, info.first, info.tail, info.size_bytes) == ((Span(3, 1), Span(5, 3)), 1, 2, 5)
        assert info.metadata == {"a": 1}
        info = await open_stream(store, key, 6, owner="me", expect=info.seen, resume=True, metadata={"b": 2})
        assert info.metadata == {"b": 2}
        info = await open_stream(store, key, 8, owner="me", run="run-2", expect=info.seen)
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
                await open_stream(one.store, key, early.generation, owner=early.owner, expect=expect)
            assert caught.value.current == late.generation
        assert await described(two.store, key) == before


async def _change(store: StreamStore, key: str, current: Writer, how: str) -> None:
    if how == "ended":
        await current.append(end=COMPLETED)
    elif how == "deleted":
        await store.delete(key)
    else:
        new = Writer(store, key, run="run-1" if how == "resumed" else "run-2")
        await new.open(resume=how == "resumed")
