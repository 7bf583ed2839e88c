"""Two instances that serve Durable Streams on one backend, on each that processes can share."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio
from cluster import instances
from durable_http import LostError, ask
from places import DURABLE_KINDS, fresh_place
from web_server import until


@dataclass
class Pair:
    """Both instances, and the backend's URL, for a hub of the test's own."""

    url: str
    ports: list[int]
    processes: list[subprocess.Popen[bytes]]

    async def arm(self, number: int, trap: str) -> None:
        """Set a trap in an instance; see durable_traps."""
        assert (await ask(self.ports[number], "GET", f"/arm/{trap.replace(' ', '%20')}")).messages == [trap]

    async def stopped(self, number: int) -> None:
        """Wait until an instance stands still in a trap."""
        pid = self.processes[number].pid
        await until(lambda: os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None)

    def thaw(self, number: int) -> None:
        """Let an instance go on."""
        self.processes[number].send_signal(signal.SIGCONT)

    async def killed(self, number: int) -> None:
        """Wait until a trap has killed an instance."""
        status = await asyncio.get_running_loop().run_in_executor(None, self.processes[number].wait, 20)
        assert status == -signal.SIGKILL

    async def terminated(self, number: int) -> None:
        """Let an instance end as an orchestrator does."""
        self.processes[number].terminate()
        await asyncio.get_running_loop().run_in_executor(None, self.processes[number].wait, 20)

    async def subscribed(self, number: int, path: str) -> int:
        """Return how often a stream was subscribed to at an instance: readers wait in subscriptions."""
        answer = await ask(self.ports[number], "GET", "/subscribed")
        return answer.messages.count(path.removeprefix("/"))

    async def waits(self, number: int, path: str, count: int = 1) -> None:
        """Wait until a stream has been subscribed to so often at an instance."""

        async def has() -> bool:
            return await self.subscribed(number, path) >= count

        await until(has)


@asynccontextmanager
async def paired(url: str) -> AsyncIterator[Pair]:
    """Run two instances inside the block."""
    with instances("durable_traps:app", STREAMHUB_URL=url) as (ports, processes):
        for port in ports:
            await until(lambda port=port: _answers(port))
        yield Pair(url, ports, processes)


async def _answers(port: int) -> bool:
    try:
        return (await ask(port, "GET", "/none")).status == 404
    except (OSError, LostError):
        return False


_numbers = itertools.count()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=DURABLE_KINDS)
async def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """The instances, which the tests of a module share."""
    async with fresh_place(request.param, tmp_path_factory.mktemp("place")) as url, paired(url) as running:
        yield running


@pytest.fixture
def path() -> str:
    """A stream of the test's own."""
    return f"/s{next(_numbers)}"
