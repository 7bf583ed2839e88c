"""Two instances of an app on one backend, and a proxy before them that stands for a load balancer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

from ports import free_port
from proxy import Connection, Proxy, proxied
from web_server import answering

C = TypeVar("C", bound="Cluster")


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

    def __init__(
        self, proxy: Proxy, ports: list[int], processes: list[subprocess.Popen[bytes]], path: str = ""
    ) -> None:
        self.proxy = proxy
        self.ports = ports
        self.processes = processes
        self.path = path

    @property
    def url(self) -> str:
        """What clients are given."""
        return f"http://127.0.0.1:{self.proxy.port}{self.path}"

    def instance(self, number: int) -> str:
        """Return an instance's own address."""
        return f"http://127.0.0.1:{self.ports[number]}{self.path}"

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


class ChatCluster(Cluster):
    """Instances of e2e_app."""

    calls_file: Path

    @property
    def calls(self) -> list[str]:
        """Each call of the model: key, run and how much had been said before."""
        return self.calls_file.read_text().splitlines()


@contextmanager
def instances(app: str, **variables: str) -> Iterator[tuple[list[int], list[subprocess.Popen[bytes]]]]:
    """Run two instances of an app inside the block."""
    ports = [free_port(), free_port()]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), **variables}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for port in ports:
            command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning"]
            processes.append(subprocess.Popen(command, env=environ))
        yield ports, processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


@asynccontextmanager
async def balanced(
    ports: list[int], processes: list[subprocess.Popen[bytes]], path: str = "", kind: type[C] = Cluster
) -> AsyncIterator[C]:
    """Put a proxy before two instances, inside the block."""
    for port, process in zip(ports, processes, strict=True):
        await answering(port, process)
    async with proxied("127.0.0.1", ports[0], opaque=True, kind=HttpConnection) as proxy:
        yield kind(proxy, ports, processes, path)


@asynccontextmanager
async def cluster(url: str, folder: Path, **variables: str) -> AsyncIterator[ChatCluster]:
    """Run two instances of e2e_app inside the block."""
    calls = folder / "calls"
    calls.touch()
    with instances("e2e_app:app", STREAMHUB_URL=url, CALLS=str(calls), **variables) as (ports, processes):
        async with balanced(ports, processes, kind=ChatCluster) as running:
            running.calls_file = calls
            yield running
