"""What happens to the file, and what callers are told of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlite_support import Connect, append_of, connections, open_run, query
from streamhub_sqlite import SqliteBackend, SqliteOptions, contents
from streamhub_sqlite.clock import HostClock
from streamhub_sqlite.transaction import Writing

from streamhub.conformance.waiting import settle
from streamhub.errors import BackendUnavailableError, ConfigError, StaleGenerationError
from streamhub.types import COMPLETED, Append, Appended, Lease, Read, Retention, RunRef


@contextlib.contextmanager
def locked(path: Path) -> Any:
    """Hold the write lock, as a process would that is stopped inside a transaction."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def in_writer(backend: SqliteBackend, operation: Callable[[Writing], Any]) -> Any:
    return await backend._database.write(operation)  # pyright: ignore[reportPrivateUsage]


LEASE = Lease("k", 1, "o", "r", 1.0)
CALLS: dict[str, Callable[[SqliteBackend], Coroutine[Any, Any, Any]]] = {
    "ping": lambda backend: backend.ping(),
    "open": lambda backend: backend.store.open(
        "k", 1, owner="o", run="r", expect=None, resume=False, retention=Retention()
    ),
    "append": lambda backend: backend.store.append([Append("k", 1, 1, (b"x",), b"n")]),
    "read": lambda backend: backend.store.read([Read("k", 0)]),
    "describe": lambda backend: backend.store.describe(["k"]),
    "touch": lambda backend: backend.store.describe(["k"], touch=True),
    "delete": lambda backend: backend.store.delete("k"),
    "sweep": lambda backend: backend.store.sweep(1),
    "acquire": lambda backend: backend.leases.acquire("k", owner="o", run="r", ttl_seconds=1),
    "renew": lambda backend: backend.leases.renew([LEASE]),
    "release": lambda backend: backend.leases.release(LEASE),
    "holders": lambda backend: backend.leases.holders(["k"]),
    "request": lambda backend: backend.cancels.request("k", "r", reason=None, requested_by=None, ttl_seconds=1),
    "pending": lambda backend: backend.cancels.pending([RunRef("k", "r")]),
}


# -- Replaced or removed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["removed", "replaced"])
async def test_a_file_that_is_there_no_more_is_noticed_by_every_call(path: Path, fate: str) -> None:
    backend = SqliteBackend(f"sqlite:///{path}")
    await backend.connect()
    await open_run(backend)
    if fate == "removed":
        path.unlink()
    else:
        shutil.copy(path, path.with_name("copy"))
        path.with_name("copy").replace(path)

    for call in CALLS.values():
        with pytest.raises(BackendUnavailableError, match=f"{path.name}' was replaced or removed"):
            await call(backend)
    await backend.aclose()


@pytest.mark.parametrize("options", ["", "?nudge=off"])
async def test_feeds_raise_when_the_file_is_removed_and_cannot_be_opened_again(path: Path, options: str) -> None:
    backend = SqliteBackend(f"sqlite:///{path}{options}")
    await backend.connect()
    async with backend.store.changes() as feed, backend.cancels.requests() as requests:
        path.unlink()
        for iterated in (feed, requests):
            with pytest.raises(BackendUnavailableError, match="was replaced or removed"):
                async with asyncio.timeout(20):
                    await anext(iterated)
    with pytest.raises(BackendUnavailableError, match="was replaced or removed"):
        async with backend.store.changes():
            pass
    await backend.aclose()


async def test_feeds_of_a_file_that_came_back_can_be_opened_again(path: Path, connect: Connect) -> None:
    backend = await connect("nudge_poll_seconds=0.02")
    away = path.with_name("away")
    async with backend.store.changes() as feed:
        path.rename(away)
        with pytest.raises(BackendUnavailableError):
            async with asyncio.timeout(20):
                await anext(feed)
    away.rename(path)
    async with backend.store.changes() as feed:
        await feed.follow("k")
        await open_run(backend)
        async with asyncio.timeout(20):
            await anext(feed)


# -- The write lock ----------------------------------------------------------------------------------------------------


async def test_a_lock_that_stays_makes_writes_fail_in_time_and_lets_reads_go_on(path: Path, connect: Connect) -> None:
    backend = await connect("busy_seconds=0.3")
    info = await open_run(backend)
    append = append_of(info, 1, b"x")
    with locked(path):
        begun = time.monotonic()
        failed = await asyncio.gather(
            backend.store.append([append]),
            *(backend.store.delete(f"k{number}") for number in range(20)),
            return_exceptions=True,
        )
        took = time.monotonic() - begun
        assert all(isinstance(error, BackendUnavailableError) for error in failed)
        assert "stayed locked by another process" in str(failed[0])
        assert isinstance(failed[0].__cause__, sqlite3.OperationalError)  # pyright: ignore[reportAttributeAccessIssue]
        assert 0.2 < took < 5
        assert [page.tail for page in await backend.store.read([Read("k", 0)])] == [0]  # pyright: ignore[reportAttributeAccessIssue]
    assert await backend.store.append([append]) == [Appended(1)]


