"""Processes that share a file: started at once, killed, taking over from each other.

This file is also the program that those processes run: ``python test_sqlite_processes.py ROLE URL ...``.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from sqlite_support import append_of, connections, open_run, query
from streamhub_sqlite import SqliteBackend

from streamhub.errors import (
    BackendUnavailableError,
    LeaseHeldError,
    OpenConflictError,
    StaleGenerationError,
    StreamHubError,
)
from streamhub.types import Append, Appended, Change, Read, Retention

# -- What a process does -----------------------------------------------------------------------------------------------


def say(fact: Any) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


async def starter(backend: SqliteBackend, name: str) -> None:
    """Connect when told to, and open a stream."""
    say("ready")
    sys.stdin.readline()
    await backend.connect()
    info = await open_run(backend, f"stream {name}", run=name)
    await backend.store.append([append_of(info, 1, name.encode())])
    say(info.generation)
    sys.stdin.readline()
    await backend.aclose()


async def writer(backend: SqliteBackend, key: str) -> None:
    """Append until killed, and say what was acknowledged."""
    await backend.connect()
    info = await open_run(backend, key)
    for number in range(1, 10**9):
        await backend.store.append([append_of(info, 2 * number - 1, b"%d" % number, b"%d again" % number)])
        say(number)


async def taker(backend: SqliteBackend, name: str, seconds: str) -> None:
    """Take over two streams again and again, and append until another one does; tell all that came of it."""
    await backend.connect()
    say("ready")
    sys.stdin.readline()
    deadline = time.monotonic() + float(seconds)
    acknowledged: list[tuple[str, int, str]] = []
    rejected: list[str] = []
    takeovers = 0
    while time.monotonic() < deadline:
        key = random.choice(("a", "b"))
        (found,) = await backend.store.describe([key])
        above = 0 if found is None else found.generation
        owner = f"{name}-{takeovers}-{random.random()}"
        try:
            lease = await backend.leases.acquire(key, owner=owner, run="r", ttl_seconds=5, above=above, void=above)
            info = await backend.store.open(
                key,
                lease.generation,
                owner=owner,
                run="r",
                expect=None if found is None else found.seen,
                resume=found is not None,
                retention=Retention(),
            )
        except (LeaseHeldError, OpenConflictError, StaleGenerationError):
            continue
        takeovers += 1
        tail = info.tail
        while time.monotonic() < deadline:
            text = f"{name}:{takeovers}:{tail + 1}"
            append = Append(key, lease.generation, tail + 1, (text.encode(),), os.urandom(8))
            (answer,) = await backend.store.append([append])
            if not isinstance(answer, Appended):
                rejected.append(text)
                break
            acknowledged.append((key, answer.tail, text))
            tail = answer.tail
        await backend.leases.release(lease)
    await backend.aclose()
    say({"takeovers": takeovers, "acknowledged": acknowledged, "rejected": rejected})


def main() -> None:
    role, url, *rest = sys.argv[1:]
    roles = {"starter": starter, "writer": writer, "taker": taker}
    asyncio.run(roles[role](SqliteBackend(url), *rest))


# -- The tests ---------------------------------------------------------------------------------------------------------


class Peer:
    """A process of ours."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def hear(self) -> Any:
        assert self.process.stdout is not None
        async with asyncio.timeout(40):
            line = await self.process.stdout.readline()
        return json.loads(line) if line else None

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def peers(path: Path) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:

        async def start(role: str, *arguments: str, options: str = "") -> Peer:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                __file__,
                role,
                f"sqlite:///{path}{options}",
                *arguments,
                stdin=PIPE,
                stdout=PIPE,
                limit=2**26,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            stack.push_async_callback(end, process)
            return Peer(process)

        yield start


async def end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def test_twelve_processes_may_create_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "streams.db"
    names = [f"p{number}" for number in range(12)]
    async with peers(path) as start:
        started = [await start("starter", name) for name in names]
        assert [await peer.hear() for peer in started] == ["ready"] * 12
        for peer in started:
            peer.tell()
        generations = [await peer.hear() for peer in started]
        assert len(set(generations)) == 12
        async with connections(path) as connect:
            backend = await connect()
            pages = await backend.store.read([Read(f"stream {name}", 0) for name in names])
            assert [page.chunks for page in pages] == [(name.encode(),) for name in names]
        for peer in started:
            peer.tell()
        assert [await peer.process.wait() for peer in started] == [0] * 12
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


