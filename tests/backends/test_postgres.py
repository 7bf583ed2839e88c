"""What the postgresql backend stores, and how; what all backends do is in the conformance suite."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
import servers
from postgres_servers import QUICK, PostgresServer, started
from postgres_support import TABLES, PostgresHarness, connected
from streamhub_postgres import PostgresBackend
from streamhub_postgres.appending import _portions
from streamhub_postgres.heads import read_append, read_request, stream_topic, write_request, write_said
from streamhub_postgres.records import page_of, records_of

from streamhub.conformance.drive import produce_all, soon
from streamhub.conformance.waiting import eventually
from streamhub.conformance.writer import Writer, append, described, read, read_all
from streamhub.errors import (
    BackendUnavailableError,
    LeaseHeldError,
    OffsetConflictError,
    StreamEndedError,
    StreamHubError,
    UnsupportedFormatError,
)
from streamhub.kit import MAX_ITEMS, Inbox
from streamhub.types import COMPLETED, Append, CancelRequest, Change, End, Read, Retention, RunRef, Span

HUGE = 2**63 - 10


@pytest.fixture
def server() -> PostgresServer:
    return servers.postgres_server("18")


@pytest.fixture
async def harness(server: PostgresServer) -> AsyncIterator[PostgresHarness]:
    async with PostgresHarness(server) as harness:
        yield harness


@pytest.fixture
async def backend(harness: PostgresHarness) -> PostgresBackend:
    return await harness.connect_kept()


# --- records


async def test_a_large_append_is_one_though_it_takes_several_rows(
    harness: PostgresHarness, backend: PostgresBackend
) -> None:
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    await writer.append(b"before")
    chunks = [b"%d" % number for number in range(9000)] + [bytes(140_000), b"", b"x", bytes(140_000)]
    item = writer.item(*chunks)
    await writer.put(item)
    await writer.append(b"after", end=COMPLETED)
    stored = [b"before", *chunks, b"after"]
    assert await harness.count("record") == 1 + len(records_of(2, chunks, sum(map(len, chunks)))) + 1
    assert await harness.count("record") > 5
    assert await read_all(backend.store, writer.key) == stored
    for after in (0, 1, 2, 4096, 4097, 8999, 9000, 9001, 9002, 9003, 9004, 9005):
        for max_chunks, max_bytes in ((1, 1), (5, 10**6), (10**6, 10**6), (1024, 65_536)):
            (page,) = await backend.store.read([Read(writer.key, after, max_chunks, max_bytes)])
            assert not isinstance(page, StreamHubError)
            assert page.chunks == tuple(stored[after : after + len(page.chunks)])
            assert 1 <= len(page.chunks) <= max_chunks or after == len(stored)
            assert len(page.chunks) <= 1 or sum(map(len, page.chunks)) <= max_bytes
    # Any of its rows says that it is there; a stranger's append is told from it.
    assert (await append(backend.store, item)).tail == item.last
    with pytest.raises(StreamEndedError):
        await append(backend.store, Append(item.key, item.generation, item.first, item.chunks, secrets.token_bytes(12)))


def test_records_hold_what_was_split() -> None:
    for chunks in ([b"a"], [b""], [b"a", b""], [b"x"] * 9000, [b"x" * 200_000], [b"x" * 90_000] * 3):
        records = records_of(5, chunks, sum(map(len, chunks)))
        assert records[0].first == 5
        assert records[-1].last == 4 + len(chunks)
        assert [one.last + 1 for one in records[:-1]] == [one.first for one in records[1:]]
        firsts, packed = [one.first for one in records], [one.packed for one in records]
        assert list(page_of(firsts, packed, 4, max_chunks=10**6, max_bytes=10**9)) == chunks
    assert records_of(1, [], 0) == []


async def test_one_statement_carries_at_most_so_much(server: PostgresServer) -> None:
    """Together they are longer than one statement may be; each is stored, and each has its own answer."""
    async with PostgresHarness(server, options="timeout_seconds=30") as harness:
        await _append_much(harness, await harness.connect_kept())


async def _append_much(harness: PostgresHarness, backend: PostgresBackend) -> None:
    writers = [Writer(backend.store, harness.unique_key()) for _ in range(5)]
    for writer in writers[:4]:
        await writer.open()
    items = [writer.item(bytes(15_000_000)) for writer in writers]
    answers = await backend.store.append(items)
    assert [isinstance(answer, StreamHubError) for answer in answers] == [False] * 4 + [True]
    for writer in writers[:4]:
        assert (await described(backend.store, writer.key)).size_bytes == 15_000_000


async def test_what_the_server_refuses_of_one_append_does_not_fail_the_others(
    harness: PostgresHarness, backend: PostgresBackend
) -> None:
    good, bad = Writer(backend.store, harness.unique_key()), Writer(backend.store, harness.unique_key())
    for writer in (good, bad):
        await writer.open()
    async with harness.admin() as admin:
        await admin.execute(
            f'ALTER TABLE "{harness.schema}".record ADD CONSTRAINT picky CHECK (octet_length(chunks) <> 9)'
        )
    first, second = await backend.store.append([bad.item(b"refuse"), good.item(b"a")])
    assert isinstance(first, StreamHubError)
    assert "picky" in str(first)
    assert not isinstance(second, StreamHubError)
    assert (await described(backend.store, bad.key)).tail == 0
    assert await read_all(backend.store, good.key) == [b"a"]


async def test_trimming_counts_every_chunk(harness: PostgresHarness, backend: PostgresBackend) -> None:
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
    # Rows of which nothing counts are gone.
    assert await harness.count("record") <= len(kept)


async def test_writers_that_trim_at_once_agree(harness: PostgresHarness) -> None:
    stores = [(await harness.make()).store for _ in range(4)]
    writer = Writer(stores[0], harness.unique_key(), retention=Retention(max_chunks=5, overflow="trim"))
    await writer.open(attended=False)

    async def write(number: int) -> None:
        own = Writer(stores[number], writer.key)
        own.generation, own.tail = writer.generation, 0
        for turn in range(25):
            while True:
                try:
                    await own.append(b"%d-%d" % (number, turn), b"x" * turn)
                    break
                except OffsetConflictError as exc:
                    own.tail = exc.tail

    await soon(asyncio.gather(*map(write, range(4))))
    info = await described(stores[0], writer.key)
    kept = await read_all(stores[0], writer.key, info.first - 1)
    assert (info.tail, info.first, info.size_bytes) == (200, 196, sum(map(len, kept)))


# --- numbers and texts


async def test_generations_of_63_bits_are_exact(harness: PostgresHarness, backend: PostgresBackend) -> None:
    key = harness.unique_key()
    first, second = Writer(backend.store, key), Writer(backend.store, key)
    await first.open(HUGE)
    await first.append(b"a")
    info = await second.open(HUGE + 1, resume=True)
    assert info.spans == (Span(HUGE, 1), Span(HUGE + 1, 2))
    assert (await second.append(b"b")).tail == 2
    lease = await backend.leases.acquire(key, owner="o", run="r", ttl_seconds=9, above=HUGE)
    assert lease.generation == HUGE + 1
    with pytest.raises(LeaseHeldError) as caught:
        await backend.leases.acquire(key, owner="p", run="r", ttl_seconds=9)
    assert caught.value.generation == HUGE + 1


async def test_nul_survives_in_every_text(harness: PostgresHarness, backend: PostgresBackend) -> None:
    """The server's text holds no NUL."""
    key = harness.unique_key()
    end = End(state="failed", code="\0", message="a\0b 😀")
    writer = Writer(backend.store, key)
    await writer.open(metadata={"\0": "\0"})
    await writer.append(b"\0", metadata={"x": "\0\ud7ff"}, end=end)
    page = await read(backend.store, key)
    assert (page.end, page.metadata, page.chunks) == (end, {"x": "\0\ud7ff"}, (b"\0",))
    await backend.cancels.request(key, "r", reason="\0", requested_by="a\0", ttl_seconds=9)
    assert await backend.cancels.pending([RunRef(key, "r")]) == [CancelRequest(key, "r", "\0", "a\0")]


