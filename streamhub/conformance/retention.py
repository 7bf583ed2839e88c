"""Retention: what is kept, how long, and what is left of it afterwards (E1 to E3, E6 to E10)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import produce_all, replay
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import SLACK, eventually
from streamhub.conformance.writer import Writer, append, describe, described, read, read_all
from streamhub.errors import (
    DataLostError,
    OpenConflictError,
    StreamDeletedError,
    StreamExpiredError,
    StreamNotFoundError,
    StreamReplacedError,
)
from streamhub.protocols import StreamStore
from streamhub.types import COMPLETED, End, Offset, Retention, Span, StreamInfo

CHUNKS = (b"a", b"b", b"c", b"d", b"e")


class RetentionTests(ContractTests):
    """E: retention."""

    # E1

    @pytest.mark.parametrize("ended", [True, False], ids=["ended", "unfinished"])
    async def test_expired_stream_is_expired_then_not_found_never_empty(self, harness: Harness, ended: bool) -> None:
        """E1: "A missing stream is StreamNotFoundError, a fence StreamDeletedError or StreamExpiredError"."""
        key = harness.unique_key()
        one, two = await harness.make(), await harness.make()
        short = harness.short_seconds
        unfinished_seconds, ended_seconds = (60, short) if ended else (short, 60)
        retention = Retention(
            unfinished_seconds=unfinished_seconds, ended_seconds=ended_seconds, fence_seconds=2 * short
        )
        writer = Writer(one.store, key, retention=retention)
        await writer.open()
        await writer.append(*CHUNKS, end=COMPLETED if ended else None)
        seen: list[str] = []

        async def look() -> str:
            found = await _reading(two.store, key)
            if found not in seen:
                seen.append(found)
            return found

        await eventually(look, lambda found: found == "not found", within=3 * short * SLACK)
        assert seen == ["whole", "expired", "not found"]
        assert await describe(two.store, key) is None
        with pytest.raises(DataLostError):
            await writer.append(b"x")

    async def test_expired_stream_is_described_as_a_fence(self, harness: Harness) -> None:
        """E1: "fences are described too (with run and end)"; appends obey the fence."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key, run="run-é", retention=Retention(ended_seconds=harness.short_seconds))
        await writer.open()
        await writer.append(*CHUNKS, end=End(state="failed", code="c", message="m"))
        info = await eventually(lambda: described(store, key), lambda found: found.state == "expired")
        assert (info.generation, info.run) == (writer.generation, "run-é")
        assert info.end == End(state="failed", code="c", message="m")
        assert info.size_bytes == 0
        with pytest.raises(StreamExpiredError):
            await writer.append(b"x")

    # E2

    async def test_appends_extend_an_open_streams_life(self, harness: Harness) -> None:
        """E2: "Retention begins anew" with every append."""
        key = harness.unique_key()
        store = (await harness.make()).store
        life = 2 * harness.short_seconds
        writer = Writer(store, key, retention=Retention(unfinished_seconds=life))
        await writer.open()
        async for _ in _for_seconds(1.5 * life, every=life / 8):
            await writer.append(b"a")
        assert (await described(store, key)).state == "open"

    async def test_touch_extends_an_open_streams_life(self, harness: Harness) -> None:
        """E2: "`touch` starts an un-ended run's retention anew"; of several streams in one call."""
        store = (await harness.make()).store
        life = 2 * harness.short_seconds
        keys = [harness.unique_key() for _ in range(3)]
        for key in keys:
            await Writer(store, key, retention=Retention(unfinished_seconds=life)).open()
        async for _ in _for_seconds(1.5 * life, every=life / 8):
            await store.describe(keys, touch=True)
        assert [info.state for info in await store.describe(keys) if info is not None] == ["open"] * 3

    async def test_describing_and_reading_do_not_extend_a_life(self, harness: Harness) -> None:
        """E2: whoever looks at a stream does not keep it alive."""
        key = harness.unique_key()
        store = (await harness.make()).store
        life = 2 * harness.short_seconds
        writer = Writer(store, key, retention=Retention(unfinished_seconds=life))
        await writer.open()
        await writer.append(b"a")

        async def look() -> StreamInfo:
            with contextlib.suppress(StreamExpiredError):
                await read(store, key)
            return await described(store, key)

        await eventually(look, lambda info: info.state == "expired", within=life * SLACK)

    async def test_touch_never_revives(self, harness: Harness) -> None:
        """E2: "it never shortens a life and never revives"."""
        expired, deleted = harness.unique_key(), harness.unique_key()
        store = (await harness.make()).store
        short = harness.short_seconds
        for key in (expired, deleted):
            retention = Retention(unfinished_seconds=short, fence_seconds=2 * short)
            await Writer(store, key, retention=retention).open()
        await store.delete(deleted)
        await eventually(lambda: described(store, expired), lambda info: info.state == "expired")

        async def touch() -> list[str | None]:
            found = await store.describe([expired, deleted], touch=True)
            return [None if info is None else info.state for info in found]

        await eventually(touch, lambda states: states == [None, None], within=3 * short * SLACK)
        assert await describe(store, expired) is None

    async def test_touch_does_not_extend_an_ended_run(self, harness: Harness) -> None:
        """E2: it is "an un-ended run's retention" that a touch begins anew."""
        key = harness.unique_key()
        store = (await harness.make()).store
        life = 2 * harness.short_seconds
        writer = Writer(store, key, retention=Retention(ended_seconds=life))
        await writer.open()
        await writer.append(b"a", end=COMPLETED)

        async def touch() -> str | None:
            (info,) = await store.describe([key], touch=True)
            return None if info is None else info.state

        await eventually(touch, lambda state: state == "expired", within=life * SLACK)

    async def test_renewals_keep_a_silent_producers_stream(self, harness: Harness) -> None:
        """E2: a producer that sends nothing keeps its stream by renewing its lease."""
        key = harness.unique_key()
        hub = await harness.hub()
        life = 2 * harness.ttl_seconds(await harness.make())
        retention = Retention(unfinished_seconds=life, ended_seconds=60)
        async with hub.produce(key, retention=retention) as producer:
            await producer.send("a")
            await producer.flush()
            async for _ in _for_seconds(1.7 * life, every=life / 4):
                info = await hub.info(key)
                assert info is not None
                assert info.state == "open"
            await producer.send("b")
        assert await read_all(hub.store, key) == [b"a", b"b"]

    # E3

    async def test_ended_streams_retention_counts_from_its_end(self, harness: Harness) -> None:
        """E3: "an end starts `ended_seconds`", however old the run is; a long unfinished life no longer counts."""
        key = harness.unique_key()
        store = (await harness.make()).store
        life = 2 * harness.short_seconds
        writer = Writer(store, key, retention=Retention(unfinished_seconds=600, ended_seconds=life))
        await writer.open()
        await writer.append(b"a")
        async for _ in _for_seconds(1.5 * life, every=life / 4):
            assert (await described(store, key)).state == "open"
        loop = asyncio.get_running_loop()
        before = loop.time()
        await writer.append(b"b", end=COMPLETED)
        after = loop.time()
        await eventually(lambda: described(store, key), lambda info: info.state == "expired", within=life * SLACK)
        assert loop.time() - before >= life * 0.9, (before, after)

    async def test_retried_end_does_not_extend_the_retention(self, harness: Harness) -> None:
        """E3: "success again, nothing changes"."""
        key = harness.unique_key()
        store = (await harness.make()).store
        life = 2 * harness.short_seconds
        writer = Writer(store, key, retention=Retention(ended_seconds=life))
        await writer.open()
        item = writer.item(b"a", end=COMPLETED)
        await append(store, item)

        async def retry() -> bool:
            (answer,) = await store.append([item])
            return isinstance(answer, StreamExpiredError)

        await eventually(retry, within=life * SLACK)

    # E6

    async def test_cursor_of_a_replaced_run_is_refused(self, harness: Harness) -> None:
        """E6: "generation below the run's first, or index outside its span → StreamReplacedError"."""
        key = harness.unique_key()
        hub = await harness.hub()
        offsets = await produce_all(hub, key, CHUNKS)
        await produce_all(hub, key, [b"other"] * 8)
        for offset in _with_start(offsets):
            with pytest.raises(StreamReplacedError):
                await replay(hub, key, offset)

    async def test_cursor_of_a_deleted_run_never_yields_anothers_chunks(self, harness: Harness) -> None:
        """E6: deleted: StreamDeletedError; created again: StreamReplacedError."""
        key = harness.unique_key()
        hub = await harness.hub()
        offsets = await produce_all(hub, key, CHUNKS)
        assert await hub.delete(key)
        for offset in _with_start(offsets):
            with pytest.raises(StreamDeletedError):
                await replay(hub, key, offset)
        await produce_all(hub, key, [b"other"] * 8)
        for offset in _with_start(offsets):
            with pytest.raises(StreamReplacedError):
                await replay(hub, key, offset)

    async def test_cursor_of_an_expired_run_never_yields_anothers_chunks(self, harness: Harness) -> None:
        """E6: expired: StreamExpiredError; created again, its fence standing or not: StreamReplacedError."""
        hub = await harness.hub()
        short = harness.short_seconds
        for state in ("expired", None):
            key = harness.unique_key()
            offsets = await produce_all(
                hub, key, CHUNKS, retention=Retention(ended_seconds=short, fence_seconds=60 if state else short)
            )
            found = await eventually(
                lambda key=key: describe(hub.store, key),
                lambda info, state=state: (info.state if info else None) == state,
            )
            for offset in _with_start(offsets):
                with pytest.raises(StreamExpiredError if found else StreamNotFoundError):
                    await replay(hub, key, offset)
            await produce_all(hub, key, [b"other"] * 8)
            for offset in _with_start(offsets):
                with pytest.raises(StreamReplacedError):
                    await replay(hub, key, offset)

    async def test_subscriber_of_a_named_run_never_gets_another_runs_chunks(self, harness: Harness) -> None:
        """E6: "A subscriber to a named run never sees another run's chunks"."""
        key = harness.unique_key()
        hub = await harness.hub()
        offsets = await produce_all(hub, key, CHUNKS, run="first")
        assert [chunk.data for chunk in await replay(hub, key, run="first")] == list(CHUNKS)
        with pytest.raises(StreamNotFoundError):
            await replay(hub, key, run="second")
        await produce_all(hub, key, [b"other"] * 8, run="second")
        for after in (None, *_with_start(offsets)):
            with pytest.raises((StreamReplacedError, StreamNotFoundError)):
                await replay(hub, key, after, run="first")

    # E7

    async def test_nothing_is_described_or_listed_once_the_fence_has_gone(self, harness: Harness) -> None:
        """E7: "removes what has expired": then describe, read and keys know nothing of the stream."""
        store = (await harness.make()).store
        keys = await _short_lived(harness, store)

        async def sweep() -> list[object]:
            await store.sweep(100)
            listed = [key async for key in store.keys(harness.prefix)]
            return [*listed, *(info for info in await store.describe(keys) if info is not None)]

        await eventually(sweep, lambda left: not left)
        for key in keys:
            with pytest.raises(StreamNotFoundError):
                await read(store, key)

    async def test_nothing_is_left_once_the_fence_has_gone(self, harness: Harness) -> None:
        """E7: keys, rows and subjects counted: of streams, fences, leases and cancel requests none remains."""
        harness.require("leftovers")
        backend = await harness.make()
        short = harness.short_seconds
        await _short_lived(harness, backend.store)
        for number in range(3):
            key = harness.unique_key("lease")
            ttl = harness.ttl_seconds(backend)
            lease = await backend.leases.acquire(key, owner=f"o{number}", run="r", ttl_seconds=ttl)
            if number:
                await backend.leases.release(lease)
            await backend.cancels.request(key, "r", reason="x", requested_by=None, ttl_seconds=short)

        async def sweep() -> int:
            await backend.store.sweep(100)
            return await harness.leftovers()

        await eventually(sweep, lambda left: left == 0)

    async def test_nothing_is_left_of_a_hubs_work(self, harness: Harness) -> None:
        """E7: the same for what a hub stores to produce, subscribe and cancel."""
        harness.require("leftovers")
        short, ttl = harness.short_seconds, harness.ttl_seconds(await harness.make())
        hub = await harness.hub(unfinished_seconds=max(short, ttl), ended_seconds=short, fence_seconds=short)
        for number in range(3):
            key = harness.unique_key()
            await produce_all(hub, key, CHUNKS, run=f"run-{number}")
            await replay(hub, key)
            await hub.cancel(key, run="another", reason="x")
            if number:
                await hub.delete(key)

        async def sweep() -> int:
            await hub.store.sweep(100)
            return await harness.leftovers()

        await eventually(sweep, lambda left: left == 0)

    # E8

    async def test_expired_streams_are_removed_without_traffic_on_them(self, harness: Harness) -> None:
        """E8: a sweep from another connection finds them; "up to `limit`" at a time, and nothing that lives."""
        one, two = await harness.make(), await harness.make()
        living = Writer(one.store, harness.unique_key("living"))
        await living.open()
        await living.append(*CHUNKS)
        keys = await _short_lived(harness, one.store)

        async def sweep() -> set[str]:
            assert 0 <= await two.store.sweep(2) <= 2
            return {key async for key in two.store.keys(harness.prefix)}

        listed = await eventually(sweep, lambda listed: not listed & set(keys))
        assert living.key in listed
        assert await read_all(two.store, living.key) == list(CHUNKS)
        await living.append(b"f")

    async def test_idle_hub_removes_what_has_expired(self, harness: Harness) -> None:
        """E8: "removes what has expired; every hub calls it now and then", also one that does nothing else."""
        harness.require("leftovers")
        await _short_lived(harness, (await harness.make()).store)
        assert await harness.leftovers() > 0
        await harness.hub(sweep_seconds=0.1)
        await eventually(harness.leftovers, lambda left: left == 0)

    async def test_expired_stream_counts_as_expired_before_it_is_swept(self, harness: Harness) -> None:
        """E8: "An expired stream counts as expired everywhere from that moment, swept or not"."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key, retention=Retention(unfinished_seconds=harness.short_seconds))
        info = await writer.open()
        await eventually(lambda: described(store, key), lambda found: found.state == "expired")
        (touched,) = await store.describe([key], touch=True)
        assert touched is not None
        assert touched.state == "expired"
        with pytest.raises(StreamExpiredError):
            await read(store, key)
        with pytest.raises(StreamExpiredError):
            await writer.append(b"x")
        late = Writer(store, key)
        with pytest.raises(OpenConflictError) as caught:
            await store.open(
                key, 999, owner=late.owner, run="run-1", expect=info.seen, resume=True, retention=Retention()
            )
        assert caught.value.found == (writer.generation, "expired")

    # E9

    @pytest.mark.parametrize("gone", ["deleted", "expired"])
    async def test_stream_can_be_created_again(self, harness: Harness, gone: str) -> None:
        """E9: after delete and expiry, over the fence: a new run, with nothing of the old one; F1 holds."""
        key = harness.unique_key()
        store = (await harness.make()).store
        old = Writer(store, key, retention=Retention(ended_seconds=harness.short_seconds))
        await old.open(metadata={"by": "old"})
        await old.append(*CHUNKS, end=COMPLETED)
        if gone == "deleted":
            assert await store.delete(key)
            assert not await store.delete(key)
        fence = await eventually(lambda: described(store, key), lambda info: info.state == gone)
        assert (fence.generation, fence.end) == (old.generation, COMPLETED)
        new = Writer(store, key, run="run-2")
        info = await new.open(metadata=None)
        assert new.generation > old.generation
        assert (info.state, info.spans, info.tail, info.end) == ("open", (Span(new.generation, 1),), 0, None)
        assert info.metadata == {}
        await new.append(b"new")
        assert await read_all(store, key) == [b"new"]

    async def test_stream_can_be_created_again_through_the_hub(self, harness: Harness) -> None:
        """E9: also the same run name, once it was deleted; offsets only grow."""
        key = harness.unique_key()
        hub = await harness.hub(ended_seconds=harness.short_seconds, fence_seconds=60.0)
        generations: list[int] = []
        for gone in ("deleted", "expired", "deleted"):
            offsets = await produce_all(hub, key, CHUNKS)
            generations.append(offsets[0].generation)
            if gone == "deleted":
                assert await hub.delete(key)
            await eventually(lambda: described(hub.store, key), lambda info, gone=gone: info.state == gone, within=10)
            assert await hub.info(key) is None
        assert generations == sorted(set(generations))

    async def test_delete_of_nothing_is_false(self, harness: Harness) -> None:
        """E9: "True if it was there": not for what never was, nor for a fence."""
        key = harness.unique_key()
        backend = await harness.make()
        assert await backend.store.delete(key) is False
        assert await describe(backend.store, key) is None
        await Writer(backend.store, key).open()
        assert await backend.store.delete(key) is True
        assert await backend.store.delete(key) is False

    # E10

    async def test_waiting_subscriber_wakes_at_delete(self, harness: Harness) -> None:
        """E10: it waits at the tail, elsewhere the stream is deleted: StreamDeletedError, without a poll."""
        key = harness.unique_key()
        writer_side = await harness.make()
        writer = Writer(writer_side.store, key)
        await writer.open(attended=False)
        await writer.append(b"a")
        hub = await harness.hub(poll_seconds=60.0, abandon_after_seconds=180.0)
        async with asyncio.timeout(20), hub.subscribe(key) as subscription:
            chunks = aiter(subscription)
            assert (await anext(chunks)).data == b"a"
            waiting = asyncio.ensure_future(anext(chunks, None))
            await asyncio.wait({waiting}, timeout=0.1)
            assert not waiting.done()
            await writer_side.store.delete(key)
            with pytest.raises(StreamDeletedError):
                await waiting

    async def test_waiting_subscriber_wakes_at_expiry(self, harness: Harness) -> None:
        """E10: it waits at the tail, the retention passes: StreamExpiredError within the poll bound."""
        key = harness.unique_key()
        writer_side = await harness.make()
        life = 2 * harness.short_seconds
        writer = Writer(writer_side.store, key, retention=Retention(unfinished_seconds=life))
        await writer.open(attended=False)
        await writer.append(b"a")
        poll = 0.5
        hub = await harness.hub(poll_seconds=poll)
        async with asyncio.timeout((life + poll) * SLACK), hub.subscribe(key) as subscription:
            chunks = aiter(subscription)
            assert (await anext(chunks)).data == b"a"
            with pytest.raises(StreamExpiredError):
                await anext(chunks, None)


async def _reading(store: StreamStore, key: str) -> str:
    try:
        page = await read(store, key)
    except StreamExpiredError:
        return "expired"
    except StreamNotFoundError:
        return "not found"
    return "whole" if page.chunks == CHUNKS else f"damaged: {page.chunks!r}"


async def _for_seconds(seconds: float, *, every: float) -> AsyncIterator[None]:
    """Let time pass, because time is what the case is about; take a turn now and then."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        yield
        await asyncio.sleep(every)


def _with_start(offsets: list[Offset]) -> list[Offset]:
    return [Offset(offsets[0].generation, 0), *offsets]


async def _short_lived(harness: Harness, store: StreamStore) -> list[str]:
    short = harness.short_seconds
    retention = Retention(unfinished_seconds=short, ended_seconds=short, fence_seconds=short)
    keys: list[str] = []
    for number in range(6):
        writer = Writer(store, harness.unique_key("short"), retention=retention)
        await writer.open(metadata={"number": number})
        await writer.append(*CHUNKS, end=COMPLETED if number % 2 else None)
        if number % 3 == 0:
            await store.delete(writer.key)
        keys.append(writer.key)
    return keys
