"""Limits: how large a run may grow, and what is told to who reads behind its trimmed edge (E4, E5)."""

from __future__ import annotations

import asyncio

import pytest

from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import produce_all, replay
from streamhub.conformance.harness import Harness
from streamhub.conformance.writer import Writer, append, described, read, read_all
from streamhub.errors import LimitExceededError, OffsetTrimmedError
from streamhub.types import COMPLETED, Chunk, Retention

CHUNKS = (b"a", b"b", b"c", b"d", b"e")


class LimitTests(ContractTests):
    """E: limits."""

    # E4

    async def test_cap_on_bytes_refuses(self, harness: Harness) -> None:
        """E4: "a cap would be exceeded and overflow is `refuse`: LimitExceededError"; exactly the cap is allowed."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key, retention=Retention(max_bytes=10))
        await writer.open()
        await writer.append(b"12345", b"678")
        with pytest.raises(LimitExceededError) as caught:
            await append(store, writer.item(b"901"))
        assert (caught.value.key, caught.value.limit, caught.value.value) == (key, "max_bytes", 10)
        await writer.append(b"90", b"")
        with pytest.raises(LimitExceededError):
            await append(store, writer.item(b"x", end=COMPLETED))
        assert (await described(store, key)).state == "open"
        await writer.append(end=COMPLETED, metadata={"full": True})
        assert await read_all(store, key) == [b"12345", b"678", b"90", b""]

    async def test_cap_on_chunks_refuses(self, harness: Harness) -> None:
        """E4: the same for chunks. "An end alone never exceeds"."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key, retention=Retention(max_chunks=3))
        await writer.open()
        await writer.append(b"a", b"b")
        with pytest.raises(LimitExceededError) as caught:
            await append(store, writer.item(b"c", b"d"))
        assert (caught.value.limit, caught.value.value) == ("max_chunks", 3)
        await writer.append(b"c")
        with pytest.raises(LimitExceededError):
            await append(store, writer.item(b""))
        await writer.append(end=COMPLETED)
        assert await read_all(store, key) == [b"a", b"b", b"c"]

    async def test_cap_counts_a_resumed_runs_chunks(self, harness: Harness) -> None:
        """E4: the caps are a run's, over all its generations; a new run begins with none."""
        key = harness.unique_key()
        store = (await harness.make()).store
        retention = Retention(max_bytes=4, max_chunks=3)
        writer = Writer(store, key, retention=retention)
        await writer.open()
        await writer.append(b"ab", b"c")
        resumed = Writer(store, key, retention=retention)
        await resumed.open(resume=True)
        for too_much in ((b"de",), (b"", b"")):
            with pytest.raises(LimitExceededError):
                await append(store, resumed.item(*too_much))
        await resumed.append(b"d", end=COMPLETED)
        new = Writer(store, key, run="run-2", retention=retention)
        await new.open()
        await new.append(b"abcd")

    async def test_caps_count_what_is_kept(self, harness: Harness) -> None:
        """E4: a run that was trimmed, and is resumed to refuse, has room for what its caps leave beside what it has."""
        key = harness.unique_key()
        store = (await harness.make()).store
        trimmed = Writer(store, key, retention=Retention(max_chunks=3, overflow="trim"))
        await trimmed.open()
        for _ in range(8):
            await trimmed.append(b"12")
        resumed = Writer(store, key, retention=Retention(max_bytes=9, max_chunks=4))
        await resumed.open(resume=True)
        info = await described(store, key)
        assert (info.first, info.tail, info.size_bytes) == (6, 8, 6)
        for too_much in ((b"", b""), (b"3456",)):
            with pytest.raises(LimitExceededError):
                await append(store, resumed.item(*too_much))
        await resumed.append(b"345", end=COMPLETED)
        assert await read_all(store, key, 5) == [b"12", b"12", b"12", b"345"]

    async def test_cap_on_chunks_trims(self, harness: Harness) -> None:
        """E4: "With `trim` the oldest chunks go, never the newest"; indexes stay dense and are never reused."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key, retention=Retention(max_chunks=4, overflow="trim"))
        await writer.open()
        for number in range(1, 11):
            assert (await writer.append(b"%d" % number)).tail == number
            info = await described(store, key)
            assert info.tail == number
            assert info.tail - info.first + 1 == min(number, 4)
            kept = await read_all(store, key, info.first - 1)
            assert kept == [b"%d" % index for index in range(info.first, number + 1)]
            assert info.size_bytes == sum(map(len, kept))
        await writer.append(b"11", b"12", b"13", b"14", b"15", b"16", end=COMPLETED)
        info = await described(store, key)
        assert (info.first, info.tail) == (13, 16)

    async def test_cap_on_bytes_trims(self, harness: Harness) -> None:
        """E4: the newest chunk always stays, though it alone exceeds the cap."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key, retention=Retention(max_bytes=10, overflow="trim"))
        await writer.open()
        await writer.append(b"12345", b"678")
        await writer.append(b"abc")
        info = await described(store, key)
        assert (info.first, info.tail, info.size_bytes) == (2, 3, 6)
        assert await read_all(store, key, 1) == [b"678", b"abc"]
        item = writer.item(b"x" * 30)
        await writer.put(item)
        info = await described(store, key)
        assert (info.first, info.tail, info.size_bytes) == (4, 4, 30)
        assert await read_all(store, key, 3) == [b"x" * 30]
        # Its record stays too: a retry finds it.
        assert (await append(store, item)).tail == 4
        await writer.append(b"y", end=COMPLETED)
        assert await read_all(store, key, 4) == [b"y"]

    # E5

    async def test_page_before_the_trimmed_edge_is_empty_and_says_where_it_is(self, harness: Harness) -> None:
        """E5: chunks are "empty when that index is not stored (yet, or any more)"."""
        key = harness.unique_key()
        store = (await harness.make()).store
        writer = Writer(store, key, retention=Retention(max_chunks=2, overflow="trim"))
        await writer.open()
        for chunk in CHUNKS:
            await writer.append(chunk)
        for after in range(3):
            page = await read(store, key, after)
            assert (page.chunks, page.first, page.tail) == ((), 4, 5)
        assert (await read(store, key, 3)).chunks == (b"d", b"e")

    async def test_cursor_before_the_trimmed_edge_is_refused(self, harness: Harness) -> None:
        """E5: "before `first` → OffsetTrimmedError(first)"; at the edge nothing is missing."""
        key = harness.unique_key()
        hub = await harness.hub(max_chunks=2, overflow="trim")
        offsets = await produce_all(hub, key, CHUNKS, flush_each=True)
        for offset in offsets[:2]:
            with pytest.raises(OffsetTrimmedError) as caught:
                await replay(hub, key, offset)
            assert caught.value.first == 4
        for at, offset in enumerate(offsets[2:], 3):
            assert [chunk.data for chunk in await replay(hub, key, offset)] == list(CHUNKS[at:])

    async def test_live_subscriber_left_behind_by_trimming_is_told(self, harness: Harness) -> None:
        """E5: it reads slowly while the run is trimmed: OffsetTrimmedError, never a silent gap."""
        key = harness.unique_key()
        backend = await harness.make()
        writer = Writer(backend.store, key, retention=Retention(max_chunks=3, overflow="trim"))
        await writer.open(attended=False)
        await writer.append(b"1", b"2")
        hub = await harness.hub(window_bytes=1)
        got: list[Chunk] = []
        async with asyncio.timeout(20), hub.subscribe(key) as subscription:
            chunks = aiter(subscription)
            got.append(await anext(chunks))
            for number in range(3, 40):
                await writer.append(b"%d" % number)
            with pytest.raises(OffsetTrimmedError) as caught:
                while True:
                    got.append(await anext(chunks))
        assert [chunk.offset.index for chunk in got] == list(range(1, len(got) + 1))
        assert [chunk.data for chunk in got] == [b"%d" % number for number in range(1, len(got) + 1)]
        assert caught.value.first == 37