async def test_a_process_killed_while_writing_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "streams.db"
    async with connections(path) as connect, peers(path) as start:
        acknowledged: dict[str, int] = {}
        for round_ in range(4):
            key = f"k{round_}"
            peer = await start("writer", key)
            for _ in range(random.randint(20, 120)):
                acknowledged[key] = await peer.hear()
            await peer.kill()
            while (said := await peer.hear()) is not None:
                acknowledged[key] = said
        backend = await connect()
        for key, number in acknowledged.items():
            (page,) = await backend.store.read([Read(key, 0, max_chunks=10**6)])
            assert page.tail >= 2 * number
            assert page.tail % 2 == 0, "an append is stored all or none"
            assert len(page.chunks) == page.tail
            for index, chunk in enumerate(page.chunks):
                assert chunk == (b"%d again" if index % 2 else b"%d") % (index // 2 + 1)
            info = await open_run(backend, key, resume=True)
            assert info.tail == page.tail
            assert await backend.store.append([append_of(info, info.tail + 1, b"on")]) == [Appended(info.tail + 1)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


async def test_a_process_killed_inside_a_transaction_leaves_no_lock_and_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "streams.db"
    async with connections(path) as connect, peers(path) as start:
        backend = await connect()
        for round_ in range(5):
            peer = await start("writer", f"k{round_}", options="?busy_seconds=20")
            assert await peer.hear() == 1
            # Stopped, it may be anywhere: inside a transaction it holds the lock until it dies.
            peer.process.send_signal(signal.SIGSTOP)
            writing = asyncio.ensure_future(open_run(backend, f"mine {round_}"))
            await asyncio.wait([writing], timeout=0.1)
            await peer.kill()
            async with asyncio.timeout(20):
                await writing


async def test_takeovers_by_four_processes_lose_repeat_and_splice_nothing(tmp_path: Path) -> None:
    path = tmp_path / "streams.db"
    async with connections(path) as connect, peers(path) as start:
        watcher = await connect()
        takers = [await start("taker", f"p{number}", "3") for number in range(4)]
        assert [await peer.hear() for peer in takers] == ["ready"] * 4
        pushed: dict[str, dict[int, bytes]] = {"a": {}, "b": {}}
        async with watcher.store.changes() as feed:
            for key in pushed:
                await feed.follow(key)
            collecting = asyncio.ensure_future(collect(feed, pushed))
            for peer in takers:
                peer.tell()
            reports = [await peer.hear() for peer in takers]
            collecting.cancel()
        stored: dict[str, tuple[bytes, ...]] = {}
        for key in pushed:
            (page,) = await watcher.store.read([Read(key, 0, max_chunks=10**7, max_bytes=10**9)])
            assert not isinstance(page, StreamHubError)
            assert len(page.chunks) == page.tail, "no gap"
            generations = [span.generation for span in page.spans]
            assert generations == sorted(set(generations))
            stored[key] = page.chunks

    acknowledged = [(key, index, text) for report in reports for key, index, text in report["acknowledged"]]
    rejected = {text.encode() for report in reports for text in report["rejected"]}
    for key, index, text in acknowledged:
        assert stored[key][index - 1] == text.encode()
    everything = [chunk for chunks in stored.values() for chunk in chunks]
    assert len(set(everything)) == len(everything) == len(acknowledged), "each once, and nothing else"
    assert not rejected & set(everything)
    for key, chunks in pushed.items():
        assert all(stored[key][index - 1] == chunk for index, chunk in chunks.items()), "hints tell what is stored"
    assert sum(report["takeovers"] for report in reports) >= 20
    assert len(acknowledged) >= 100


async def collect(feed: AsyncIterator[Change], pushed: dict[str, dict[int, bytes]]) -> None:
    async for change in feed:
        if change.append is not None:
            for index, chunk in enumerate(change.append.chunks, change.append.first):
                pushed[change.append.key][index] = chunk


async def test_a_lock_held_by_a_stopped_process_is_told_in_time(tmp_path: Path) -> None:
    path = tmp_path / "streams.db"
    async with connections(path) as connect, peers(path) as start:
        backend = await connect("busy_seconds=0.2")
        peer = await start("writer", "k")
        assert await peer.hear() == 1
        async with asyncio.timeout(30):
            for number in range(1000):
                peer.process.send_signal(signal.SIGSTOP)
                try:
                    await open_run(backend, f"mine {number}")
                except BackendUnavailableError as exc:
                    assert "stayed locked by another process" in str(exc)
                    break
                peer.process.send_signal(signal.SIGCONT)
                await peer.hear()
            else:
                raise AssertionError("the process was never stopped inside a transaction")
        peer.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(20):
            while True:
                try:
                    await backend.store.sweep(1)
                    break
                except BackendUnavailableError:
                    continue


if __name__ == "__main__":
    main()