async def test_generations_grow_though_the_clock_goes_back_and_the_lease_is_gone(
    harness: PostgresHarness, backend: PostgresBackend
) -> None:
    """The row of a lease is removed: the highest generation of those is kept."""
    key = harness.unique_key()
    ahead = 4_000_000_000_000
    lease = await backend.leases.acquire(key, owner="o", run="r", ttl_seconds=9, above=ahead)
    await backend.leases.release(lease)

    async def swept() -> int:
        await backend.store.sweep(10)
        return await harness.count("lease")

    await eventually(swept, lambda left: left == 0)
    # Seen from there, the clock is behind.
    assert (await backend.leases.acquire(key, owner="p", run="r", ttl_seconds=9)).generation == lease.generation + 1


# --- formats


async def test_formats_of_a_later_release_are_refused(harness: PostgresHarness, backend: PostgresBackend) -> None:
    writer, other = Writer(backend.store, harness.unique_key()), Writer(backend.store, harness.unique_key())
    for each in (writer, other):
        await each.open()
        await each.append(b"a")
    await backend.cancels.request(writer.key, "r", reason=None, requested_by=None, ttl_seconds=60)
    async with harness.admin() as admin:
        await admin.execute(f'UPDATE "{harness.schema}".stream SET format = 2 WHERE key = $1', writer.key)
        await admin.execute(f"""UPDATE "{harness.schema}".request SET said = '{{"v": 2}}'""")
    for call in (
        lambda: described(backend.store, writer.key),
        lambda: read(backend.store, writer.key),
        lambda: writer.append(b"b"),
        lambda: Writer(backend.store, writer.key).open(),
        lambda: backend.cancels.pending([RunRef(writer.key, "r")]),
    ):
        with pytest.raises(UnsupportedFormatError):
            await call()
    assert not await backend.store.delete(writer.key)
    assert (await other.append(b"b")).tail == 2
    first, second = await backend.store.read([Read(writer.key, 0), Read(other.key, 0)])
    assert isinstance(first, UnsupportedFormatError)
    assert not isinstance(second, StreamHubError)
    async with harness.admin() as admin:
        await admin.execute(f"UPDATE \"{harness.schema}\".record SET chunks = '\\x0201'")
    with pytest.raises(UnsupportedFormatError):
        await read(backend.store, other.key)


