"""``sqlite://``: what its URL may say, what its file must be, and who may use it. Conformance has the rest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlite_support import Connect, append_of, connections, open_run, query
from streamhub_sqlite import SqliteBackend, SqliteOptions
from streamhub_sqlite.options import parse_url

from streamhub.errors import ConfigError, HubClosedError, HubContextError, UnsupportedFormatError
from streamhub.protocols import Backend
from streamhub.registry import open_url
from streamhub.types import COMPLETED, Appended, Read, RunRef

AS_A_BACKEND: type[Backend] = SqliteBackend


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "streams.db"


@pytest.fixture
async def connect(path: Path) -> AsyncIterator[Connect]:
    async with connections(path) as connect:
        yield connect


# -- The URL -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://host/streams.db", "names a host"),
        ("sqlite://user:secret@host/streams.db", "names a host"),
        ("sqlite:///", "without a file name"),
        ("sqlite://", "without a file name"),
        ("sqlite:///folder/", "without a file name"),
        ("sqlite:///a%00b", "without a file name"),
        ("sqlite:///:memory:", "use memory://"),
        ("sqlite:////tmp/:memory:", "use memory://"),
        ("sqlite:///%ff.db", "percent-encoded UTF-8"),
        ("sqlite:///streams.db#part", "fragment"),
        ("redis:///streams.db", "not a sqlite URL"),
    ],
)
def test_a_url_that_names_no_file_is_refused(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        SqliteBackend(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("synchronous=off", "'normal', 'full', 'extra'"),
        ("nudge=maybe", "true or false"),
        ("nudge_poll_seconds=0", "more than 0"),
        ("busy_seconds=-1", "more than 0"),
        ("busy_seconds=nan", "more than 0"),
        ("busy_seconds=soon", "a number"),
        ("synchronus=full", "did you mean 'synchronous'"),
        ("nudge=on&nudge=off", "given twice"),
    ],
)
def test_an_option_that_is_wrong_is_refused(query: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        SqliteBackend(f"sqlite:///streams.db?{query}")


def test_options_are_read_from_the_url() -> None:
    _, options = parse_url("sqlite:///s.db?synchronous=FULL&nudge=off&nudge_poll_seconds=0.5&busy_seconds=3")
    assert options == SqliteOptions(synchronous="full", nudge=False, nudge_poll_seconds=0.5, busy_seconds=3.0)


def test_hub_settings_may_stand_beside_the_options() -> None:
    backend, settings = open_url("sqlite:///s.db?poll_seconds=2&synchronous=full")
    assert isinstance(backend, SqliteBackend)
    assert settings == {"poll_seconds": "2"}


def test_a_relative_path_is_of_the_working_directory_of_construction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, _ = parse_url("sqlite:///folder/s.db")
    monkeypatch.chdir("/")
    assert path == tmp_path / "folder/s.db"


async def test_a_path_is_percent_decoded(tmp_path: Path) -> None:
    name = "a b?c#d%é.db"
    async with connections(tmp_path / "a b%3Fc%23d%25é.db") as connect:
        await open_run(await connect())
        assert {name, f"{name}-wal", f"{name}-shm"} == {found.name for found in tmp_path.iterdir()}


def test_construction_does_no_io(path: Path) -> None:
    SqliteBackend(f"sqlite:///{path}")
    assert not path.exists()


# -- The file ----------------------------------------------------------------------------------------------------------


async def test_a_missing_directory_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist: create it first"):
        await SqliteBackend(f"sqlite:///{tmp_path}/nowhere/s.db").connect()


async def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        await SqliteBackend(f"sqlite:///{tmp_path}").connect()


async def test_a_name_that_no_file_can_have_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be a file"):
        await SqliteBackend(f"sqlite:///{tmp_path}/{'n' * 300}.db").connect()


@pytest.mark.parametrize(("refused", "says"), [("folder", "keeps its log beside"), ("file", "change its permissions")])
async def test_what_cannot_be_written_is_a_mistake_of_the_configuration(
    path: Path, monkeypatch: pytest.MonkeyPatch, refused: str, says: str
) -> None:
    path.touch()
    denied = path if refused == "file" else path.parent
    # Tests may run as root, whom no permission stops.
    monkeypatch.setattr(os, "access", lambda asked, mode: Path(asked) != denied)
    with pytest.raises(ConfigError, match=says):
        await SqliteBackend(f"sqlite:///{path}").connect()


async def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.write_text("a diary, " * 1000)
    with pytest.raises(ConfigError, match="not a SQLite database"):
        await SqliteBackend(f"sqlite:///{path}").connect()
    assert path.read_text() == "a diary, " * 1000


async def test_another_applications_database_is_left_alone(path: Path) -> None:
    query(path, "CREATE TABLE accounts (id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="belongs to another application"):
        await SqliteBackend(f"sqlite:///{path}").connect()
    assert path.read_bytes() == before


async def test_an_empty_file_becomes_a_database(path: Path, connect: Connect) -> None:
    path.touch()
    await open_run(await connect())


async def test_a_file_is_created_with_the_umask_of_the_process(path: Path, connect: Connect) -> None:
    before = os.umask(0o077)
    try:
        await open_run(await connect())
        modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {path.name: 0o600, f"{path.name}-wal": 0o600, f"{path.name}-shm": 0o600}


async def test_data_outlives_every_connection_and_the_log_is_gone(path: Path) -> None:
    async with connections(path) as connect:
        first = await connect()
        info = await open_run(first, metadata={"n": 1})
        await first.store.append([append_of(info, 1, b"a", b"b")])
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    async with connections(path) as connect:
        second = await connect()
        (page,) = await second.store.read([Read("k", 0)])
        assert (page.chunks, page.metadata) == ((b"a", b"b"), {"n": 1})


async def test_a_file_made_anew_does_not_give_old_generations_again(path: Path) -> None:
    async with connections(path) as connect:
        before = await open_run(await connect())
    path.unlink()
    async with connections(path) as connect:
        after = await open_run(await connect())
    assert after.generation > before.generation


# -- Formats of a later release ----------------------------------------------------------------------------------------


async def test_a_schema_of_a_later_release_is_refused(path: Path) -> None:
    async with connections(path) as connect:
        await open_run(await connect())
    query(path, "PRAGMA user_version = 2")
    with pytest.raises(UnsupportedFormatError, match="format version 2; this release reads 1"):
        await SqliteBackend(f"sqlite:///{path}").connect()


async def test_a_stream_of_a_later_release_is_refused_and_harms_no_other(path: Path, connect: Connect) -> None:
    backend = await connect()
    infos = [await open_run(backend, key) for key in ("new", "old")]
    query(path, "UPDATE stream SET format = 9 WHERE key = 'new'")

    answers = await backend.store.append([append_of(info, 1, b"x") for info in infos])
    assert isinstance(answers[0], UnsupportedFormatError)
    assert answers[1] == Appended(1)
    pages = await backend.store.read([Read("new", 0), Read("old", 0)])
    assert isinstance(pages[0], UnsupportedFormatError)
    assert pages[1].chunks == (b"x",)
    for refused in (backend.store.describe(["new"]), backend.store.delete("new"), open_run(backend, "new")):
        with pytest.raises(UnsupportedFormatError):
            await refused
    await backend.advance(10**9)
    assert await backend.store.sweep(10) == 1, "what cannot be read is not swept, and stops nothing"


@pytest.mark.parametrize("damage", ["chunks = X'02000000'", "chunks = X'0105'", "chunks = X''"])
async def test_a_record_of_a_later_release_is_refused(path: Path, connect: Connect, damage: str) -> None:
    backend = await connect()
    info = await open_run(backend)
    await backend.store.append([append_of(info, 1, b"a")])
    await backend.store.append([append_of(info, 2, b"b")])
    query(path, f"UPDATE record SET {damage} WHERE first = 1")

    pages = await backend.store.read([Read("k", 0), Read("k", 1)])
    assert isinstance(pages[0], UnsupportedFormatError)
    assert pages[1].chunks == (b"b",)


async def test_an_end_of_a_later_release_is_refused(path: Path, connect: Connect) -> None:
    backend = await connect()
    info = await open_run(backend)
    await backend.store.append([append_of(info, 1, end=COMPLETED)])
    query(path, """UPDATE stream SET "end" = '{"v":2,"state":"paused"}'""")

    with pytest.raises(UnsupportedFormatError):
        await backend.store.describe(["k"])
    (page,) = await backend.store.read([Read("k", 0)])
    assert isinstance(page, UnsupportedFormatError)


# -- Who may use it ----------------------------------------------------------------------------------------------------


async def test_a_backend_that_is_not_open_says_so(path: Path) -> None:
    backend = SqliteBackend(f"sqlite:///{path}")
    with pytest.raises(HubClosedError):
        await backend.ping()
    await backend.aclose()
    await backend.connect()
    await backend.ping()
    await backend.aclose()
    await backend.aclose()
    for refused in (backend.ping(), backend.store.sweep(1), backend.cancels.pending([RunRef("k", "r")])):
        with pytest.raises(HubClosedError):
            await refused
    with pytest.raises(HubClosedError):
        async with backend.store.changes():
            pass


def test_another_event_loop_is_refused(path: Path) -> None:
    backend = SqliteBackend(f"sqlite:///{path}")
    with asyncio.Runner() as mine:
        mine.run(backend.connect())
        with pytest.raises(HubContextError, match="another event loop"), asyncio.Runner() as other:
            other.run(backend.ping())
        mine.run(backend.aclose())


FORK = """
import asyncio, gc, os, sys
from streamhub.errors import HubContextError
from sqlite_support import append_of, open_run
from streamhub_sqlite import SqliteBackend

