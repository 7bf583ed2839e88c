"""How one process learns of what another committed: nudges, the poll behind them, and hints that stay bounded."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlite_support import Connect, append_of, open_run, query
from streamhub_sqlite import SqliteBackend
from streamhub_sqlite.inbox import MAX_ITEMS
from streamhub_sqlite.nudge import DatagramEar, Nudger, PollingEar, open_ear
from streamhub_sqlite.reader import Reader

from streamhub.errors import BackendUnavailableError
from streamhub.types import COMPLETED, Append, CancelRequest, Change, RunRef

# No poll comes to the rescue within a test.
UNPOLLED = "nudge_poll_seconds=3600"


async def soon(feed: AsyncIterator[Change]) -> Change:
    async with asyncio.timeout(20):
        return await anext(feed)


async def until(feed: AsyncIterator[Change], wanted: Append) -> None:
    async with asyncio.timeout(20):
        async for change in feed:
            if change.append == wanted:
                return


def listeners(path: Path) -> list[int]:
    return [port for (port,) in query(path, "SELECT port FROM listener")]


async def test_a_nudge_tells_another_connection_without_a_poll(connect: Connect) -> None:
    here, there = await connect(UNPOLLED), await connect(UNPOLLED)
    async with there.store.changes() as feed, there.cancels.requests() as requests:
        await feed.follow("k")
        await requests.listen(RunRef("k", "r"))
        info = await open_run(here)
        assert await soon(feed) == Change("k")
        append = append_of(info, 1, b"a", b"b")
        await here.store.append([append])
        assert await soon(feed) == Change("k", append)
        await here.cancels.request("k", "r", reason="why", requested_by=None, ttl_seconds=60)
        async with asyncio.timeout(20):
            assert await anext(requests) == CancelRequest("k", "r", "why")
        await here.store.delete("k")
        assert await soon(feed) == Change("k")


async def test_a_process_is_told_of_its_own_commits_once(connect: Connect) -> None:
    here = await connect("nudge_poll_seconds=0.01")
    other = await connect()
    async with here.store.changes() as feed:
        await feed.follow("k")
        await feed.follow("last")
        info = await open_run(here)
        appends = [append_of(info, index, b"x") for index in range(1, 20)]
        for append in appends:
            await here.store.append([append])
        # Another process's commit is told by the watching thread, which has seen all of the above by then.
        await open_run(other, "last")
        told = [await soon(feed) for _ in range(21)]
    assert told == [Change("k"), *[Change("k", append) for append in appends], Change("last")]


@pytest.mark.parametrize("options", ["nudge=off&nudge_poll_seconds=0.02", "nudge_poll_seconds=0.02"])
async def test_a_lost_nudge_costs_a_poll(connect: Connect, monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setattr(Nudger, "send", lambda self: None)
    here, there = await connect(options), await connect(options)
    async with there.store.changes() as feed:
        await feed.follow("k")
        info = await open_run(here)
        append = append_of(info, 1, b"a", end=COMPLETED)
        await here.store.append([append])
        await until(feed, append)


async def test_without_nudges_no_port_is_bound_or_registered(path: Path, connect: Connect) -> None:
    backend = await connect("nudge=off")
    async with backend.store.changes():
        assert listeners(path) == []


async def test_a_port_that_cannot_be_bound_leaves_the_poll(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: DatagramEar) -> None:
        raise OSError("no loopback interface")

    monkeypatch.setattr(DatagramEar, "__init__", refuse)
    assert isinstance(open_ear(nudge=True), PollingEar)
    here, there = await connect(), await connect("nudge_poll_seconds=0.02")
    async with there.store.changes() as feed:
        await feed.follow("k")
        await open_run(here)
        assert await soon(feed) == Change("k")


async def test_a_listener_is_registered_once_and_removed_at_close(path: Path, connect: Connect) -> None:
    backend = SqliteBackend(f"sqlite:///{path}")
    await backend.connect()
    for _ in range(3):
        async with backend.store.changes(), backend.cancels.requests():
            assert len(listeners(path)) == 1
    await backend.aclose()
    await connect()
    assert listeners(path) == []


async def test_a_dead_listener_is_harmless_and_swept(path: Path, connect: Connect) -> None:
    here, there = await connect(UNPOLLED), await connect(UNPOLLED)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    async with there.store.changes() as feed:
        await feed.follow("k")
        query(path, "INSERT INTO listener SELECT 'dead', ?, seen_ms FROM file", port)
        query(path, "UPDATE file SET changed = changed + 1, listeners = changed + 1")
        await open_run(here)
        assert await soon(feed) == Change("k")
        await there.advance(59)
        query(path, "UPDATE listener SET seen_ms = seen_ms + 59000 WHERE token <> 'dead'")
        await here.store.sweep(10)
        assert port in listeners(path)
        await there.advance(2)
        await here.store.sweep(10)
        assert port not in listeners(path)
        assert len(listeners(path)) == 1
        await here.store.delete("k")
        assert await soon(feed) == Change("k")


async def test_a_living_listener_says_so_again_and_again(
    path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamhub_sqlite.watcher.BEAT_SECONDS", 0.05)
    here, there = await connect(), await connect("nudge_poll_seconds=0.02")
    async with there.store.changes():
        [port] = listeners(path)
        query(path, "DELETE FROM listener")
        async with asyncio.timeout(20):
            while listeners(path) != [port]:
                await asyncio.sleep(0.01)
        assert await here.store.sweep(1) == 0


async def test_a_forged_datagram_costs_a_query_and_no_more(path: Path, connect: Connect) -> None:
    here, there = await connect(UNPOLLED), await connect(UNPOLLED)
    async with there.store.changes() as feed:
        await feed.follow("k")
        [port] = listeners(path)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
            for _ in range(100):
                forger.sendto(random.randbytes(1000), ("127.0.0.1", port))
        info = await open_run(here)
        assert await soon(feed) == Change("k")
        append = append_of(info, 1, b"x")
        await here.store.append([append])
        assert await soon(feed) == Change("k", append)


async def test_only_followed_keys_are_told(connect: Connect) -> None:
    here, there = await connect(UNPOLLED), await connect(UNPOLLED)
    async with there.store.changes() as feed:
        for key in ("a", "b", "c"):
            await feed.follow(key)
        await feed.unfollow("a")
        await feed.unfollow("never")
        for key in ("a", "other", "b", "c"):
            await open_run(here, key)
        assert [await soon(feed), await soon(feed)] == [Change("b"), Change("c")]


@pytest.mark.parametrize("options", ["", UNPOLLED])
async def test_a_hint_without_the_chunks_is_given_for_what_is_large_or_changes_metadata(
    connect: Connect, options: str
) -> None:
    here, there = await connect(), await connect(options)
    info = await open_run(here)
    async with there.store.changes() as feed:
        await feed.follow("k")
        await here.store.append([append_of(info, 1, b"x" * 200_000)])
        assert await soon(feed) == Change("k")
        await here.store.append([append_of(info, 2, b"x", metadata={"n": 1})])
        assert await soon(feed) == Change("k")
        await here.store.append([append_of(info, 3, end=COMPLETED)])
        assert await soon(feed) == Change("k")


async def test_a_record_that_cannot_be_read_is_hinted_and_ends_no_feed(path: Path, connect: Connect) -> None:
    here, there = await connect("nudge=off"), await connect("nudge_poll_seconds=0.05")
    info = await open_run(here)
    async with there.store.changes() as feed:
        await feed.follow("k")
        query(
            path,
            "INSERT INTO record SELECT file.changed + 1, content, 1, 1, stream.generation, 'n', 0, X'09'"
            " FROM stream, file",
        )
        query(path, "UPDATE file SET changed = changed + 1")
        assert await soon(feed) == Change("k")
        await here.store.delete(info.key)
        assert await soon(feed) == Change("k")


async def test_more_than_one_look_can_carry_is_told_in_several(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamhub_sqlite.feeds._MAX_RECORDS", 5)
    here, there = await connect("nudge=off"), await connect("nudge_poll_seconds=0.2")
    infos = [await open_run(here, key) for key in ("a", "b", "c", "d")]
    async with there.store.changes() as feed:
        for info in infos:
            await feed.follow(info.key)
        appends: list[Append] = []
        for index in range(1, 6):
            batch = [append_of(info, index, b"x") for info in infos]
            await here.store.append(batch)
            appends += batch
        assert [(await soon(feed)).append for _ in appends] == appends


async def test_a_reader_that_does_not_come_is_owed_one_hint_a_stream(connect: Connect) -> None:
    backend = await connect()
    infos = [await open_run(backend, key) for key in ("a", "b")]
    async with backend.store.changes() as feed, backend.cancels.requests() as requests:
        await feed.follow("a")
        await feed.follow("b")
        for index in range(1, MAX_ITEMS // 2 + 2):
            await backend.store.append([append_of(info, index, b"x") for info in infos])
        assert {await soon(feed), await soon(feed)} == {Change("a"), Change("b")}

        for number in range(MAX_ITEMS + 1):
            await requests.listen(RunRef("k", f"r{number}"))
            await backend.cancels.request("k", f"r{number}", reason=None, requested_by=None, ttl_seconds=60)
        async with asyncio.timeout(20):
            assert await anext(requests) is None, "read pending then"


async def test_a_run_no_longer_listened_to_is_not_told(connect: Connect) -> None:
    backend = await connect()
    async with backend.cancels.requests() as requests:
        for run in ("r1", "r2"):
            await requests.listen(RunRef("k", run))
        await requests.unlisten(RunRef("k", "r1"))
        for run in ("r1", "r2", "r3"):
            await backend.cancels.request("k", run, reason=None, requested_by=None, ttl_seconds=60)
        async with asyncio.timeout(20):
            assert await anext(requests) == CancelRequest("k", "r2")


async def test_closing_a_feed_ends_its_iteration_and_closing_the_backend_breaks_it(path: Path) -> None:
    backend = SqliteBackend(f"sqlite:///{path}")
    await backend.connect()
    async with backend.store.changes() as feed:
        pass
    assert [change async for change in feed] == []
    async with backend.store.changes() as feed, asyncio.timeout(20):
        waiting = asyncio.ensure_future(anext(feed))
        await asyncio.sleep(0)
        await backend.aclose()
        with pytest.raises(BackendUnavailableError, match="closed"):
            await waiting


async def test_a_long_replay_does_not_hold_up_live_hints(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = await connect(UNPOLLED), await connect(UNPOLLED)
    loop, reading, go_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    read = Reader._read  # pyright: ignore[reportPrivateUsage]

    def slow(self: Reader, *arguments: object) -> object:
        loop.call_soon_threadsafe(reading.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(timeout=20)
        return read(self, *arguments)  # pyright: ignore[reportArgumentType]

    info = await open_run(here)
    async with there.store.changes() as feed:
        await feed.follow("k")
        monkeypatch.setattr(Reader, "_read", slow)
        replay = asyncio.ensure_future(there.ping())
        await reading.wait()
        append = append_of(info, 1, b"x")
        await here.store.append([append])
        assert await soon(feed) == Change("k", append)
        go_on.set()
        await replay
