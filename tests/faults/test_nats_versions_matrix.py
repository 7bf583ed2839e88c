"""What happens where nats-servers of several versions are about."""

from __future__ import annotations

import asyncio

import pytest
import servers
from nats_faults import harness_on
from nats_servers import NatsServer, clustered, started
from ports import free_port
from test_nats_cluster import PATIENCE, REPLICATED, work_through
from test_nats_faults import answer_to, begun

from streamhub import ConfigError, Hub

pytestmark = pytest.mark.timeout(300)


async def test_an_older_server_is_refused_with_the_reason_and_passed_over() -> None:
    with started(servers.nats_binary("2.10")) as old, started(servers.nats_binary("2.15")) as new:
        with pytest.raises(ConfigError, match=r"2\.11 or later"):
            async with Hub.from_url(old.url):
                pass
        for _ in range(4):
            url = f"nats://app:s3cret@127.0.0.1:{old.port},127.0.0.1:{new.port}"
            async with Hub.from_url(url) as hub:
                await hub.ping()


async def test_a_server_that_comes_back_as_an_older_version_is_refused() -> None:
    port = (free_port(), free_port())
    new = NatsServer(servers.nats_binary("2.15"), ports=port)
    old = NatsServer(servers.nats_binary("2.10"), ports=port)
    try:
        new.start()
        async with harness_on(new.url) as harness:
            backend = await harness.make()
            writer = await begun(backend, harness.unique_key())
            await writer.append(b"a")
            new.stop()
            old.start()
            answer = await answer_to(backend, writer.item(b"b"))
            for _ in range(100):
                if isinstance(answer, ConfigError):
                    break
                await asyncio.sleep(0.05)
                answer = await answer_to(backend, writer.item(b"b"))
            assert isinstance(answer, ConfigError)
            assert "2.11 or later" in str(answer)
    finally:
        new.close()
        old.close()


async def test_servers_of_two_versions_are_one_system() -> None:
    paths = [servers.nats_binary(version) for version in ("2.15", "2.11", "2.15")]
    with clustered(paths) as cluster:
        async with harness_on(cluster.url, **REPLICATED) as harness:

            async def disturb(number: int) -> None:
                server = cluster.servers[number]
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(1.0)
                await asyncio.to_thread(cluster.start)

            assert await work_through(harness, pairs=3, disturb=disturb, rounds=3) < PATIENCE
