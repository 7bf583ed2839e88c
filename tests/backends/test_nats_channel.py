"""What a connection of the nats backend makes of the driver's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import servers
from nats.aio.client import Client
from nats_servers import NatsServer, started
from nats_support import begun, own_namespace, until
from streamhub_nats import NatsBackend

from streamhub import BackendUnavailableError
from streamhub.conformance import UrlHarness
from streamhub.conformance.drive import soon
from streamhub.conformance.writer import append, read_all
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


async def test_a_connection_whose_peer_takes_no_bytes_is_given_up_by_its_pings(server: NatsServer) -> None:
    backend: Any = NatsBackend(f"{server.url}?timeout_seconds=30&ping_seconds=0.5")
    await backend.connect()
    writer = await begun(backend, "k")
    channel = await backend._session.server.channel()
    server.freeze()
    try:
        clog(channel.client)
        answer = asyncio.create_task(append(backend.store, writer.item(b"second")))
        await until(lambda: channel.error is not None)
        with pytest.raises(BackendUnavailableError, match="stale connection"):
            await soon(answer)
    finally:
        server.thaw()
    await backend.aclose()


@pytest.mark.parametrize("how", ["silent", "reset"])
async def test_whoever_follows_on_a_connection_whose_peer_takes_no_bytes_is_not_kept_waiting(
    server: NatsServer, how: str
) -> None:
    backend: Any = NatsBackend(f"{server.url}?timeout_seconds={1 if how == 'silent' else 30}")
    await backend.connect()
    async with backend.store.changes() as feed:
        await feed.follow("followed")
        server.freeze()
        try:
            clog((await backend._session.notifications._channel()).client)
            following = asyncio.create_task(feed.follow("another"))
            await asyncio.sleep(0)
            if how == "reset":
                server.kill()
            with pytest.raises(BackendUnavailableError):
                await soon(following)
        finally:
            if server.running:
                server.thaw()
    await backend.aclose()


def clog(client: Any) -> None:
    """Publish more than the sockets of a server that stands still take."""
    chunk = b"x" * 900_000
    for _ in range(16):
        client._transport.write(b"PUB nobody.listens %d\r\n%b\r\n" % (len(chunk), chunk))


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