def test_heads_of_a_later_release_lead_to_a_read() -> None:
    assert read_append("k", "7,0,1,AQEBYQ==,") == Append("k", 7, 1, (b"a",), b"")
    later = ("7,0,1,AgEBYQ==,", "7,0,2,AQEBYQ==,", "7,0,1,AQEBYQ==,eyJ2IjogOX0=")
    strange = (
        "",
        "7,0,1",
        "x,0,1,AQEBYQ==,",
        "7,0,1,é,",
        "7,0,1,AQEBYQ==,,",
        "7,0,1,AQEBYQ==,e30=",
    )
    for facts in (*later, *strange):
        assert read_append("k", facts) is None
    ref = RunRef("k", "r")
    request = CancelRequest("k", "r", "x" * 9000, None)
    assert write_request(ref, write_said(request)).endswith(",")
    assert read_request(ref, "") is None
    small = write_request(ref, write_said(CancelRequest("k", "r", "\0", None)))
    assert read_request(ref, small.rpartition(",")[2]) == CancelRequest("k", "r", "\0", None)
    assert read_request(ref, "!") is None


async def test_an_inbox_that_is_full_is_summed_up() -> None:
    inbox: Inbox[Change] = Inbox(Change(None))
    for number in range(MAX_ITEMS + 3):
        inbox.put(Change(f"{number}"))
    assert [(await anext(inbox)).key for _ in range(3)] == [None, f"{MAX_ITEMS + 1}", f"{MAX_ITEMS + 2}"]


# --- what notifications carry


async def notified(harness: PostgresHarness, backend: PostgresBackend, *items: Append) -> list[str]:
    """Append in one flush; return the heads that were notified."""
    heads: list[str] = []
    async with harness.admin() as admin:
        channel = await admin.fetchval(f'SELECT name FROM "{harness.schema}".channel')
        await admin.add_listener(channel, lambda _driver, _pid, _channel, payload: heads.append(payload))
        await backend.store.append(items)
        # Notifications come in the order of commits.
        await admin.execute(f"NOTIFY {channel}, 'over'")
        await eventually(_last(heads), lambda last: last == "over")
    assert all(len(payload) < 8000 for payload in heads)
    assert all(payload.startswith("1 ") for payload in heads[:-1])
    return [head for payload in heads[:-1] for head in payload[2:].split(" ")]


def _last(heads: list[str]) -> Any:
    async def last() -> str | None:
        return heads[-1] if heads else None

    return last


