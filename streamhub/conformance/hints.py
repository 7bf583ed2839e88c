"""Hints: what the feeds of a store and of a cancel bus must tell, and what nobody may rely on (of H and C)."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable

from streamhub.conformance.contract import ContractTests
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import PATIENCE_SECONDS, SLACK, settle
from streamhub.conformance.writer import Writer, read
from streamhub.errors import BackendUnavailableError
from streamhub.types import COMPLETED, Append, CancelRequest, Change, Chunk, Offset, RunRef

POLL_SECONDS = 0.05


class HintTests(ContractTests):
    """H and C, as far as the feeds alone must show them."""

    async def test_changes_after_follow_are_hinted(self, harness: Harness) -> None:
        """H1: "Changes made after this returns are hinted": appends, ends, opens and deletions [c]."""
        one, two = await harness.make(), await harness.make()
        async with one.store.changes() as feed, asyncio.timeout(PATIENCE_SECONDS):
            hints = aiter(feed)
            for kind in ("append", "end", "replace", "resume", "delete") * 5:
                writer = Writer(two.store, harness.unique_key(kind))
                await writer.open()
                await feed.follow(writer.key)
                await _change(writer, kind)
                await _hint_of(hints, writer.key)

    async def test_creation_of_a_followed_stream_is_hinted(self, harness: Harness) -> None:
        """H7: a stream may be followed before it exists: its open is a change [c]."""
        one, two = await harness.make(), await harness.make()
        async with one.store.changes() as feed, asyncio.timeout(PATIENCE_SECONDS):
            hints = aiter(feed)
            key = harness.unique_key()
            await feed.follow(key)
            await Writer(two.store, key).open()
            await _hint_of(hints, key)

    async def test_what_a_hint_carries_is_what_is_stored(self, harness: Harness) -> None:
        """H1: "`append` may carry what was stored": the very chunks, position, generation and end."""
        one, two = await harness.make(), await harness.make()
        writer = Writer(two.store, harness.unique_key())
        await writer.open()
        carried: list[Append] = []
        async with one.store.changes() as feed, asyncio.timeout(PATIENCE_SECONDS):
            hints = aiter(feed)
            await feed.follow(writer.key)
            for number in range(20):
                chunks = [b"%d %d" % (number, part) for part in range(number % 4)]
                end = COMPLETED if number == 19 else None
                await writer.append(*chunks, b"", metadata={"number": number} if number % 3 == 0 else None, end=end)
                change = await _hint_of(hints, writer.key)
                if change.append is not None:
                    carried.append(change.append)
        page = await read(two.store, writer.key)
        for item in carried:
            assert (item.key, item.generation) == (writer.key, writer.generation)
            assert item.chunks == page.chunks[item.first - 1 : item.last]
            assert item.end == (COMPLETED if item.last == page.tail else None)

    async def test_unfollowed_streams_are_not_hinted(self, harness: Harness) -> None:
        """H5: "Stop hints for `key`; harmless when it is not followed"; those of other keys go on."""
        one, two = await harness.make(), await harness.make()
        left, kept = Writer(two.store, harness.unique_key("left")), Writer(two.store, harness.unique_key("kept"))
        await left.open()
        await kept.open()
        async with one.store.changes() as feed, asyncio.timeout(PATIENCE_SECONDS):
            hints = aiter(feed)
            await feed.unfollow(harness.unique_key("never"))
            for writer in (left, kept):
                await feed.follow(writer.key)
                await writer.append(b"a")
                await _hint_of(hints, writer.key)
            await feed.unfollow(left.key)
            await feed.unfollow(left.key)
            await left.append(b"b")
            await kept.append(b"b")
            await _hint_of(hints, kept.key)
            # Followed again, it is hinted again.
            await feed.follow(left.key)
            await left.append(b"c")
            await _hint_of(hints, left.key)

    async def test_two_feeds_of_one_connection_do_not_mix(self, harness: Harness) -> None:
        """H1: each feed has its own follows, and closing one leaves the other."""
        backend, other = await harness.make(), await harness.make()
        writer = Writer(other.store, harness.unique_key())
        await writer.open()
        async with asyncio.timeout(PATIENCE_SECONDS), backend.store.changes() as first:
            await first.follow(writer.key)
            async with backend.store.changes() as second:
                await second.follow(writer.key)
                await writer.append(b"a")
                hints = aiter(first)
                await _hint_of(hints, writer.key)
                await _hint_of(aiter(second), writer.key)
                await second.unfollow(writer.key)
            await writer.append(b"b")
            await _hint_of(hints, writer.key)

    async def test_late_and_repeated_hints_change_nothing(self, harness: Harness) -> None:
        """H1: "Hints may repeat, be late or be lost": whoever joins meanwhile gets no gap and no duplicate."""
        rng = random.Random(15)
        faults = Faults(late_hints=3)
        here = await harness.hub()
        there = await harness.hub(faulty(await harness.make(), faults), poll_seconds=POLL_SECONDS)
        key = harness.unique_key()
        async with asyncio.timeout(PATIENCE_SECONDS), here.produce(key) as producer:
            sent: list[bytes] = []
            for number in range(20):
                sent.append(b"%d" % number)
                await producer.send(sent[-1])
                stored = (await producer.flush()).index
                cursor = Offset(producer.generation, rng.randrange(stored + 1))
                more = [b"%d+%d" % (number, part) for part in range(4)]
                async with there.subscribe(key, after=cursor) as subscription:
                    talking = asyncio.create_task(_say(producer.send, more, rng))
                    wanted = stored + len(more) - cursor.index
                    chunks = aiter(subscription)
                    got: list[Chunk] = [await anext(chunks) for _ in range(wanted)]
                    await talking
                sent += more
                assert [chunk.data for chunk in got] == sent[cursor.index :]
                assert [chunk.offset.index for chunk in got] == list(range(cursor.index + 1, len(sent) + 1))

    async def test_feed_tells_of_lost_connections(self, harness: Harness) -> None:
        """H5: "After every reconnect `Change(None)` is yielded", or the iteration raises, and a new feed works."""
        harness.require("kill_connections")
        one, two = await harness.make(), await harness.make()
        key = harness.unique_key()
        async with asyncio.timeout(PATIENCE_SECONDS):
            with contextlib.suppress(BackendUnavailableError):
                async with one.store.changes() as feed:
                    await feed.follow(key)
                    await harness.kill_connections()
                    async for change in feed:
                        if change.key is None:
                            break
            await _ridden_out(one.ping)
            await _ridden_out(two.ping)
            async with one.store.changes() as feed:
                await feed.follow(key)
                await Writer(two.store, key).open()
                await _hint_of(aiter(feed), key)

    # Cancel requests

    async def test_requests_after_listen_are_notified(self, harness: Harness) -> None:
        """C1: "Requests stored after this returns are notified", with all they hold [c]."""
        one, two = await harness.make(), await harness.make()
        async with one.cancels.requests() as feed, asyncio.timeout(PATIENCE_SECONDS):
            notices = aiter(feed)
            for number in range(20):
                ref = RunRef(harness.unique_key(), f"run {number}")
                await feed.listen(ref)
                assert await two.cancels.request(*ref, reason=f"é {number}", requested_by=None, ttl_seconds=60)
                expected = CancelRequest(*ref, reason=f"é {number}", requested_by=None)
                assert await _notice_of(notices, ref) in (None, expected)
                assert await one.cancels.pending([ref]) == [expected]

    async def test_requests_for_other_runs_are_not_notified(self, harness: Harness) -> None:
        """C4: a feed yields "requests for the runs listened to" only; "Stop notifications for a run"."""
        one, two = await harness.make(), await harness.make()
        key = harness.unique_key()
        mine, others, left = RunRef(key, "mine"), RunRef(key, "another"), RunRef(key, "left")
        async with one.cancels.requests() as feed, asyncio.timeout(PATIENCE_SECONDS):
            notices = aiter(feed)
            await feed.unlisten(RunRef(key, "never"))
            await feed.listen(left)
            await feed.listen(mine)
            await feed.unlisten(left)
            for ref in (others, left, RunRef(harness.unique_key(), "mine"), mine):
                await two.cancels.request(*ref, reason=None, requested_by="u", ttl_seconds=60)
            assert await anext(notices) in (None, CancelRequest(*mine, None, "u"))

    async def test_requests_last_their_time_and_the_first_one_stays(self, harness: Harness) -> None:
        """C8: "The first one stays", "for `ttl_seconds`", whatever becomes of the stream."""
        one, two = await harness.make(), await harness.make()
        ref, short = RunRef(harness.unique_key(), "run-1"), RunRef(harness.unique_key(), "run-1")
        writer = Writer(one.store, ref.key)
        await writer.open()
        answers = await asyncio.gather(
            *(
                backend.cancels.request(*ref, reason=str(number), requested_by=None, ttl_seconds=60)
                for number, backend in enumerate([one, two] * 4)
            )
        )
        assert answers.count(True) == 1
        kept = CancelRequest(*ref, reason=str(answers.index(True)), requested_by=None)
        assert await one.cancels.pending([ref, ref]) == [kept, kept]
        ttl = 2 * harness.short_seconds
        assert await one.cancels.request(*short, reason="x", requested_by=None, ttl_seconds=ttl)
        await one.store.delete(ref.key)
        await Writer(two.store, ref.key, run="run-2").open()
        async with asyncio.timeout(ttl * SLACK):
            while await two.cancels.pending([short]) != [None]:
                await asyncio.sleep(0.02)
        assert await two.cancels.pending([ref, short]) == [kept, None]
        assert await two.cancels.request(*short, reason="y", requested_by=None, ttl_seconds=60)
        assert await one.cancels.pending([short]) == [CancelRequest(*short, "y", None)]


async def _change(writer: Writer, kind: str) -> None:
    if kind == "append":
        await writer.append(b"a")
    elif kind == "end":
        await writer.append(end=COMPLETED)
    elif kind == "delete":
        await writer.store.delete(writer.key)
    else:
        next_writer = Writer(writer.store, writer.key, run="run-1" if kind == "resume" else "run-2")
        await next_writer.open(resume=kind == "resume")


async def _hint_of(hints: AsyncIterator[Change], key: str) -> Change:
    """Wait for a hint that makes a reader of ``key`` look again."""
    while True:
        change = await anext(hints)
        if change.key is None or change.key == key:
            return change


async def _notice_of(notices: AsyncIterator[CancelRequest | None], ref: RunRef) -> CancelRequest | None:
    """Wait for a notice that makes the producer of a run look; it is for that run, or for any."""
    notice = await anext(notices)
    while notice is not None and (notice.key, notice.run) != ref:
        notice = await anext(notices)
    return notice


async def _say(send: Callable[[bytes], Awaitable[Offset]], chunks: list[bytes], rng: random.Random) -> None:
    for chunk in chunks:
        await send(chunk)
        await settle(rng.randrange(6))


async def _ridden_out(call: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await call()
        except BackendUnavailableError:
            await asyncio.sleep(0.05)