async def test_a_connection_attempt_during_a_lock_fails_in_time(path: Path, connect: Connect) -> None:
    await connect()
    with locked(path), pytest.raises(BackendUnavailableError, match="stayed locked"):
        await SqliteBackend(f"sqlite:///{path}?busy_seconds=0.2").connect()


async def test_writes_wait_for_a_lock_that_passes(path: Path, connect: Connect) -> None:
    backend = await connect()
    attempts: list[str] = []
    await in_writer(backend, lambda writing: writing.connection.set_trace_callback(attempts.append))
    with locked(path):
        waiting = asyncio.ensure_future(open_run(backend))
        async with asyncio.timeout(10):
            while attempts.count("BEGIN IMMEDIATE") < 3:
                await asyncio.sleep(0.001)
        assert not waiting.done()
    await waiting


async def test_calls_that_queue_up_share_a_transaction(path: Path, connect: Connect) -> None:
    backend = await connect()
    infos = [await open_run(backend, f"k{number}") for number in range(20)]
    statements: list[str] = []
    await in_writer(backend, lambda writing: writing.connection.set_trace_callback(statements.append))
    with locked(path):
        calls = [asyncio.ensure_future(backend.store.append([append_of(info, 1, b"x")])) for info in infos]
        await settle()
    await asyncio.gather(*calls)
    await in_writer(backend, lambda writing: writing.connection.set_trace_callback(None))
    assert statements.count("COMMIT") <= 2


async def test_a_call_that_breaks_its_transaction_harms_no_other(path: Path, connect: Connect) -> None:
    backend = await connect()
    info = await open_run(backend)

    def broken(writing: Writing) -> None:
        writing.write("DELETE FROM record")
        raise ZeroDivisionError

    def refused_late(writing: Writing) -> None:
        writing.write("DELETE FROM record")
        raise StaleGenerationError("k", generation=1, current=2)

    with locked(path):
        before = asyncio.ensure_future(backend.store.append([append_of(info, 1, b"before")]))
        breaking = [asyncio.ensure_future(in_writer(backend, each)) for each in (broken, refused_late)]
        after = asyncio.ensure_future(backend.store.append([append_of(info, 2, b"after")]))
        await settle()
    assert (await before, await after) == ([Appended(1)], [Appended(2)])
    outcomes = await asyncio.gather(*breaking, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError, StaleGenerationError]
    (page,) = await backend.store.read([Read("k", 0)])
    assert page.chunks == (b"before", b"after")


# -- The disk ----------------------------------------------------------------------------------------------------------


async def test_a_full_disk_is_told_and_survived(connect: Connect) -> None:
    backend = await connect()
    info = await open_run(backend)

    def limit(writing: Writing, pages: int) -> None:
        writing.connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()

    await in_writer(backend, lambda writing: limit(writing, 40))
    append = append_of(info, 1, b"x" * 500_000)
    with pytest.raises(BackendUnavailableError, match="full: free some space"):
        await backend.store.append([append])
    assert await backend.store.append([append_of(info, 1, b"small")]) == [Appended(1)]
    await in_writer(backend, lambda writing: limit(writing, 1_000_000))
    large = append_of(info, 2, b"x" * 500_000)
    assert await backend.store.append([large]) == [Appended(2)]


async def test_a_damaged_file_is_told_of_and_never_yields_wrong_data(path: Path) -> None:
    async with connections(path) as connect:
        backend = await connect()
        info = await open_run(backend)
        await backend.store.append([append_of(info, 1, *[os.urandom(1000) for _ in range(100)], end=COMPLETED)])
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    backend = SqliteBackend(f"sqlite:///{path}")
    with pytest.raises(BackendUnavailableError, match="malformed: restore the file from a backup"):
        await backend.connect()
    await backend.aclose()


async def test_a_file_that_was_emptied_by_hand_is_told_of(path: Path, connect: Connect) -> None:
    backend = await connect("nudge_poll_seconds=0.02")
    async with backend.store.changes() as feed:
        query(path, "DELETE FROM file")
        for call in CALLS.values():
            with pytest.raises(BackendUnavailableError, match="was emptied"):
                await call(backend)
        with pytest.raises(BackendUnavailableError, match="was emptied"):
            async with asyncio.timeout(20):
                await anext(feed)
    with pytest.raises(BackendUnavailableError, match="was emptied"):
        await SqliteBackend(f"sqlite:///{path}").connect()


async def test_a_file_system_without_shared_memory_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamhub_sqlite import connection

    pragma = connection._pragma  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(
        connection, "_pragma", lambda opened, name: "delete" if "journal" in name else pragma(opened, name)
    )
    with pytest.raises(ConfigError, match="cannot use a write-ahead log"):
        await SqliteBackend(f"sqlite:///{path}").connect()


async def test_a_sqlite_without_json_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamhub_sqlite.connection._JSON", "SELECT no_such_function()")
    with pytest.raises(ConfigError, match="built without JSON"):
        await SqliteBackend(f"sqlite:///{path}").connect()