async def test_a_refused_append_is_not_notified(harness: PostgresHarness, backend: PostgresBackend) -> None:
    stale, good = Writer(backend.store, harness.unique_key()), Writer(backend.store, harness.unique_key())
    for writer in (stale, good):
        await writer.open()
    await Writer(backend.store, stale.key).open(resume=True)
    heads = await notified(harness, backend, stale.item(b"never"), good.item(b"a"))
    (head,) = heads
    assert head.startswith(f"a{stream_topic(good.key)},")
    assert read_append(good.key, head.partition(",")[2]) == Append(good.key, good.generation, 1, (b"a",), b"")


async def test_large_flushes_are_notified_in_parts(harness: PostgresHarness, backend: PostgresBackend) -> None:
    writers = [Writer(backend.store, harness.unique_key()) for _ in range(300)]
    for writer in writers:
        await writer.open()
    heads = await notified(
        harness,
        backend,
        *(writer.item(bytes(number * 5), end=COMPLETED) for number, writer in enumerate(writers)),
    )
    assert {head[1:].partition(",")[0] for head in heads} == {stream_topic(writer.key) for writer in writers}
    assert {head[0] for head in heads} == {"a", "d"}
    assert sum(head.startswith("a") for head in heads) > 90


# --- HOT


async def test_appends_and_renewals_are_hot(harness: PostgresHarness) -> None:
    """One update of one row for each stream and flush; no index is touched."""
    async with PostgresHarness(harness.server, options="notify=off") as alone:
        backend = await alone.connect_kept()
        writers = [Writer(backend.store, alone.unique_key()) for _ in range(20)]
        leases = []
        for writer in writers:
            await writer.open()
            leases.append(await backend.leases.acquire(writer.key, owner="o", run="run-1", ttl_seconds=60))
        before = await statistics(alone)
        for number in range(100):
            await backend.store.append([writer.item(b"%d" % number) for writer in writers])
            for writer in writers:
                writer.tail += 1
            await backend.leases.renew(leases)
            await backend.store.describe([writer.key for writer in writers], touch=True)
        for table, count in (("stream", 4000), ("lease", 2000)):

            async def updates(table: str = table) -> tuple[int, int]:
                updated, hot = (await statistics(alone))[table]
                return updated - before[table][0], hot - before[table][1]

            updated, hot = await eventually(updates, lambda found, count=count: found[0] >= count)
            assert updated == count
            # The first ones fill the page, until it is pruned.
            assert hot >= 0.95 * updated


async def statistics(harness: PostgresHarness) -> dict[str, tuple[int, int]]:
    async with harness.admin() as admin:
        rows = await admin.fetch(
            "SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = $1", harness.schema
        )
    return {name: (updated, hot) for name, updated, hot in rows}


# --- housekeeping


async def test_many_sweep_at_once_and_each_thing_goes_once(harness: PostgresHarness) -> None:
    backends = [await harness.connect_kept() for _ in range(6)]
    short = Retention(unfinished_seconds=2.0, ended_seconds=2.0, fence_seconds=0.05)
    for number in range(60):
        writer = Writer(backends[0].store, harness.unique_key(), retention=short)
        await writer.open()
        await writer.append(*[b"x"] * number)
    living = Writer(backends[0].store, harness.unique_key())
    await living.open()
    await living.append(b"a")
    removed = 0

    async def sweep() -> int:
        nonlocal removed
        removed += sum(await asyncio.gather(*(backend.store.sweep(7) for backend in backends)))
        return await harness.leftovers()

    # The living one has a row, and a record.
    await eventually(sweep, lambda left: left == 2)
    # Each was made a fence, and the fence removed, unless both were over at once.
    assert 60 <= removed <= 120
    assert await read_all(backends[0].store, living.key) == [b"a"]


async def test_a_large_content_goes_in_bounded_steps(harness: PostgresHarness, backend: PostgresBackend) -> None:
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    async with harness.admin() as admin:
        await admin.execute(
            f'INSERT INTO "{harness.schema}".record (content, last, first, nonce, chunks)'
            f" SELECT content, n, n, 'n', '\\x010161' FROM \"{harness.schema}\".stream, generate_series(1, 20000) AS n"
        )
    assert await backend.store.delete(writer.key)
    longest = 0
    collect = backend.store._sweeper._garbage
    async with harness.admin() as admin:
        while True:
            seen, gone = await admin.fetchrow(collect, 20, 250)
            longest = max(longest, gone)
            if not seen:
                break
    assert longest == 250
    assert await harness.count("record") == await harness.count("garbage") == 0


