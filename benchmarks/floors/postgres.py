"""The floor of ``postgresql://``: one table, the bare driver, one INSERT and one NOTIFY a flush, and the same framing.

It notifies heads only, as is usual: who hears them reads what is new. Its baselines are what is often written by hand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from statistics import median
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from benchmarks.floors.floor import Floor
from benchmarks.load import CHUNK, Flushes, Load, age_ns, freeze_heap, pace
from benchmarks.peers import Caller, start_process
from streamhub.records import pack_chunks, unpack_chunks

_INSERT = """
WITH item AS (SELECT * FROM unnest($2::bigint[], $3::bigint[], $4::bytea[]) AS i (stream, first, chunks)),
kept AS (INSERT INTO {table} (stream, first, chunks) SELECT stream, first, chunks FROM item)
SELECT pg_notify($1, string_agg(stream || ':' || first, ',')) FROM item
"""
_READ = """
SELECT w.stream, r.first, r.chunks FROM unnest($1::bigint[], $2::bigint[]) AS w (stream, after)
CROSS JOIN LATERAL (
    SELECT first, chunks FROM {table} WHERE stream = w.stream AND first > w.after ORDER BY first LIMIT 1000
) AS r
"""
_POOL = 16
_PRODUCERS = 64


class PostgresFloor(Floor):
    @property
    def _url(self) -> str:
        # Without the backend's own options.
        return urlunsplit(urlsplit(self.place.url)._replace(query=""))

    @asynccontextmanager
    async def _table(self, name: str) -> AsyncGenerator[tuple[Any, str]]:
        connection = await asyncpg.connect(self._url)
        table = f"streamhub_floor_{name}_{time.monotonic_ns()}"
        await connection.execute(
            f"CREATE TABLE {table} (stream bigint, first bigint, chunks bytea, PRIMARY KEY (stream, first))"
        )
        try:
            yield connection, table
        finally:
            await connection.execute(f"DROP TABLE {table}")
            await connection.close()

    async def write_seconds(self, flushes: Flushes) -> float:
        async with self._table("write") as (connection, table):
            return await _write(connection, table, flushes)

    async def replay_seconds(self, flushes: Flushes, *, readers: int, times: int) -> float:
        async with self._table("replay") as (connection, table):
            await _write(connection, table, flushes)
            total = sum(map(sum, flushes))
            taken: list[float] = []
            for _ in range(times):
                begin = time.perf_counter()
                for _ in range(readers):
                    rows = await connection.fetch(f"SELECT chunks FROM {table} ORDER BY stream, first")
                    assert sum(len(unpack_chunks(packed)) for (packed,) in rows) == total
                taken.append(time.perf_counter() - begin)
            return median(taken)

    async def latencies_ns(self, load: Load) -> Sequence[int]:
        async with self._table("latency") as (_, table):
            facts = {
                "url": self._url,
                "table": table,
                "streams": load.streams,
                "rate": load.rate,
                "seconds": load.seconds,
                "warmup_seconds": load.warmup_seconds,
            }
            async with (
                start_process("benchmarks.floors.postgres:receive", **facts) as receiver,
                start_process("benchmarks.floors.postgres:publish", **facts) as publisher,
            ):
                await receiver.hear("listening")
                await publisher.say("go")
                latencies = await receiver.hear("latencies")
                await publisher.say("received")
                return latencies

    async def baselines(self, chunks: int) -> dict[str, float]:
        async with self._table("pool") as (_, table):
            pool = await asyncpg.create_pool(self._url, min_size=_POOL, max_size=_POOL)
            insert = f"INSERT INTO {table} (stream, first, chunks) VALUES ($1, $2, $3)"
            each = chunks // _PRODUCERS

            async def produce(stream: int) -> None:
                for first in range(1, each + 1):
                    async with pool.acquire() as connection, connection.transaction():
                        await connection.execute(insert, stream, first, CHUNK)
                        await connection.execute("SELECT pg_notify($1, $2)", table, f"{stream}:{first}")

            begin = time.perf_counter()
            await asyncio.gather(*map(produce, range(_PRODUCERS)))
            seconds = time.perf_counter() - begin
            await pool.close()
        name = f"one INSERT and NOTIFY a chunk, {_PRODUCERS} producers through a pool of {_POOL}"
        return {name: each * _PRODUCERS / seconds}


async def _write(connection: Any, table: str, flushes: Flushes) -> float:
    statement = await connection.prepare(_INSERT.format(table=table))
    first = 1
    begin = time.perf_counter()
    for counts in flushes:
        streams = list(range(len(counts)))
        firsts: list[int] = []
        for count in counts:
            firsts.append(first)
            first += count
        await statement.fetch(table, streams, firsts, [pack_chunks([CHUNK] * count) for count in counts])
    return time.perf_counter() - begin


async def publish(caller: Caller, *, url: str, table: str, **facts: float) -> None:
    """Role: insert what has come since the last insert, and notify where."""
    load = Load(**facts)  # pyright: ignore[reportArgumentType]
    connection = await asyncpg.connect(url)
    statement = await connection.prepare(_INSERT.format(table=table))
    waiting: dict[int, list[bytes]] = {}
    tails = [0] * load.streams
    arrived = asyncio.Event()

    async def send(stream: int, chunk: bytes) -> None:
        waiting.setdefault(stream, []).append(chunk)
        arrived.set()

    async def flush() -> None:
        while True:
            await arrived.wait()
            arrived.clear()
            items, firsts = dict(waiting), []
            waiting.clear()
            for stream, chunks in items.items():
                firsts.append(tails[stream] + 1)
                tails[stream] += len(chunks)
            await statement.fetch(table, list(items), firsts, [pack_chunks(chunks) for chunks in items.values()])

    freeze_heap()
    await caller.hear("go")
    flusher = asyncio.create_task(flush())
    await pace(load, send)
    await caller.hear("received")
    flusher.cancel()
    await connection.close()


async def receive(caller: Caller, *, url: str, table: str, **facts: float) -> None:
    """Role: hear where something is new, and read it."""
    load = Load(**facts)  # pyright: ignore[reportArgumentType]
    ear, connection = await asyncpg.connect(url), await asyncpg.connect(url)
    statement = await connection.prepare(_READ.format(table=table))
    dirty: set[int] = set()
    arrived = asyncio.Event()

    def heard(_connection: object, _pid: int, _channel: str, payload: str) -> None:
        dirty.update(int(head.partition(":")[0]) for head in payload.split(","))
        arrived.set()

    await ear.add_listener(table, heard)
    freeze_heap()
    await caller.say("listening")
    after = dict.fromkeys(range(load.streams), 0)
    ages: list[int | None] = []
    while len(ages) < load.streams * load.chunks:
        await arrived.wait()
        arrived.clear()
        streams = list(dirty)
        dirty.clear()
        read = await statement.fetch(streams, [after[stream] for stream in streams])
        for stream, first, packed in read:
            chunks = unpack_chunks(packed)
            ages += map(age_ns, chunks)
            after[stream] = first + len(chunks) - 1
    await ear.close()
    await connection.close()
    await caller.say("latencies", [age for age in ages if age is not None])
