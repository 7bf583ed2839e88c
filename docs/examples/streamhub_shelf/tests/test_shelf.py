"""The whole contract, with what only a directory allows: count what is in it, empty it, keep its locks."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from streamhub import Hub, Producer
from streamhub.conformance import ConformanceSuite, UrlHarness

pytest_plugins = ["streamhub.conformance.plugin"]

PARTS = ("streams", "leases", "cancels")


class ShelfHarness(UrlHarness):
    """A directory for each case."""

    short_seconds = 0.5  # leases of a second need streams that live for more than a third of that

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"shelf:///{folder}/{{unique}}?busy_seconds=1",
            capabilities=frozenset({"processes", "leftovers", "wipe", "pause"}),
        )
        self.root = folder / self.token

    def files(self) -> list[Path]:
        return [path for part in PARTS for path in (self.root / part).glob("?" * 64)]

    async def leftovers(self) -> int:
        return len(self.files())

    async def wipe(self) -> None:
        for path in self.files():
            path.unlink(missing_ok=True)

    @asynccontextmanager
    async def paused(self) -> AsyncGenerator[None]:
        with ExitStack() as held:
            for part in PARTS:
                lock = held.enter_context((self.root / part / "lock").open("r+b"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class TestShelf(ConformanceSuite):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self._folder = tmp_path

    def make_harness(self) -> ShelfHarness:
        return ShelfHarness(self._folder)


async def test_a_frame_that_a_dying_process_left_unfinished_does_not_count(tmp_path: Path) -> None:
    url = f"shelf:///{tmp_path}/shelf?lease_seconds=1"

    async def half(producer: Producer) -> None:
        await producer.send("whole ")
        await producer.flush()
        await asyncio.sleep(60)

    async with Hub.from_url(url) as hub:
        await hub.start("chat:1", half, run="one", on_interrupt="handover")
        await anext(hub.subscribe("chat:1"))
    (path,) = (tmp_path / "shelf" / "streams").glob("?" * 64)
    with path.open("ab") as file:
        file.write(b"\x00\x00\x01\x00 torn")

    async with Hub.from_url(url) as hub, hub.produce("chat:1", run="one", unfinished="resume") as producer:
        await producer.send("again")
    async with Hub.from_url(url) as hub:
        assert [chunk.text async for chunk in hub.subscribe("chat:1")] == ["whole ", "again"]
