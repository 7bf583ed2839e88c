"""Reads by the store alone: pages, batches and lists of any size (of R and K)."""

from __future__ import annotations

import random

from streamhub.conformance.contract import ContractTests
from streamhub.conformance.harness import Harness
from streamhub.conformance.writer import Writer, described, read, read_all
from streamhub.errors import StreamDeletedError, StreamNotFoundError
from streamhub.types import COMPLETED, Append, Appended, Page, Read, RunRef, Span

BEYOND = (1, 2, 1_000, 2**31, 2**32, 2**53, 2**62)
MANY = 300


class PageTests(ContractTests):
    """R and K, as far as the store alone must show them."""

    async def test_pages_are_what_was_asked_for(self, harness: Harness) -> None:
        """R3: "`chunks` are contiguous, of one run, and begin at `after_index + 1`", wherever appends began."""
        rng = random.Random(3)
        store = (await harness.make()).store
        writer = Writer(store, harness.unique_key())
        await writer.open(metadata={"a": 1})
        stored: list[bytes] = []
        for _ in range(40):
            group = [rng.randbytes(rng.randrange(60)) for _ in range(rng.randrange(1, 12))]
            await writer.append(*group)
            stored += group
        for _ in range(60):
            after, most, size = rng.randrange(len(stored)), rng.randrange(1, 40), rng.randrange(1, 900)
            (page,) = await store.read([Read(writer.key, after, most, size)])
            assert isinstance(page, Page)
            assert 1 <= len(page.chunks) <= most
            assert len(page.chunks) == 1 or sum(map(len, page.chunks)) <= size
            assert list(page.chunks) == stored[after : after + len(page.chunks)]
            assert (page.run, page.first, page.tail, page.end) == ("run-1", 1, len(stored), None)
            assert (page.spans, page.metadata, page.attended) == ((Span(writer.generation, 1),), {"a": 1}, True)
        for most, size in ((1, 2**20), (10_000, 1), (7, 10_000), (10_000, 100)):
            got: list[bytes] = []
            while len(got) < len(stored):
                (page,) = await store.read([Read(writer.key, len(got), most, size)])
                assert isinstance(page, Page)
                assert page.chunks
                got += page.chunks
            assert got == stored

    async def test_pages_beyond_the_tail_are_empty(self, harness: Harness) -> None:
        """R4: "Beyond the tail it is empty", of an empty, an open and an ended run, however far beyond."""
        store = (await harness.make()).store
        writer = Writer(store, harness.unique_key())
        await writer.open(attended=False)
        for end in (None, None, COMPLETED):
            for step in (0, *BEYOND):
                page = await read(store, writer.key, writer.tail + step)
                assert (page.chunks, page.tail, page.attended) == ((), writer.tail, False)
            await writer.append(b"a", b"b", end=end)
        for step in (0, *BEYOND):
            page = await read(store, writer.key, writer.tail + step)
            assert (page.chunks, page.tail, page.end) == ((), 6, COMPLETED)

    async def test_chunk_larger_than_a_page_is_read_alone(self, harness: Harness) -> None:
        """R11: "a page ends at either bound, but never before one chunk"."""
        store = (await harness.make()).store
        writer = Writer(store, harness.unique_key())
        await writer.open()
        chunks = [b"a", b"x" * 100_000, b"", b"y" * 100_000, b"b"]
        await writer.append(*chunks)
        for after in range(5):
            (page,) = await store.read([Read(writer.key, after, 100, 10)])
            assert isinstance(page, Page)
            assert page.chunks[0] == chunks[after]
            assert len(page.chunks) == 1 or sum(map(len, page.chunks)) <= 10

    async def test_spans_name_who_wrote_what(self, harness: Harness) -> None:
        """R3: "`generation` writes the indexes from `first` on": every open of the run, also one without chunks."""
        store = (await harness.make()).store
        key = harness.unique_key()
        expected: list[Span] = []
        tail = 0
        for number, count in enumerate([2, 0, 3, 1, 0, 0, 4]):
            writer = Writer(store, key)
            info = await writer.open(10 * number + 3, resume=number > 0)
            expected.append(Span(10 * number + 3, tail + 1))
            assert info.spans == tuple(expected)
            for _ in range(count):
                tail += 1
                await writer.append(b"%d" % tail)
        page = await read(store, key)
        assert page.spans == tuple(expected)
        assert list(page.chunks) == [b"%d" % index for index in range(1, tail + 1)]
        assert (await described(store, key)).spans == tuple(expected)

    async def test_batches_of_any_size_are_answered_in_order(self, harness: Harness) -> None:
        """F10: "answers are in the batch's order": of none, of many, of the same key twice."""
        backend = await harness.make()
        store, leases, cancels = backend.store, backend.leases, backend.cancels
        assert list(await store.append([])) == []
        assert list(await store.read([])) == []
        assert list(await store.describe([])) == []
        assert list(await leases.renew([])) == []
        assert list(await leases.holders([])) == []
        assert list(await cancels.pending([])) == []
        writers = [Writer(store, harness.unique_key(), run=f"run-{number}") for number in range(MANY)]
        for writer in writers:
            await writer.open()
        items = [writer.item(b"%d" % number) for number, writer in enumerate(writers)]
        assert list(await store.append(items)) == [Appended(1)] * MANY
        keys = [writer.key for writer in writers]
        infos = await store.describe([*keys, keys[0], harness.unique_key("none")], touch=True)
        assert [info and info.run for info in infos] == [*(writer.run for writer in writers), "run-0", None]
        pages = await store.read([*(Read(key, 0) for key in keys), Read(keys[0], 0), Read(keys[0], 1)])
        chunks = [page.chunks for page in pages if isinstance(page, Page)]
        assert chunks == [*((b"%d" % number,) for number in range(MANY)), (b"0",), ()]
        held = [
            await leases.acquire(key, owner=f"o{number}", run="r", ttl_seconds=60) for number, key in enumerate(keys)
        ]
        assert list(await leases.renew(held)) == [True] * MANY
        holders = await leases.holders([*reversed(keys), harness.unique_key("none")])
        assert [holder and holder.generation for holder in holders] == [
            *(lease.generation for lease in reversed(held)),
            None,
        ]
        for key in keys[::50]:
            await cancels.request(key, "r", reason=key, requested_by=None, ttl_seconds=60)
        pending = await cancels.pending([RunRef(key, "r") for key in keys])
        assert [found and found.reason for found in pending] == [
            key if number % 50 == 0 else None for number, key in enumerate(keys)
        ]

    async def test_reads_of_one_call_succeed_or_fail_separately(self, harness: Harness) -> None:
        """F10: "answers are in the order of `reads`, each succeeding or failing by itself"."""
        store = (await harness.make()).store
        fine, gone, missing = (harness.unique_key(name) for name in ("fine", "gone", "missing"))
        for key in (fine, gone):
            writer = Writer(store, key)
            await writer.open()
            await writer.append(key.encode())
        await store.delete(gone)
        answers = await store.read([Read(key, 0) for key in (missing, fine, gone, fine)])
        assert [type(answer) for answer in answers] == [StreamNotFoundError, Page, StreamDeletedError, Page]
        assert [answer.chunks for answer in answers if isinstance(answer, Page)] == [(fine.encode(),)] * 2

    async def test_large_append_is_one_append(self, harness: Harness) -> None:
        """R9: ten thousand chunks of one call keep their boundaries, and are one atomic step."""
        store = (await harness.make()).store
        writer = Writer(store, harness.unique_key())
        await writer.open()
        chunks = [b"%d" % number * (number % 3) for number in range(10_000)]
        item: Append = writer.item(*chunks, end=COMPLETED)
        assert await writer.put(item) == Appended(10_000)
        assert await writer.put(item) == Appended(10_000)
        assert await read_all(store, writer.key) == chunks

    async def test_many_keys_are_listed_each_once(self, harness: Harness) -> None:
        """K9: "Yield the keys that begin with `prefix`, … each once, in no order"."""
        store = (await harness.make()).store
        keys = [harness.unique_key(f"listed/{number % 7}") for number in range(MANY)]
        for key in keys:
            await Writer(store, key).open()
        listed = [key async for key in store.keys(f"{harness.prefix}listed/")]
        assert sorted(listed) == sorted(keys)
        some = [key async for key in store.keys(f"{harness.prefix}listed/3")]
        assert sorted(some) == sorted(key for key in keys if "listed/3" in key)
        everything = {key async for key in store.keys("")}
        assert everything >= set(keys)
