"""What a connection of the nats backend makes of the driver's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import servers
from nats.aio.client import Client
from nats_servers import NatsServer, started
from nats_support import begun, own_namespace
from streamhub_nats import NatsBackend

from streamhub.conformance import UrlHarness
from streamhub.conformance.writer import read_all
from streamhub.types import Appended


@pytest.fixture
async def harness() -> AsyncIterator[UrlHarness]:
    async with own_namespace() as harness:
        yield harness


@pytest.fixture
def server() -> Iterator[NatsServer]:
    with started(servers.nats_binary("2.15")) as server:
        yield server


async def client_of(backend: Any) -> Any:
    """Return the driver's client for calls."""
    return (await backend._session.server.channel()).client


async def test_what_is_published_is_written_before_publish_returns(harness: UrlHarness) -> None:
    client = await client_of(await harness.make())

    await client.publish("nobody.listens", b"x" * 100)

    assert client.pending_data_size == 0


async def test_a_driver_that_needs_its_task_to_write_keeps_it(
    harness: UrlHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave_to_the_task(self: Any, force_flush: bool = False) -> Any:
        await self._flush_queue.put(asyncio.get_running_loop().create_future())

    monkeypatch.setattr(Client, "_flush_pending", leave_to_the_task)
    backend = await harness.make()
    writer = await begun(backend, harness.unique_key())

    assert await writer.append(b"second") == Appended(2)
    assert not (await client_of(backend))._flusher_task.done()


async def test_what_the_driver_was_about_to_write_is_written(
    harness: UrlHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task ends before it has looked into its queue."""
    real = Client.subscribe

    async def and_more(self: Any, *args: Any, **more: Any) -> Any:
        subscription = await real(self, *args, **more)
        await self.publish("nobody.listens")
        return subscription

    monkeypatch.setattr(Client, "subscribe", and_more)
    backend = await harness.make()

    await begun(backend, harness.unique_key())
    assert (await client_of(backend)).pending_data_size == 0


async def test_appends_to_a_server_that_takes_no_bytes_go_on_when_it_does(server: NatsServer) -> None:
    """More than the socket takes is on its way: the driver waits for it, and an append that begins must not."""
    backend: Any = NatsBackend(f"{server.url}?timeout_seconds=30")
    await backend.connect()
    writers = [await begun(backend, f"k{number}") for number in range(16)]
    chunk = b"x" * 900_000
    server.freeze()
    try:
        appends = [asyncio.create_task(backend.store.append([writer.item(chunk)])) for writer in writers]
        transport = (await client_of(backend))._transport._io_writer.transport
        async with asyncio.timeout(10):
            while transport.get_write_buffer_size() < 2 * len(chunk):
                await asyncio.sleep(0.01)
    finally:
        server.thaw()

    assert await asyncio.gather(*appends) == [[Appended(2)]] * len(writers)
    for writer in writers:
        assert await read_all(backend.store, writer.key) == [b"first", chunk]
    await backend.aclose()


@pytest.mark.parametrize(
    "raw",
    [
        b"Nats-Sequence: 17\r\nNats-Time-Stamp: 2026-01-02T03:04:05.678Z\r\n\r\n",
        b"Name:value\r\nOther:\t value of \xc3\xa9: 1 \r\nEmpty:\r\n\r\n",
        b"no header\r\nOther: \xff\r\nOther: twice\r\n\r\n",
        b"",
    ],
)
async def test_headers_are_read_as_the_driver_reads_them(harness: UrlHarness, raw: bytes) -> None:
    client = await client_of(await harness.make())

    assert type(client) is not Client
    assert client._parse_header_lines(raw) == Client._parse_header_lines(raw)