async def test_a_sqlite_that_is_too_old_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamhub_sqlite.connection.OLDEST_SQLITE", (99, 0, 0))
    with pytest.raises(ConfigError, match=r"too old: use 99\.0\.0 or later"):
        await SqliteBackend(f"sqlite:///{path}").connect()


async def test_a_schema_that_another_process_creates_meanwhile_is_seen_whole_or_not_at_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that read the version before, and the application after it was created, refused the file."""
    from streamhub_sqlite import connection

    pragma = connection._pragma  # pyright: ignore[reportPrivateUsage]
    raced: list[str] = []

    def racing(opened: sqlite3.Connection, name: str) -> int | str:
        found = pragma(opened, name)
        if not raced:
            raced.append(name)
            with contextlib.suppress(sqlite3.OperationalError):
                connection.connect_writer(path, SqliteOptions(busy_seconds=0.2), HostClock()).close()
        return found

    monkeypatch.setattr(connection, "_pragma", racing)
    async with connections(path) as connect:
        await open_run(await connect())
    assert raced


# -- What stays small --------------------------------------------------------------------------------------------------


async def settled(path: Path, sql: str, wanted: object) -> None:
    async with asyncio.timeout(20):
        while query(path, sql) != [(wanted,)]:
            await asyncio.sleep(0.01)


async def test_discarded_chunks_are_removed_a_few_at_a_time(
    path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_COLLECT", 7)
    backend = await connect()
    for run in ("r1", "r2"):
        info = await open_run(backend, run=run, metadata={"run": run})
        for index in range(1, 31):
            await backend.store.append([append_of(info, index, b"x")])
        await backend.leases.release(Lease("k", info.generation, run, run, 15))
    await settled(path, "SELECT count(*) FROM record", 30)
    assert await backend.store.delete("k")
    await settled(path, "SELECT count(*) FROM record", 0)
    await settled(path, "SELECT count(*) FROM garbage", 0)
    assert query(path, "SELECT metadata FROM stream") == [("{}",)]


async def test_what_a_dead_process_left_to_collect_is_collected(path: Path) -> None:
    async with connections(path) as connect:
        backend = await connect()
        info = await open_run(backend)
        await backend.store.append([append_of(info, 1, b"x")])
    query(path, "INSERT INTO garbage SELECT content FROM stream")
    query(path, "UPDATE stream SET content = NULL")
    async with connections(path) as connect:
        backend = await connect()
        assert await backend.store.sweep(1) == 0
        assert query(path, "SELECT count(*) FROM record") == [(0,)]


async def test_the_log_is_emptied_when_nothing_happens(
    path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamhub_sqlite.checkpointer._QUIET_SECONDS", 0.05)
    backend = await connect()
    await open_run(backend)
    async with asyncio.timeout(20):
        while path.with_name(f"{path.name}-wal").stat().st_size:
            await asyncio.sleep(0.01)
    await open_run(backend, "k2")


async def test_sweep_stays_within_its_limit_and_looks_again_at_what_was_renewed(
    path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamhub_sqlite.retiring._SWEEP", 3)
    backend = await connect()
    retention = Retention(unfinished_seconds=100, fence_seconds=100)
    for number in range(12):
        await open_run(backend, f"k{number:02}", retention=retention)
    await backend.advance(60)
    await backend.store.describe([f"k{number:02}" for number in range(4)], touch=True)
    await backend.advance(60)

    assert await backend.store.sweep(5) == 5
    assert await backend.store.sweep(5) == 3
    assert await backend.store.sweep(5) == 0
    infos = await backend.store.describe([f"k{number:02}" for number in range(12)])
    assert [info and info.state for info in infos] == ["open"] * 4 + ["expired"] * 8
    await backend.advance(60)
    assert await backend.store.sweep(100) == 4
    await backend.advance(100)
    assert await backend.store.sweep(100) == 12
    for table in ("stream", "tail", "record", "garbage", "lease", "request"):
        assert query(path, f"SELECT count(*) FROM {table}") == [(0,)]


async def test_keys_are_listed_in_pages(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamhub_sqlite.store._KEYS_PAGE", 3)
    backend = await connect()
    names = ["a", "a\U0010ffffb", "ab", "ab%", "ab_", "abc", "abd", "b", "é"]
    for name in names:
        await open_run(backend, name)
    for prefix in ("", "a", "ab", "ab%", "b", "é", "zz"):
        found = backend.store.keys(prefix)
        assert [key async for key in found] == sorted(name for name in names if name.startswith(prefix))


async def test_one_append_of_many_streams_writes_few_statements(connect: Connect) -> None:
    backend = await connect()
    infos = [await open_run(backend, f"k{number}") for number in range(200)]
    statements: list[str] = []
    await in_writer(backend, lambda writing: writing.connection.set_trace_callback(statements.append))
    batch = [append_of(info, 1, b"x") for info in infos]
    assert await backend.store.append(batch) == [Appended(1)] * 200
    assert await backend.store.append(batch) == [Appended(1)] * 200, "again, and from the records' nonces"
    await in_writer(backend, lambda writing: writing.connection.set_trace_callback(None))
    first = statements[: statements.index("COMMIT") + 1]
    assert len(first) <= 25
