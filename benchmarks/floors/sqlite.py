"""The floor of ``sqlite://``: one table, the bare driver in one thread, the same pragmas and the same framing."""

from __future__ import annotations

import asyncio
import select
import socket
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from benchmarks.floors.floor import Floor
from benchmarks.load import CHUNK, Flushes, Load, age_ns, freeze_heap, pace
from benchmarks.peers import Caller, start_process
from streamhub.records import pack_chunks, unpack_chunks

_TABLE = "CREATE TABLE record (id INTEGER PRIMARY KEY, stream INTEGER, first INTEGER, chunks BLOB)"
_INSERT = "INSERT INTO record (stream, first, chunks) VALUES (?, ?, ?)"
_HOST = "127.0.0.1"


class SqliteFloor(Floor):
    @property
    def _synchronous(self) -> str:
        return dict(parse_qsl(urlsplit(self.place.url).query)).get("synchronous", "normal")

    def _create(self, name: str) -> sqlite3.Connection:
        path = self.place.directory / f"floor-{name}-{time.monotonic_ns()}.db"
        connection = _connect(path, self._synchronous)
        connection.execute(_TABLE)
        return connection

    async def write_seconds(self, flushes: Flushes) -> float:
        connection = self._create("write")
        begin = time.perf_counter()
        _write(connection, flushes)
        seconds = time.perf_counter() - begin
        connection.close()
        return seconds

    async def replay_seconds(self, flushes: Flushes, readers: int) -> float:
        connection = self._create("replay")
        _write(connection, flushes)
        total = sum(map(sum, flushes))
        begin = time.perf_counter()
        for _ in range(readers):
            chunks: list[bytes] = []
            for (packed,) in connection.execute("SELECT chunks FROM record ORDER BY id"):
                chunks += unpack_chunks(packed)
            assert len(chunks) == total, (len(chunks), total)
        seconds = time.perf_counter() - begin
        connection.close()
        return seconds

    async def latencies_ns(self, load: Load) -> Sequence[int]:
        connection = self._create("latency")
        path = connection.execute("PRAGMA database_list").fetchone()[2]
        connection.close()
        facts = {
            "path": path,
            "synchronous": self._synchronous,
            "streams": load.streams,
            "rate": load.rate,
            "seconds": load.seconds,
            "warmup_seconds": load.warmup_seconds,
        }
        async with (
            start_process("benchmarks.floors.sqlite:receive", **facts) as receiver,
            start_process("benchmarks.floors.sqlite:publish", **facts) as publisher,
        ):
            await publisher.say("port", await receiver.hear("port"))
            return await receiver.hear("latencies")

    async def baselines(self, chunks: int) -> dict[str, float]:
        one_each = [[1]] * chunks
        seconds = await self.write_seconds(one_each)
        connection = self._create("threads")
        begin = time.perf_counter()
        for first in range(1, chunks + 1):
            await asyncio.to_thread(_insert, connection, first)
        hopping = time.perf_counter() - begin
        connection.close()
        return {
            "one INSERT and transaction a chunk, blocking": chunks / seconds,
            "the same through asyncio.to_thread": chunks / hopping,
        }


def _connect(path: Path | str, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


def _write(connection: sqlite3.Connection, flushes: Flushes) -> None:
    first = 1
    for counts in flushes:
        connection.execute("BEGIN IMMEDIATE")
        for stream, count in enumerate(counts):
            connection.execute(_INSERT, (stream, first, pack_chunks([CHUNK] * count)))
            first += count
        connection.execute("COMMIT")


def _insert(connection: sqlite3.Connection, first: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_INSERT, (0, first, pack_chunks([CHUNK])))
    connection.execute("COMMIT")


async def publish(caller: Caller, *, path: str, synchronous: str, **load: float) -> None:
    """Role: insert each chunk in a transaction of its own, and nudge the receiver."""
    connection = _connect(path, synchronous)
    freeze_heap()
    address = (_HOST, await caller.hear("port"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nudger:

        async def send(stream: int, chunk: bytes) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_INSERT, (stream, 1, pack_chunks([chunk])))
            connection.execute("COMMIT")
            nudger.sendto(b"", address)

        await pace(Load(**load), send)  # pyright: ignore[reportArgumentType]
    connection.close()


async def receive(caller: Caller, *, path: str, synchronous: str, **load: float) -> None:
    """Role: wait for a nudge, and read what is new."""
    plan = Load(**load)  # pyright: ignore[reportArgumentType]
    connection = _connect(path, synchronous)
    ages: list[int | None] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind((_HOST, 0))
        ear.setblocking(False)
        freeze_heap()
        await caller.say("port", ear.getsockname()[1])
        seen = 0
        while seen < plan.streams * plan.chunks:
            select.select([ear], [], [], 0.1)
            try:
                while True:
                    ear.recv(1)
            except BlockingIOError:
                pass
            rows = connection.execute("SELECT id, chunks FROM record WHERE id > ? ORDER BY id", (seen,)).fetchall()
            for _, packed in rows:
                ages += map(age_ns, unpack_chunks(packed))
            seen += len(rows)
    connection.close()
    await caller.say("latencies", [age for age in ages if age is not None])
