"""Write ``sqlite-v1.sql``, the sample that releases to come must read: ``python make_sqlite_v1.py > sqlite-v1.sql``.

It was run once, by the release that introduced format 1. A new format gets a sample and a script of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import tempfile
from pathlib import Path

from streamhub_sqlite import SqliteBackend
from streamhub_sqlite.clock import HostClock

from streamhub.types import COMPLETED, Append, End, Metadata, Retention, Seen, StreamInfo


class SampleClock(HostClock):
    """Stands still at the beginning of 2026."""

    def __init__(self) -> None:
        self.boot = "sample"

    def steady_ms(self) -> int:
        return 1_000_000

    def wall_ms(self) -> int:
        return 1_767_225_600_000


CLOCK = SampleClock()


async def begin(
    backend: SqliteBackend,
    key: str,
    *,
    run: str = "run-1",
    expect: StreamInfo | None = None,
    resume: bool = False,
    attended: bool = True,
    metadata: Metadata | None = None,
    retention: Retention | None = None,
    leave: bool = True,
) -> StreamInfo:
    above = 0 if expect is None else expect.generation
    owner = f"owner of {key}, {run}, {resume}"
    lease = await backend.leases.acquire(key, owner=owner, run=run, ttl_seconds=3600, above=above)
    seen = None if expect is None else Seen(expect.generation, expect.state)
    info = await backend.store.open(
        key,
        lease.generation,
        owner=owner,
        run=run,
        expect=seen,
        resume=resume,
        attended=attended,
        metadata=metadata,
        retention=retention or Retention(),
    )
    if leave:
        await backend.leases.release(lease)
    return info


async def append(
    backend: SqliteBackend,
    info: StreamInfo,
    first: int,
    *chunks: bytes,
    end: End | None = None,
    n: Metadata | None = None,
) -> None:
    nonce = f"{info.key}/{first}/{end is not None}".encode()
    await backend.store.append([Append(info.key, info.generation, first, chunks, nonce, n, end)])


async def now(backend: SqliteBackend, key: str) -> StreamInfo | None:
    return (await backend.store.describe([key]))[0]


async def fill(backend: SqliteBackend) -> None:
    live = await begin(backend, "chat:open", metadata={"model": "m", "né": ["😀", None, 1.5]}, leave=False)
    await append(backend, live, 1, b"", b"a", bytes(range(256)), "é€😀".encode())
    await append(backend, live, 5, b"long " * 100, n={"model": "m", "tokens": 5})

    done = await begin(backend, "chat:ended")
    await append(backend, done, 1, b"one", b"two")
    await append(backend, done, 3, b"three", end=COMPLETED, n={"usage": {"out": 3}})

    failed = await begin(backend, "chat:failed")
    await append(backend, failed, 1, end=End(state="failed", code="RateLimit", message="try — later"))

    cancelled = await begin(backend, "chat:cancelled", run="über/run")
    await append(backend, cancelled, 1, b"half", end=End(state="cancelled", reason="user left", requested_by="u7"))

    gone = await begin(backend, "chat:deleted", metadata={"private": True})
    await append(backend, gone, 1, b"secret", end=COMPLETED)
    await backend.store.delete("chat:deleted")

    expired = await begin(backend, "chat:expired", retention=Retention(unfinished_seconds=0.5, fence_seconds=1e9))
    await append(backend, expired, 1, b"too late")

    caps = Retention(max_chunks=3, overflow="trim")
    trimmed = await begin(backend, "chat:trimmed", retention=caps)
    await append(backend, trimmed, 1, b"1", b"2", b"3", b"4")
    await append(backend, trimmed, 5, b"5")

    first = await begin(backend, "chat:resumed", metadata={"attempt": 1})
    await append(backend, first, 1, b"before", b"the crash")
    second = await begin(backend, "chat:resumed", expect=await now(backend, "chat:resumed"), resume=True)
    await append(backend, second, 3, b"after it")

    replaced = await begin(backend, "chat:replaced", run="old")
    await append(backend, replaced, 1, b"old", end=COMPLETED)
    anew = await begin(backend, "chat:replaced", run="new", expect=await now(backend, "chat:replaced"))
    await append(backend, anew, 1, b"new")

    shared = await begin(backend, "chat:unattended", attended=False, retention=Retention(max_bytes=99))
    await append(backend, shared, 1, b"by many")

    await begin(backend, "with 'quotes' \\ % {} 😀", run="x" * 512)

    await backend.leases.acquire("chat:waiting", owner="a nonce", run="run-9", ttl_seconds=1800, above=2 * 10**12)
    for run, reason, who in (("run-1", "stop", "u7"), ("early", None, None)):
        await backend.cancels.request("chat:open", run, reason=reason, requested_by=who, ttl_seconds=7200)
    await backend.advance(1)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sample.db")
        backend = SqliteBackend(f"sqlite:///{path}", clock=CLOCK)
        await backend.connect()
        await fill(backend)
        await backend.store.sweep(100)
        await backend.aclose()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for pragma in ("application_id", "user_version"):
                (value,) = connection.execute(f"PRAGMA {pragma}").fetchone()
                sys.stdout.write(f"PRAGMA {pragma} = {value};\n")
            for line in connection.iterdump():
                sys.stdout.write(line + "\n")


if __name__ == "__main__":
    asyncio.run(main())