async def test_a_resumed_run_keeps_its_records_and_a_replaced_one_does_not(
    harness: PostgresHarness, backend: PostgresBackend
) -> None:
    key = harness.unique_key()
    for generation, resume in ((7, False), (8, True), (9, True)):
        writer = Writer(backend.store, key)
        await writer.open(generation, resume=resume)
        await writer.append(b"%d" % generation)
        await backend.store.sweep(10)
        await backend.store.sweep(10)
    assert await read_all(backend.store, key) == [b"7", b"8", b"9"]
    await Writer(backend.store, key, run="another").open()
    await backend.store.sweep(10)
    assert await harness.count("record") == await harness.count("garbage") == 0


async def test_a_hub_leaves_nothing_behind(harness: PostgresHarness) -> None:
    hub = await harness.hub(ended_seconds=0.1, fence_seconds=0.1)
    for _ in range(3):
        await produce_all(hub, harness.unique_key(), [b"a"] * 50)

    async def swept() -> int:
        await hub.store.sweep(100)
        return await harness.leftovers()

    await eventually(swept, lambda left: left == 0)


# --- what people see


async def test_the_view_shows_streams_to_people(harness: PostgresHarness) -> None:
    hub = await harness.hub()
    key = harness.unique_key()
    async with hub.produce(key, run="run-9", metadata={"a": 1}) as producer:
        await producer.send(b"abc")
        await producer.flush()
        async with harness.admin() as admin:
            row = await admin.fetchrow(f'SELECT * FROM "{harness.schema}".streams WHERE key = $1', key)
    assert (row["run"], row["state"], row["tail"], row["size_bytes"], row["holder"]) == ("run-9", "open", 1, 3, "run-9")
    assert row["expires_in"] > 0
    assert row["lease_in"] > 0


async def test_about_tells_what_was_bought(harness: PostgresHarness, backend: PostgresBackend) -> None:
    facts = await backend.about()
    assert re.fullmatch(r"PostgreSQL 18\..+", facts["version"])
    assert facts["durability"].startswith("fsync off: WARNING")
    assert facts["pooler"] == "none"
    assert facts["schema"] == harness.schema
    async with backend.store.changes():
        await eventually(backend.about, lambda told: told["notifications"] == "heard")
    assert "s3cret" not in " ".join(facts.values())


async def test_relaxed_durability_does_not_wait_for_the_disk(server: PostgresServer) -> None:
    """An append is acknowledged before its log is flushed; opens and leases are not."""
    with started(server.path, config=[*QUICK, "wal_writer_delay = 10s", "autovacuum = off"]) as lazy:
        async with PostgresHarness(lazy, options="durability=relaxed&notify=off") as harness:
            backend = await harness.connect_kept()
            assert (await backend.about())["durability"].startswith("fsync off")
            writer = Writer(backend.store, harness.unique_key())
            async with harness.admin() as admin:

                async def unflushed() -> bool:
                    return await admin.fetchval("SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()")

                await writer.open()
                assert not await unflushed()
                await writer.append(b"a")
                assert await unflushed()
                await backend.leases.acquire(writer.key, owner="o", run="r", ttl_seconds=9)
                assert not await unflushed()
                async with connected((harness.url or "").replace("relaxed", "full")) as full:
                    own = Writer(full.store, harness.unique_key())
                    await own.open()
                    await own.append(b"a")
                    assert not await unflushed()


async def test_a_process_needs_four_connections_at_most(harness: PostgresHarness) -> None:
    harness.url = f"{harness.url}&application_name={harness.token}"
    hub = await harness.hub()
    keys = [harness.unique_key() for _ in range(20)]
    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(produce_all(hub, key, [b"a"] * 20, flush_each=True))
            group.create_task(collect_all(hub, key))
    async with harness.admin() as admin:
        rows = await admin.fetch(
            "SELECT application_name, count(*) FROM pg_stat_activity"
            " WHERE starts_with(application_name, $1) GROUP BY application_name",
            harness.token,
        )
    assert dict(rows) == {harness.token: 3, f"{harness.token} listening": 1}


async def collect_all(hub: Any, key: str) -> None:
    async with hub.subscribe(key, wait=20) as subscription:
        assert [chunk.data async for chunk in subscription] == [b"a"] * 20


