"""Files of earlier releases are read as they were meant: ``sqlite-v1.sql``, by ``make_sqlite_v1.py``."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlite_support import Connect, TestClock, append_of, connections, query

from streamhub.errors import LeaseHeldError, StreamDeletedError, StreamExpiredError
from streamhub.types import (
    COMPLETED,
    Append,
    Appended,
    CancelRequest,
    End,
    Holder,
    Lease,
    Read,
    Retention,
    RunRef,
    Seen,
    Span,
    StreamInfo,
)

SAMPLE = Path(__file__).parent / "samples" / "sqlite-v1.sql"
G = 1_767_225_600_000  # generations began here, on the sample's clock
KEYS = [
    "chat:open",
    "chat:ended",
    "chat:failed",
    "chat:cancelled",
    "chat:deleted",
    "chat:expired",
    "chat:trimmed",
    "chat:resumed",
    "chat:replaced",
    "chat:unattended",
    "with 'quotes' \\ % {} 😀",
]
FAILED = End(state="failed", code="RateLimit", message="try — later")
CANCELLED = End(state="cancelled", reason="user left", requested_by="u7")


def info(key: str, generation: int, **facts: object) -> StreamInfo:
    default: dict[str, object] = {
        "state": "open",
        "run": "run-1",
        "attended": True,
        "spans": (Span(generation, 1),),
        "first": 1,
        "tail": 0,
        "size_bytes": 0,
        "end": None,
        "metadata": {},
        "retention": Retention(),
    }
    return StreamInfo(key=key, generation=generation, **{**default, **facts})  # pyright: ignore[reportArgumentType]


INFOS = [
    info(KEYS[0], G + 1, tail=5, size_bytes=766, metadata={"model": "m", "tokens": 5}),
    info(KEYS[1], G + 2, state="ended", tail=3, size_bytes=11, end=COMPLETED, metadata={"usage": {"out": 3}}),
    info(KEYS[2], G + 3, state="ended", end=FAILED),
    info(KEYS[3], G + 4, state="ended", run="über/run", tail=1, size_bytes=4, end=CANCELLED),
    info(KEYS[4], G + 5, state="deleted", first=2, tail=1, end=COMPLETED),
    info(
        KEYS[5],
        G + 6,
        state="expired",
        first=2,
        tail=1,
        retention=Retention(unfinished_seconds=0.5, fence_seconds=1e9),
    ),
    info(KEYS[6], G + 7, first=3, tail=5, size_bytes=3, retention=Retention(max_chunks=3, overflow="trim")),
    info(KEYS[7], G + 9, spans=(Span(G + 8, 1), Span(G + 9, 3)), tail=3, size_bytes=23, metadata={"attempt": 1}),
    info(KEYS[8], G + 11, run="new", tail=1, size_bytes=3),
    info(KEYS[9], G + 12, attended=False, tail=1, size_bytes=7, retention=Retention(max_bytes=99)),
    info(KEYS[10], G + 13, run="x" * 512),
]
CHUNKS = {
    KEYS[0]: (b"", b"a", bytes(range(256)), "é€😀".encode(), b"long " * 100),
    KEYS[1]: (b"one", b"two", b"three"),
    KEYS[2]: (),
    KEYS[3]: (b"half",),
    KEYS[6]: (b"3", b"4", b"5"),
    KEYS[7]: (b"before", b"the crash", b"after it"),
    KEYS[8]: (b"new",),
    KEYS[9]: (b"by many",),
    KEYS[10]: (),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "sample.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(SAMPLE.read_text(encoding="utf-8"))
    return path


@pytest.fixture
async def connect(path: Path) -> AsyncIterator[Connect]:
    async with connections(path) as connect:
        yield connect


def clock() -> TestClock:
    """The sample's, a second after its last transaction."""
    return TestClock(boot="sample", steady_ms=1_001_000, wall_ms=G + 2000)


async def test_every_stream_and_fence_is_described_field_by_field(connect: Connect) -> None:
    backend = await connect(clock=clock())
    assert await backend.store.describe([*KEYS, "chat:waiting"]) == [*INFOS, None]
    keys = backend.store.keys()
    assert [key async for key in keys] == sorted(KEYS)


async def test_every_chunk_is_read(connect: Connect) -> None:
    backend = await connect(clock=clock())
    for described in INFOS:
        (page,) = await backend.store.read([Read(described.key, described.first - 1)])
        if described.state == "deleted":
            assert isinstance(page, StreamDeletedError)
        elif described.state == "expired":
            assert isinstance(page, StreamExpiredError)
        else:
            assert page.chunks == CHUNKS[described.key]
            assert (page.run, page.spans, page.attended) == (described.run, described.spans, described.attended)
            assert (page.first, page.tail, page.end) == (described.first, described.tail, described.end)
            assert page.metadata == described.metadata
    (page,) = await backend.store.read([Read("chat:trimmed", 1)])
    assert (page.chunks, page.first) == ((), 3)


async def test_leases_and_requests_are_read(connect: Connect) -> None:
    backend = await connect(clock=clock())
    assert await backend.leases.holders(["chat:open", "chat:waiting", "chat:ended"]) == [
        Holder(G + 1, "run-1", 3598.0),
        Holder(2 * 10**12 + 1, "run-9", 1798.0),
        None,
    ]
    with pytest.raises(LeaseHeldError):
        await backend.leases.acquire("chat:open", owner="another", run="run-1", ttl_seconds=1)
    owner = "owner of chat:open, run-1, False"
    assert await backend.leases.renew([Lease("chat:open", G + 1, owner, "run-1", 60)]) == [True]
    assert await backend.cancels.pending([RunRef("chat:open", run) for run in ("run-1", "early", "other")]) == [
        CancelRequest("chat:open", "run-1", "stop", "u7"),
        CancelRequest("chat:open", "early"),
        None,
    ]


async def test_retries_of_then_are_known_and_life_goes_on(connect: Connect) -> None:
    backend = await connect(clock=clock())
    retries = [
        Append("chat:open", G + 1, 5, (b"long " * 100,), b"chat:open/5/False"),
        Append("chat:ended", G + 2, 3, (b"three",), b"chat:ended/3/True", None, COMPLETED),
        Append("chat:failed", G + 3, 1, (), b"chat:failed/1/True", None, FAILED),
    ]
    assert await backend.store.append(retries) == [Appended(5), Appended(3), Appended(0)]
    assert await backend.store.append([append_of(INFOS[0], 6, b"more")]) == [Appended(6)]
    reopened = await backend.store.open(
        "chat:resumed",
        G + 9,
        owner="owner of chat:resumed, run-1, True",
        run="run-1",
        expect=Seen(G + 8, "open"),
        resume=True,
        retention=Retention(),
    )
    assert reopened == INFOS[7], "the same open again"
    lease = await backend.leases.acquire("new", owner="o", run="r", ttl_seconds=1)
    assert lease.generation == 2 * 10**12 + 2


async def test_what_is_due_is_swept(path: Path, connect: Connect) -> None:
    backend = await connect(clock=clock())
    await backend.advance(2 * 10**9)
    assert await backend.store.sweep(1000) >= len(KEYS)
    while await backend.store.sweep(1000):
        pass
    await backend.advance(2 * 10**9)
    while await backend.store.sweep(1000):
        pass
    for table in ("stream", "tail", "record", "garbage", "lease", "request"):
        assert query(path, f"SELECT count(*) FROM {table}") == [(0,)]