async def begin(backend):
    await backend.connect()
    async with backend.store.changes():
        return await open_run(backend)

backend = SqliteBackend(sys.argv[1])
runner = asyncio.Runner()
info = runner.run(begin(backend))
child = os.fork()
if child == 0:
    for work in (backend.ping, backend.aclose, lambda: backend.store.append([append_of(info, 1, b"child")])):
        try:
            asyncio.run(work())
        except HubContextError as exc:
            assert "after a fork" in str(exc)
        else:
            sys.exit("the child was let in")
    del backend, info
    gc.collect()
    sys.exit(0)  # an ordinary exit, that frees everything it can
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
answers = runner.run(backend.store.append([append_of(info, 1, b"parent")]))
assert os.path.exists(sys.argv[1].removeprefix("sqlite:///") + "-wal"), "the child closed its parent's connection"
print(answers)
runner.run(backend.aclose())
runner.close()
"""


async def test_a_forked_child_is_refused_and_harms_nothing(path: Path, connect: Connect) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORK), f"sqlite:///{path}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[Appended(tail=1)]"), done.stderr
    (page,) = await (await connect()).store.read([Read("k", 0)])
    assert page.chunks == (b"parent",)


# -- What it leaves ----------------------------------------------------------------------------------------------------


async def test_closing_leaves_no_thread_and_no_file_descriptor(path: Path) -> None:
    async with connections(path):
        pass
    threads, descriptors = set(threading.enumerate()), set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        async with connections(path) as connect:
            backend = await connect()
            async with backend.store.changes() as feed, backend.cancels.requests():
                await feed.follow("k")
                await open_run(backend, "k", run=f"r{_}")
                await anext(feed)
    assert set(threading.enumerate()) == threads
    assert set(os.listdir("/proc/self/fd")) == descriptors


async def test_a_connect_that_fails_leaves_nothing(path: Path) -> None:
    query(path, "CREATE TABLE accounts (id INTEGER)")
    threads, descriptors = set(threading.enumerate()), set(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError):
        await SqliteBackend(f"sqlite:///{path}").connect()
    assert set(threading.enumerate()) == threads
    assert set(os.listdir("/proc/self/fd")) == descriptors


async def test_a_backend_that_failed_to_connect_may_try_again(path: Path) -> None:
    query(path, "CREATE TABLE accounts (id INTEGER)")
    backend = SqliteBackend(f"sqlite:///{path}")
    with pytest.raises(ConfigError):
        await backend.connect()
    path.unlink()
    await backend.connect()
    await backend.ping()
    await backend.aclose()


async def test_about_says_what_is_durable(path: Path, connect: Connect) -> None:
    about = await (await connect("synchronous=full")).about()
    assert about["version"] == f"SQLite {sqlite3.sqlite_version}"
    assert about["path"] == str(path)
    assert about["journal_mode"] == "wal"
    assert about["durability"].startswith("synchronous=full: a committed append survives a power loss")


@pytest.mark.parametrize(("option", "level"), [("normal", 1), ("full", 2), ("extra", 3)])
async def test_synchronous_is_set_on_the_writing_connection(connect: Connect, option: str, level: int) -> None:
    backend = await connect(f"synchronous={option}")
    database = backend._database  # pyright: ignore[reportPrivateUsage]
    assert await database.write(lambda writing: writing.row("PRAGMA synchronous")) == (level,)


async def test_a_person_can_read_the_streams_with_the_sqlite_shell(path: Path, connect: Connect) -> None:
    backend = await connect()
    for key in ("live", "gone", "old", "done"):
        info = await open_run(backend, key)
        if key == "done":
            await backend.store.append([append_of(info, 1, b"abc", end=COMPLETED)])
        if key != "live":
            await backend.leases.release(await backend.leases.acquire(key, owner="r", run="r", ttl_seconds=1))
    await backend.store.delete("gone")
    query(path, "UPDATE tail SET expires_ms = 0 WHERE stream = (SELECT id FROM stream WHERE key = 'old')")

    rows = query(path, "SELECT key, run, state, tail, size_bytes, holder FROM streams ORDER BY key")
    assert rows == [
        ("done", "r", "ended", 1, 3, None),
        ("gone", "r", "deleted", 0, 0, None),
        ("live", "r", "open", 0, 0, "r"),
        ("old", "r", "expired", 0, 0, None),
    ]


async def test_cancelled_calls_leave_the_backend_usable(connect: Connect) -> None:
    backend = await connect()
    info = await open_run(backend)
    for index in range(1, 50):
        append = append_of(info, index, b"x")
        task = asyncio.ensure_future(backend.store.append([append]))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert await backend.store.append([append]) == [Appended(index)], "a retry finds it stored, or stores it"
