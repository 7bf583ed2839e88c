"""The file's clock: what the host's clocks and boots do to it, and do not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlite_support import Connect, TestClock, append_of, connections, open_run, query
from streamhub_sqlite.clock import HostClock, milliseconds

from streamhub.errors import LeaseHeldError
from streamhub.types import COMPLETED, Retention, RunRef


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "streams.db"


@pytest.fixture
async def connect(path: Path) -> AsyncIterator[Connect]:
    async with connections(path) as connect:
        yield connect


@pytest.mark.parametrize("step", [3600, -3600])
async def test_a_step_of_the_wall_clock_changes_nothing(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    backend = await connect()
    info = await open_run(backend, retention=Retention(unfinished_seconds=60, ended_seconds=60))
    wall, wall_ns = time.time, time.time_ns
    monkeypatch.setattr("time.time", lambda: wall() + step)
    monkeypatch.setattr("time.time_ns", lambda: wall_ns() + step * 10**9)
    later = await connect()

    for each in (backend, later):
        (holder,) = await each.leases.holders(["k"])
        assert holder is not None
        assert 14 < holder.expires_in <= 15
    with pytest.raises(LeaseHeldError):
        await later.leases.acquire("k", owner="other", run="r", ttl_seconds=1)
    await later.store.append([append_of(info, 1, b"x", end=COMPLETED)])
    (found,) = await backend.store.describe(["k"])
    assert found is not None
    assert found.state == "ended"


async def test_advance_moves_time_for_every_connection(connect: Connect) -> None:
    first, second = await connect(), await connect()
    await open_run(first, retention=Retention(unfinished_seconds=60, fence_seconds=60))
    await second.cancels.request("k", "r", reason=None, requested_by=None, ttl_seconds=60)

    await second.advance(60)

    assert [info and info.state for info in await first.store.describe(["k"])] == ["expired"]
    assert await first.leases.holders(["k"]) == [None]
    assert await first.cancels.pending([RunRef("k", "r")]) == [None]
    await first.advance(60)
    assert await second.store.describe(["k"]) == [None]


async def test_all_processes_of_a_boot_agree_on_the_time(path: Path) -> None:
    clocks = [TestClock(), TestClock(wall_ms=9_999_999_999_999)]
    async with connections(path) as connect:
        backends = [await connect(clock=clock) for clock in clocks]
        for clock in clocks:
            clock.steady += 1000
        await backends[0].leases.acquire("k", owner="o", run="r", ttl_seconds=10)
        for clock in clocks:
            clock.steady += 4000
        for backend in backends:
            (holder,) = await backend.leases.holders(["k"])
            assert holder is not None
            assert holder.expires_in == 6.0


@pytest.mark.parametrize("wall_shift_ms", [+30_000, -3_600_000])
async def test_a_reboot_frees_leases_and_time_never_goes_back(path: Path, wall_shift_ms: int) -> None:
    before = TestClock()
    async with connections(path) as connect:
        backend = await connect(clock=before)
        before.steady += 10_000
        before.wall += 10_000
        info = await open_run(backend, retention=Retention(unfinished_seconds=100))
    (seen_ms,) = query(path, "SELECT seen_ms FROM file")[0]

    # The monotonic clock begins anew; the wall clock may have been set to anything.
    after = TestClock(boot="second boot", steady_ms=7, wall_ms=before.wall + wall_shift_ms)
    async with connections(path) as connect:
        backend = await connect(clock=after)
        assert await backend.leases.holders(["k"]) == [None]
        lease = await backend.leases.acquire("k", owner="next", run="r", ttl_seconds=10, above=info.generation)
        assert lease.generation > info.generation
        (now_ms,) = query(path, "SELECT seen_ms FROM file")[0]
        assert now_ms == max(seen_ms, after.wall)
        after.steady += 69_000
        assert [found and found.state for found in await backend.store.describe(["k"])] == ["open"]
        after.steady += 31_000
        assert [found and found.state for found in await backend.store.describe(["k"])] == ["expired"]


async def test_a_later_connection_of_the_same_boot_frees_nothing(path: Path) -> None:
    clock = TestClock()
    async with connections(path) as connect:
        await open_run(await connect(clock=clock))
    async with connections(path) as connect:
        holders = await (await connect(clock=clock)).leases.holders(["k"])
        assert [holder and holder.run for holder in holders] == ["r"]


async def test_a_host_that_boots_under_a_connection_of_ours_keeps_time_monotone(path: Path) -> None:
    """A file on a volume that two hosts mount is not supported; its time still does not go back."""
    here, there = TestClock(), TestClock(boot="another host", steady_ms=1, wall_ms=1_600_000_000_000)
    async with connections(path) as connect:
        backends = [await connect(clock=here), await connect(clock=there)]
        last = 0
        for _ in range(3):
            for backend in backends:
                await backend.leases.acquire("k", owner="o", run="r", ttl_seconds=5)
                (now_ms,) = query(path, "SELECT seen_ms FROM file")[0]
                assert now_ms >= last
                last = now_ms


def test_without_a_boot_id_the_wall_clock_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("streamhub_sqlite.clock._BOOT_ID", tmp_path / "missing")
    clock = HostClock()
    monkeypatch.setattr("time.time_ns", lambda: 5_000_000_000)
    assert (clock.boot, clock.steady_ms(), clock.wall_ms()) == ("", 5000, 5000)


def test_on_linux_the_monotonic_clock_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HostClock()
    monkeypatch.setattr("time.monotonic_ns", lambda: 7_000_000_000)
    assert clock.boot
    assert clock.steady_ms() == 7000


def test_a_duration_beyond_counting_is_forever() -> None:
    assert milliseconds(0.0001) == 1
    assert milliseconds(1.5) == 1500
    assert milliseconds(1e300) == milliseconds(1e308) == 2**61


async def test_a_retention_beyond_counting_is_forever(connect: Connect) -> None:
    backend = await connect()
    await open_run(backend, retention=Retention(unfinished_seconds=1e300, fence_seconds=1e308))
    await backend.advance(10**9)
    assert [info and info.state for info in await backend.store.describe(["k"], touch=True)] == ["open"]
    assert await backend.store.delete("k")
    await backend.advance(10**9)
    assert await backend.store.sweep(10) == 0
    assert [info and info.state for info in await backend.store.describe(["k"])] == ["deleted"]
