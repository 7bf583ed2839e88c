"""Two instances that serve Durable Streams to the official clients: on SQLite, and on Redis."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import servers
from cluster import Cluster, balanced, instances

Instances = tuple[list[int], list[subprocess.Popen[bytes]]]


def durable_instances(backend: str, folder: Path, **variables: str) -> AbstractContextManager[Instances]:
    """Run both on a backend inside the block."""
    options = "poll_seconds=0.3&drain_seconds=1"
    if backend == "sqlite":
        place = f"sqlite:///{folder}/streams.db?{options}"
    else:
        place = f"{servers.any_redis_server('8.2').url}?{options}&prefix={folder.name}"
    return instances("durable_app:app", STREAMHUB_URL=place, **variables)


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def shared_instances(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instances]:
    """Instances that the tests of a module share."""
    with durable_instances(request.param, tmp_path_factory.mktemp("durable")) as running:
        yield running


@pytest.fixture
async def both(shared_instances: Instances, tmp_path: Path) -> AsyncIterator[Cluster]:
    """The instances behind a proxy, with streams of the test's own."""
    async with balanced(*shared_instances, f"/{tmp_path.name}") as running:
        yield running