def test_tables_are_the_schemas() -> None:
    script = PostgresBackend.setup_sql("x")
    made = set(re.findall(r'CREATE TABLE (?:IF NOT EXISTS )?"x"\.(\w+)', script))
    assert made == {*TABLES, "migration", "counter", "channel"}


async def test_a_look_that_is_refused_ends_the_feed(server: PostgresServer) -> None:
    """What looks instead of listening is not allowed to read any more: nobody is left waiting."""
    async with PostgresHarness(server, options="notify=off") as harness:
        backend = await harness.connect_kept()
        async with backend.store.changes() as feed, asyncio.timeout(20):
            await feed.follow(harness.unique_key())
            hints = aiter(feed)
            async with harness.admin() as admin:
                await admin.execute(f'REVOKE SELECT ON "{harness.schema}".stream FROM streamhub_app')
            with pytest.raises(BackendUnavailableError, match="permission denied"):
                while True:
                    await anext(hints)


async def test_a_queue_of_notifications_that_is_full_is_an_outage(server: PostgresServer) -> None:
    """Somebody listens inside a transaction that does not end: the queue cannot be emptied."""
    with started(server.path, config=[*QUICK, "max_notify_queue_pages = 64"]) as narrow:
        async with PostgresHarness(narrow) as harness:
            backend = await harness.connect_kept()
            writer = Writer(backend.store, harness.unique_key())
            await writer.open()
            async with harness.admin() as stranger:
                await stranger.execute("LISTEN anything")
                transaction = stranger.transaction()
                await transaction.start()
                await stranger.execute("SELECT 1")
                with pytest.raises(BackendUnavailableError, match="queue of notifications"):
                    for _ in range(3000):
                        item = writer.item(b"x" * 400)
                        await writer.put(item)
                await transaction.rollback()

            async def stored() -> bool:
                with contextlib.suppress(BackendUnavailableError):
                    return (await append(backend.store, item)).tail == item.last
                return False

            # By itself the server would not see that the listener has gone.
            await eventually(stored)
            assert (await described(backend.store, writer.key)).tail == item.last


async def test_listing_many_keys_reads_each_once(harness: PostgresHarness, backend: PostgresBackend) -> None:
    async with harness.admin() as admin:
        writer = Writer(backend.store, "a model")
        await writer.open()
        await admin.execute(
            f"""
            INSERT INTO "{harness.schema}".stream
            SELECT (jsonb_populate_record(s, jsonb_build_object('key', 'key ' || lpad(n::text, 5, '0')))).*
            FROM "{harness.schema}".stream AS s, generate_series(1, 3500) AS n WHERE s.key = 'a model'
            """
        )
        reads = "SELECT idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'stream' AND schemaname = $1"
        before = await admin.fetchval(reads, harness.schema)
        assert [key async for key in backend.store.keys("key ")] == [f"key {n:05}" for n in range(1, 3501)]
        assert [key async for key in backend.store.keys("key 02")] == [f"key {n:05}" for n in range(2000, 3000)]
        assert [key async for key in backend.store.keys("nothing")] == []
        after = await eventually(lambda: admin.fetchval(reads, harness.schema), lambda n: n >= before + 4500)
        assert after <= before + 3500 + 2000 + 1000


async def test_statements_are_parsed_and_planned_once(harness: PostgresHarness, backend: PostgresBackend) -> None:
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    for number in range(20):
        await writer.append(b"%d" % number)
    session = backend._session
    counts = "SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements WHERE name LIKE 'streamhub_%'"
    rows = await session.run(session.appending, lambda wire: wire.driver.fetch(counts))
    assert [(statement, generic, custom) for statement, generic, custom in rows] == [
        (backend.store._appender._append, 20, 0)
    ]
    # And every table is entered by an index, though this one has a single row.
    explain = f"EXPLAIN {backend.store._queries['find']}"
    plan = await session.run(session.appending, lambda wire: wire.driver.fetch(explain, [writer.key]))
    assert not any("Seq Scan" in line for (line,) in plan)


def test_portions_of_a_flush_are_bounded_and_complete() -> None:
    batch = [Append(f"k{number}", 1, 1, (bytes(5_000_000),), b"n") for number in range(20)]
    portions = list(_portions(batch, list(reversed(range(20)))))
    assert [place for portion in portions for place in portion] == list(reversed(range(20)))
    assert {len(portion) for portion in portions} == {6, 2}
    assert list(_portions([Append("k", 1, 1, (bytes(40_000_000),), b"n")], [0])) == [[0]]
