"""Two instances that serve Durable Streams, on each backend that processes can share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import servers
from cluster import Cluster, cluster

BACKENDS = ["sqlite", "redis"]


@asynccontextmanager
async def serving_streams(backend: str, folder: Path, **variables: str) -> AsyncIterator[Cluster]:
    """Run both inside the block."""
    options = "poll_seconds=0.3&drain_seconds=1"
    if backend == "sqlite":
        place = f"sqlite:///{folder}/streams.db?{options}"
    else:
        place = f"{servers.any_redis_server('8.2').url}?{options}&prefix={folder.name}"
    async with cluster(place, folder, app="durable_app:app", **variables) as running:
        yield running


def instance(running: Cluster, number: int) -> str:
    """Return an instance's own address."""
    return f"http://127.0.0.1:{running.ports[number]}"
