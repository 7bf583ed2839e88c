"""Each of the three parts by itself: a hub that keeps one thing in NATS, and the others elsewhere."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import servers
from nats_servers import NatsServer
from nats_support import connected
from streamhub_sqlite import SqliteBackend

from streamhub import Hub, HubSettings, LeaseHeldError, ProducerCancelledError
from streamhub.conformance.drive import data_of, produce_all, read_end, reading, replay, send_all, soon, words

SETTINGS = HubSettings(lease_seconds=2.0, poll_seconds=0.5)


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    """The two backends' connections, by name, for two hubs."""
    server: NatsServer = servers.nats_server("2.15")
    namespace = f"p{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        found: dict[str, Any] = {}
        for hub in ("here", "there"):
            found[f"nats {hub}"] = await stack.enter_async_context(connected(f"{server.url}?namespace={namespace}"))
            embedded = SqliteBackend(f"sqlite:///{tmp_path}/parts.db")
            await embedded.connect()
            stack.push_async_callback(embedded.aclose)
            found[f"sqlite {hub}"] = embedded
        yield found
    for prefix in ("SH", "SHL", "SHC"):
        await server.api(f"STREAM.DELETE.{prefix}_{namespace}")


@pytest.mark.parametrize(
    ("store", "leases", "cancels"),
    [
        ("nats", "sqlite", "sqlite"),
        ("sqlite", "nats", "sqlite"),
        ("sqlite", "sqlite", "nats"),
        ("nats", "nats", "sqlite"),
        ("sqlite", "nats", "nats"),
    ],
)
async def test_a_hub_works_whatever_part_of_it_is_in_nats(
    parts: dict[str, Any], store: str, leases: str, cancels: str
) -> None:
    def hub(where: str) -> Hub:
        return Hub(
            store=parts[f"{store} {where}"].store,
            leases=parts[f"{leases} {where}"].leases,
            cancels=parts[f"{cancels} {where}"].cancels,
            settings=SETTINGS,
        )

    async with hub("here") as here, hub("there") as there:
        await produce_all(here, "whole", words(20))
        assert data_of(await replay(there, "whole")) == words(20)
        async with reading(there, "cut", wait=10.0) as live:
            with pytest.raises(ProducerCancelledError):
                async with here.produce("cut", run="r") as producer:
                    await send_all(producer, words(3))
                    await live.has(3)
                    with pytest.raises(LeaseHeldError):
                        async with there.produce("cut", run="r"):
                            pass
                    await there.cancel("cut", run="r", reason="enough")
                    await soon(_forever(producer))
            await live.finished(10.0)
        end = await read_end(there, "cut")
        assert (end.state, end.reason) == ("cancelled", "enough")
        assert await there.delete("whole")


async def _forever(producer: Any) -> None:
    while True:
        await producer.send(b"more")
        await producer.flush()
