"""What many days of traffic leave behind in PostgreSQL, and what a transaction does that somebody leaves open."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import servers
from postgres_servers import QUICK, started
from postgres_support import PostgresHarness
from streamhub_postgres import PostgresBackend

from streamhub.conformance.writer import Writer
from streamhub.types import COMPLETED, Lease, Retention

STREAMS, APPENDS, DAYS = 60, 10, 8
SIZES = """
SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind = 'r' AND relnamespace = $1::regnamespace
"""
SHORT = Retention(unfinished_seconds=60.0, ended_seconds=60.0, fence_seconds=60.0)


@pytest.fixture
async def harness() -> AsyncIterator[PostgresHarness]:
    """A server that no other test's transactions keep from cleaning up."""
    with started(servers.postgres_binaries("18"), config=[*QUICK, "autovacuum = off"]) as server:
        async with PostgresHarness(server) as harness:
            yield harness


async def live_a_day(harness: PostgresHarness, backend: PostgresBackend, day: int) -> None:
    """Produce, renew and end many streams, then let their time pass, and sweep."""
    writers = [Writer(backend.store, f"stream {day} {number}", retention=SHORT) for number in range(STREAMS)]
    leases: list[Lease] = []
    for writer in writers:
        await writer.open(metadata={"day": day})
        leases.append(await backend.leases.acquire(writer.key, owner="o", run="run-1", ttl_seconds=60))
    for _ in range(APPENDS):
        await backend.store.append([writer.item(b"a token of 20 bytes " * 10) for writer in writers])
        for writer in writers:
            writer.tail += 1
        await backend.leases.renew(leases)
    await backend.store.append([writer.item(end=COMPLETED) for writer in writers])
    async with harness.admin() as admin:
        for table, column in (("stream", "expires_at"), ("lease", "expires_at")):
            await admin.execute(
                f"UPDATE \"{harness.schema}\".{table} SET {column} = now() - interval '1 day',"
                " due_at = now() - interval '1 day'"
            )
        await backend.store.sweep(1000)
        # What autovacuum does, at the moment when it would.
        for table in ("stream", "record", "garbage", "lease", "request", "counter"):
            await admin.execute(f'VACUUM "{harness.schema}".{table}')


async def size(harness: PostgresHarness) -> int:
    async with harness.admin() as admin:
        return await admin.fetchval(SIZES, f'"{harness.schema}"')


async def test_tables_and_indexes_do_not_grow_from_day_to_day(harness: PostgresHarness) -> None:
    backend = await harness.connect_kept()
    sizes: list[int] = []
    for day in range(DAYS):
        await live_a_day(harness, backend, day)
        assert await harness.leftovers() == 0
        sizes.append(await size(harness))
    print(sizes)
    assert max(sizes[2:]) <= 1.5 * sizes[1], sizes


async def test_an_open_stream_costs_no_space_but_its_records(harness: PostgresHarness) -> None:
    """Its row is written anew for each append, in place: no vacuum is needed, unless a transaction stays open."""
    backend = await harness.connect_kept()
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()

    async def grow(appends: int) -> int:
        for _ in range(appends):
            await writer.append(b"x")
        async with harness.admin() as admin:
            return await admin.fetchval(f"SELECT pg_table_size('\"{harness.schema}\".stream')")

    before = await grow(200)
    assert await grow(1000) == before
    async with harness.admin() as stranger:
        transaction = stranger.transaction(isolation="repeatable_read")
        await transaction.start()
        await stranger.execute("SELECT 1 FROM pg_class LIMIT 1")
        with_stranger = await grow(1000)
        assert with_stranger > 10 * before
        await transaction.rollback()
    # The space is found again once it has ended.
    async with harness.admin() as admin:
        await admin.execute(f'VACUUM "{harness.schema}".stream')
    assert await grow(500) <= with_stranger + 16_384  # the map of what is free
    print(f"{before} bytes, {with_stranger} with a transaction left open")
