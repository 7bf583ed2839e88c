"""Two instances of an app on one backend, and a proxy before them that stands for a load balancer."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from http_client import request
from ports import free_port
from proxy import Connection, Proxy, proxied
from web_server import until


class HttpConnection(Connection):
    """A connection whose reply can be lost: what is asked is done, and nothing of the answer arrives."""

    def ask(self, data: bytes) -> bytes:
        if not self.dead and self._loss is None:
            self._loss = self._proxy.loss_for([data])
        return super().ask(data)

    def answer(self, data: bytes) -> bytes:
        if self._loss is None:
            return super().answer(data)
        self._loss.happened.set()
        self.cut()
        return b""


class Cluster:
    """Two instances, and a proxy before them."""

    def __init__(self, proxy: Proxy, ports: list[int], processes: list[subprocess.Popen[bytes]], calls: Path) -> None:
        self.proxy = proxy
        self.ports = ports
        self.processes = processes
        self._calls = calls

    @property
    def url(self) -> str:
        """What clients are given."""
        return f"http://127.0.0.1:{self.proxy.port}"

    def turn_to(self, number: int) -> None:
        """Send new connections to this instance."""
        self.proxy.target = ("127.0.0.1", self.ports[number])

    def cut_to(self, number: int) -> None:
        """Reset what is open, and send what comes to the other instance."""
        self.turn_to(number)
        self.proxy.cut()

    def kill(self, number: int) -> None:
        """End an instance as the kernel does."""
        self.processes[number].send_signal(signal.SIGKILL)
        self.processes[number].wait()

    @property
    def calls(self) -> list[str]:
        """Each call of the model: key, run and how much had been said before."""
        return self._calls.read_text().splitlines()


@asynccontextmanager
async def cluster(url: str, folder: Path, *, app: str = "e2e_app:app", **variables: str) -> AsyncIterator[Cluster]:
    """Run two instances inside the block."""
    calls, ports = folder / "calls", [free_port(), free_port()]
    calls.touch()
    environ = {**os.environ, "STREAMHUB_URL": url, "CALLS": str(calls), "PYTHONPATH": str(Path(__file__).parent)}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for port in ports:
            command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning"]
            processes.append(subprocess.Popen(command, env={**environ, **variables}))
        for port in ports:
            await until(lambda port=port: _answers(port))
        async with proxied("127.0.0.1", ports[0], opaque=True, kind=HttpConnection) as proxy:
            yield Cluster(proxy, ports, processes, calls)
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def _answers(port: int) -> bool:
    try:
        async with request(port, "/s/none/info") as reply:
            return reply.status == 404
    except OSError:
        return False
