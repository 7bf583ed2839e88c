"""What the redis backend stores, and how; what all backends do is in the conformance suite."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import servers
from redis_support import RedisHarness
from streamhub_redis import RedisBackend
from streamhub_redis.appending import append_request
from streamhub_redis.entries import chunks_of_record, records_of, short_nonce
from streamhub_redis.names import Names
from streamhub_redis.options import RedisOptions
from streamhub_redis.resp import NOTHING, PlainReplies

from streamhub.conformance.waiting import eventually
from streamhub.conformance.writer import Writer, append, describe, described, read, read_all
from streamhub.errors import (
    DataLostError,
    LeaseHeldError,
    OffsetConflictError,
    StaleGenerationError,
    StreamHubError,
    UnsupportedFormatError,
)
from streamhub.records import encode_end
from streamhub.types import COMPLETED, Append, CancelRequest, End, Metadata, Read, Retention, RunRef, Span

HUGE = 2**63 - 10


@pytest.fixture(params=servers.REDIS_FLAVOURS)
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[RedisHarness]:
    async with RedisHarness(servers.redis_server(request.param)) as harness:
        yield harness


@pytest.fixture
async def backend(harness: RedisHarness) -> RedisBackend:
    backend = await harness.make()
    assert isinstance(backend, RedisBackend)
    return backend


def meta_of(harness: RedisHarness, key: str) -> str:
    return f"{harness.store_prefix}:{{{key}}}:meta"


def log_of(harness: RedisHarness, key: str) -> str:
    return f"{harness.store_prefix}:{{{key}}}:log"


# --- memory


@pytest.mark.parametrize(("per_flush", "goal"), [(1, 25.0), (8, 15.0), (64, 15.0)])
async def test_a_short_token_costs_little_memory(
    harness: RedisHarness, backend: RedisBackend, per_flush: int, goal: float
) -> None:
    writer = Writer(backend.store, harness.unique_key())
    await writer.open(1_795_392_279_078)
    count = 4800
    for _ in range(count // per_flush):
        await writer.append(*[b"token"] * per_flush)
    with harness.server.admin() as admin:
        used = admin.memory_usage(log_of(harness, writer.key), samples=0)
    assert used / count <= goal


# --- records


async def test_a_large_append_is_one_though_it_takes_several_records(
    harness: RedisHarness, backend: RedisBackend
) -> None:
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    await writer.append(b"before")
    chunks = [b"%d" % number for number in range(3000)] + [bytes(70_000), b"", b"x", bytes(70_000)]
    item = writer.item(*chunks)
    await writer.put(item)
    await writer.append(b"after", end=COMPLETED)
    stored = [b"before", *chunks, b"after"]
    with harness.server.admin() as admin:
        assert admin.xlen(log_of(harness, writer.key)) == 1 + 6 + 1
    assert await read_all(backend.store, writer.key) == stored
    for after in (0, 1, 2, 1024, 1025, 2999, 3001, 3002, 3004, 3005, 3006):
        for max_chunks, max_bytes in ((1, 1), (5, 10**6), (10**6, 10**6), (1024, 65_536)):
            (page,) = await backend.store.read([Read(writer.key, after, max_chunks, max_bytes)])
            assert not isinstance(page, StreamHubError)
            assert page.chunks == tuple(stored[after : after + len(page.chunks)])
            assert 1 <= len(page.chunks) <= max_chunks or after == len(stored)
            assert len(page.chunks) <= 1 or sum(map(len, page.chunks)) <= max_bytes
    # Any of its records says that it is there.
    assert (await append(backend.store, item)).tail == item.last


async def test_a_retry_is_told_from_a_stranger(harness: RedisHarness, backend: RedisBackend) -> None:
    for attended in (True, False):
        writer = Writer(backend.store, harness.unique_key())
        await writer.open(attended=attended)
        items: list[Append] = []
        for chunks in ((b"a",), (b"b", b"c"), (b"",), (b"x" * 5000,)):
            items.append(writer.item(*chunks))
            await writer.put(items[-1])
        for item in items:
            assert (await append(backend.store, item)).tail == item.last
            stranger = Append(item.key, item.generation, item.first, item.chunks, secrets.token_bytes(12))
            with pytest.raises(OffsetConflictError):
                await append(backend.store, stranger)
        assert (await described(backend.store, writer.key)).tail == 5


def test_records_hold_what_was_split() -> None:
    for chunks in ([b"a"], [b""], [b"a", b""], [b"x" * 200] * 1025, [b"x" * 65_537], [b"x" * 40_000] * 3):
        records = records_of(chunks, sum(map(len, chunks)))
        assert [count for count, _ in records][-1] == len(chunks)
        assert [chunk for _, record in records for chunk in chunks_of_record(record)] == chunks
    assert records_of([], 0) == []
    assert len(short_nonce(b"any length")) == 8


ENDED = End(state="failed", code="a code")


@pytest.mark.parametrize("suffix", [b"", b"@3"])
@pytest.mark.parametrize(
    ("chunks", "metadata", "end", "records", "hint"),
    [
        pytest.param((b"abc",), None, None, [(9, b"\x84abc")], b"1 7 9 4 \n", id="one"),
        pytest.param((b"",), None, None, [(9, b"\x84")], b"1 7 9 1 \n", id="empty"),
        pytest.param((b"x" * 99,), None, None, [(9, b"\x84" + b"x" * 99)], b"1 7 9 100 \n", id="largest pushed"),
        pytest.param((b"x" * 100,), None, None, [(9, b"\x84" + b"x" * 100)], b"", id="too large to push"),
        pytest.param((b"x" * 70_000,), None, None, [(9, b"\x84" + b"x" * 70_000)], b"", id="large"),
        pytest.param((b"a", b"bc"), None, None, [(10, b"\x01\x02\x01\x02abc")], b"1 7 9 7 \n", id="two"),
        pytest.param((b"abc",), {"a": 1}, None, [(9, b"\x84abc")], b"", id="with metadata"),
        pytest.param((b"abc",), None, ENDED, [(9, b"\x84abc")], b"1 7 9 4 %b\n", id="with an end"),
        pytest.param((), None, ENDED, [], b"1 7 9  %b\n", id="an end"),
    ],
)
def test_append_is_written_as_its_script_reads_it(
    chunks: tuple[bytes, ...],
    metadata: Metadata | None,
    end: End | None,
    records: list[tuple[int, bytes]],
    hint: bytes,
    suffix: bytes,
) -> None:
    names = Names("p", 0)
    names.channel_suffix = suffix
    session: Any = SimpleNamespace(names=names, options=RedisOptions(max_push_bytes=100))
    item = Append("k", 7, 9, chunks, b"nonce", metadata, end)
    replies = PlainReplies()
    replies.feed(append_request(session, item).command)
    finish = b"" if end is None else encode_end(end).encode()
    arguments = [b"7", suffix, finish, b"" if metadata is None else b'{"a":1}', b"8", b"%d" % item.last]
    arguments += [short_nonce(b"nonce"), b"%d" % sum(map(len, chunks)), hint.replace(b"%b", finish)]
    for index, record in records:
        arguments += [b"%d" % index, record]
    written = replies.next()
    assert (written[0], written[2:]) == (b"EVALSHA", [b"2", b"p:{k}:meta", b"p:{k}:log", *arguments])
    assert replies.next() is NOTHING


async def test_trimming_counts_every_kind_of_record(harness: RedisHarness, backend: RedisBackend) -> None:
    kept: list[bytes] = []
    writer = Writer(backend.store, harness.unique_key(), retention=Retention(max_bytes=3000, overflow="trim"))
    await writer.open(attended=False)
    for number in range(60):
        chunks = [bytes([number]) * (1 + (number * 37 + place * 101) % 400) for place in range(1 + number % 4)]
        await writer.append(*chunks)
        kept += chunks
        while sum(map(len, kept)) > 3000:
            del kept[0]
        info = await described(backend.store, writer.key)
        assert (info.tail - info.first + 1, info.size_bytes) == (len(kept), sum(map(len, kept)))
        assert await read_all(backend.store, writer.key, info.first - 1) == kept
    with harness.server.admin() as admin:
        # Entries of which nothing counts are gone.
        assert admin.xlen(log_of(harness, writer.key)) <= len(kept)


# --- numbers


async def test_generations_of_63_bits_are_exact(harness: RedisHarness, backend: RedisBackend) -> None:
    store, key = backend.store, harness.unique_key()
    first, second = Writer(store, key), Writer(store, key)
    await first.open(HUGE)
    await first.append(b"a")
    info = await second.open(HUGE + 1, resume=True)
    assert info.spans == (Span(HUGE, 1), Span(HUGE + 1, 2))
    await second.append(b"b")
    with pytest.raises(StaleGenerationError) as caught:
        await first.append(b"c")
    assert caught.value.current == HUGE + 1
    assert await read_all(store, key) == [b"a", b"b"]
    ahead = Append(key, HUGE + 2, 3, (b"c",), b"n")
    with pytest.raises(DataLostError):
        await append(store, ahead)


async def test_generations_of_leases_of_63_bits_are_exact(harness: RedisHarness, backend: RedisBackend) -> None:
    key = harness.unique_key()
    one = await backend.leases.acquire(key, owner="1", run="r", ttl_seconds=60, above=HUGE)
    assert one.generation == HUGE + 1
    with pytest.raises(LeaseHeldError):
        await backend.leases.acquire(key, owner="2", run="r", ttl_seconds=60, above=HUGE + 1, void=HUGE)
    two = await backend.leases.acquire(key, owner="2", run="r", ttl_seconds=60, above=HUGE, void=HUGE + 1)
    assert two.generation == HUGE + 2
    assert list(await backend.leases.renew([one, two])) == [False, True]
    await backend.leases.release(two)
    three = await backend.leases.acquire(key, owner="3", run="r", ttl_seconds=60)
    assert three.generation == HUGE + 3


async def test_a_lease_leaves_nothing_once_the_clock_has_passed_it(
    harness: RedisHarness, backend: RedisBackend
) -> None:
    key = harness.unique_key()
    seen: list[int] = []
    for number in range(200):
        lease = await backend.leases.acquire(key, owner=str(number), run="r", ttl_seconds=60)
        seen.append(lease.generation)
        await backend.leases.release(lease)
    assert seen == sorted(set(seen))
    await eventually(harness.leftovers, lambda left: left == 0)


# --- what is not there, or is of a later release


async def test_a_log_that_was_evicted_is_a_loss_not_a_gap(harness: RedisHarness, backend: RedisBackend) -> None:
    store = backend.store
    writer = Writer(store, harness.unique_key())
    await writer.open()
    await writer.append(b"a", b"b")
    with harness.server.admin() as admin:
        admin.delete(log_of(harness, writer.key))
    with pytest.raises(DataLostError, match="evicted"):
        await writer.append(b"c")
    with pytest.raises(DataLostError, match="evicted"):
        await read(store, writer.key)
    with pytest.raises(DataLostError, match="evicted"):
        await Writer(store, writer.key).open(resume=True)
    # Reading what is not stored yet finds nothing missing; a new run begins with nothing.
    assert (await read(store, writer.key, 2)).chunks == ()
    new = Writer(store, writer.key, run="run-2")
    await new.open()
    await new.append(b"z")
    assert await read_all(store, new.key) == [b"z"]


async def test_a_producer_of_an_evicted_log_is_told(harness: RedisHarness) -> None:
    hub = await harness.hub()
    key = harness.unique_key()
    with pytest.raises(DataLostError):
        async with asyncio.timeout(20), hub.produce(key) as producer:
            await producer.send("a")
            await producer.flush()
            with harness.server.admin() as admin:
                admin.delete(log_of(harness, key))
            await producer.send("b")
            await producer.flush()


async def test_a_format_of_a_later_release_is_not_touched(harness: RedisHarness, backend: RedisBackend) -> None:
    store = backend.store
    writer = Writer(store, harness.unique_key())
    await writer.open()
    await writer.append(b"a")
    with harness.server.admin() as admin:
        admin.hset(meta_of(harness, writer.key), "format", "2")
        before = admin.hgetall(meta_of(harness, writer.key))
        for attempt in (
            lambda: writer.append(b"b"),
            lambda: writer.append(end=COMPLETED),
            lambda: read(store, writer.key),
            lambda: describe(store, writer.key),
            lambda: store.describe([writer.key], touch=True),
            lambda: store.delete(writer.key),
            lambda: store.open(
                writer.key, 10**15, owner="o", run="r", expect=None, resume=False, retention=Retention()
            ),
        ):
            with pytest.raises(UnsupportedFormatError):
                await attempt()
        assert admin.hgetall(meta_of(harness, writer.key)) == before


async def test_an_entry_of_a_later_release_spoils_only_its_page(harness: RedisHarness, backend: RedisBackend) -> None:
    writer, other = Writer(backend.store, harness.unique_key()), Writer(backend.store, harness.unique_key())
    for each in (writer, other):
        await each.open()
        await each.append(b"a", b"b")
    with harness.server.admin() as admin:
        admin.delete(log_of(harness, writer.key))
        admin.xadd(log_of(harness, writer.key), {"c": b"\x7fsomething new"}, id=f"{writer.generation}-2")
    broken, whole = await backend.store.read([Read(writer.key, 0), Read(other.key, 0)])
    assert isinstance(broken, UnsupportedFormatError)
    assert not isinstance(whole, StreamHubError)


# --- notifications


async def test_hints_carry_what_is_small_enough(harness: RedisHarness) -> None:
    harness.url = f"{harness.url}&max_push_bytes=4000"
    backend = await harness.make()
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    async with backend.store.changes() as feed, asyncio.timeout(10):
        await feed.follow(writer.key)
        hints = aiter(feed)
        for chunks, carried in (([b"a"], True), ([b"x" * 5000], False), ([b""] * 1500, True), ([b"b"] * 3, True)):
            item = writer.item(*chunks)
            await writer.put(item)
            change = await anext(hints)
            assert change.key == writer.key
            assert (change.append is not None) == carried
            if change.append is not None:
                assert (change.append.first, change.append.chunks) == (item.first, item.chunks)


async def test_hints_can_be_without_data(harness: RedisHarness) -> None:
    harness.url = f"{harness.url}&max_push_bytes=0"
    backend = await harness.make()
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    async with backend.store.changes() as feed, asyncio.timeout(10):
        await feed.follow(writer.key)
        await writer.append(b"a", end=COMPLETED)
        assert (await anext(aiter(feed))).append is None


async def test_messages_of_a_later_release_make_readers_look(harness: RedisHarness, backend: RedisBackend) -> None:
    key = harness.unique_key()
    ref = RunRef(key, "r")
    async with (
        backend.store.changes() as feed,
        backend.cancels.requests() as requests,
        asyncio.timeout(10),
    ):
        await feed.follow(key)
        await requests.listen(ref)
        with harness.server.admin() as admin:
            for message in (b"2 something\nnew", b"1 7 1 3 \n\x7f??", b""):
                admin.publish(log_of(harness, key), message)
                change = await anext(aiter(feed))
                assert (change.key, change.append) == (key, None)
            admin.publish(f"{harness.store_prefix}:{{{key}}}:cancel:r", b'{"v":2}')
            assert await anext(aiter(requests)) is None


async def test_a_request_of_a_later_release_is_refused(harness: RedisHarness, backend: RedisBackend) -> None:
    ref = RunRef(harness.unique_key(), "r")
    with harness.server.admin() as admin:
        admin.set(f"{harness.store_prefix}:{{{ref.key}}}:cancel:r", b'{"v":2}')
    with pytest.raises(UnsupportedFormatError):
        await backend.cancels.pending([ref])


async def test_databases_do_not_mix(harness: RedisHarness, backend: RedisBackend) -> None:
    elsewhere = RedisBackend(f"{harness.server.url[:-1]}5?prefix={harness.store_prefix}")
    await elsewhere.connect()
    try:
        key = harness.unique_key()
        here, there = Writer(backend.store, key), Writer(elsewhere.store, key)
        async with backend.store.changes() as feed, backend.cancels.requests() as requests, asyncio.timeout(10):
            await feed.follow(key)
            await requests.listen(RunRef(key, "r"))
            await there.open()
            await there.append(b"there")
            await elsewhere.cancels.request(key, "r", reason="there", requested_by=None, ttl_seconds=60)
            await here.open()
            await backend.cancels.request(key, "r", reason="here", requested_by=None, ttl_seconds=60)
            assert (await anext(aiter(feed))).append is None
            assert await anext(aiter(requests)) == CancelRequest(key, "r", "here", None)
        assert await read_all(backend.store, key) == []
        assert await read_all(elsewhere.store, key) == [b"there"]
        async with elsewhere.store.changes() as feed, asyncio.timeout(10):
            await feed.follow(key)
            await there.append(b"more")
            assert (await anext(aiter(feed))).key == key
    finally:
        await elsewhere.aclose()
        with harness.server.admin(db=5) as admin:
            admin.flushdb()


# --- listing


async def test_keys_are_listed_whatever_they_look_like(harness: RedisHarness, backend: RedisBackend) -> None:
    prefix = harness.unique_key()
    rests = ["", "*", "a", "a*", "[a]", "?", "\\", "{", "}", "%", "%7B", "é", " ", ":meta", "}:meta", "-", "^"]
    keys = {prefix + rest for rest in rests}
    for key in keys:
        await Writer(backend.store, key).open()
    assert {key async for key in backend.store.keys(prefix)} == keys
    for rest in rests:
        found = {key async for key in backend.store.keys(prefix + rest)}
        assert found == {key for key in keys if key.startswith(prefix + rest)}
