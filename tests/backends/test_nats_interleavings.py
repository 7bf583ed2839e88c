"""Attacks on the nats backend: what happens between two lines, numbers at their ends, and closing at any moment."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import servers
from nats.errors import AuthorizationError, Error
from nats_servers import started
from nats_support import begun, connected, own_namespace, paused_call
from streamhub_nats import NatsBackend, clock, faults
from streamhub_nats.ledger import Ledger

from streamhub import (
    BackendUnavailableError,
    ConfigError,
    HubClosedError,
    InvalidOffsetError,
    LeaseHeldError,
    StaleGenerationError,
)
from streamhub.conformance import UrlHarness
from streamhub.conformance.drive import produce_all, replay, soon, words
from streamhub.conformance.waiting import eventually
from streamhub.conformance.writer import Writer, append, described, read_all
from streamhub.types import Page, Read, Retention

GREATEST = 2**63 - 1


@pytest.fixture
async def harness() -> AsyncIterator[UrlHarness]:
    async with own_namespace() as harness:
        yield harness


# -- Making the streams ------------------------------------------------------------------------------------------------


async def test_streams_are_made_once_a_cluster_has_enough_servers(
    harness: UrlHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = Ledger.call, 0

    async def call(ledger: Ledger, endpoint: str, *args: Any, **more: Any) -> dict[str, Any] | None:
        nonlocal refused
        if endpoint.startswith("STREAM.CREATE.") and refused < 3:
            refused += 1
            assert faults.TOO_FEW_SERVERS in more["may_miss"]
            return None
        return await real(ledger, endpoint, *args, **more)

    monkeypatch.setattr(Ledger, "call", call)
    backend = await harness.make()
    assert refused == 3
    assert await read_all(backend.store, (await begun(backend, harness.unique_key())).key) == [b"first"]


# -- Numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [GREATEST - 1, GREATEST, 2**64])
async def test_an_offset_at_the_end_of_all_numbers_harms_nobody(harness: UrlHarness, index: int) -> None:
    backend = await harness.make()
    writer = await begun(backend, harness.unique_key())

    far, near = await backend.store.read([Read(writer.key, index), Read(writer.key, 0)])

    assert isinstance(far, Page)
    assert isinstance(near, Page)
    assert (far.chunks, near.chunks) == ((), (b"first",))


async def test_a_subscriber_with_the_greatest_offset_gets_a_typed_error(harness: UrlHarness) -> None:
    hub = await harness.hub()
    key = harness.unique_key()
    await produce_all(hub, key, words(3))
    chunks = await replay(hub, key)

    with pytest.raises(InvalidOffsetError):
        await replay(hub, key, after=f"{chunks[0].offset.generation}-{GREATEST}")
    assert await replay(hub, key) == chunks


async def test_caps_and_generations_beyond_all_numbers_are_kept(harness: UrlHarness) -> None:
    backend = await harness.make()
    writer = Writer(
        backend.store,
        harness.unique_key(),
        retention=Retention(max_bytes=2**70, max_chunks=2**64, fence_seconds=100 * 365 * 86400.0),
    )
    await writer.open(GREATEST + 1)
    await writer.append(b"first")
    assert (await described(backend.store, writer.key)).retention == writer.retention

    assert await backend.store.delete(writer.key)
    assert (await described(backend.store, writer.key)).state == "deleted"
    lease = await backend.leases.acquire(writer.key, owner="o", run="r", ttl_seconds=60.0, above=GREATEST + 1)
    assert lease.generation == GREATEST + 2
    assert list(await backend.leases.renew([lease])) == [True]


@pytest.mark.parametrize("data", [b"", b"hello", b'{"v":1}\n', b'{"v":1,"kind":"append","open":5}\n', b"[]\n"])
async def test_a_live_message_that_is_no_record_is_a_hint_to_look(harness: UrlHarness, data: bytes) -> None:
    backend = await harness.make()
    writer = await begun(backend, harness.unique_key())
    live = backend_session(backend).names.live(writer.key)
    async with backend.store.changes() as feed, servers.nats_server("2.15").admin() as admin:
        await feed.follow(writer.key)
        await admin.publish(live, data)
        await admin.flush()
        hint = await soon(anext(aiter(feed)))
        assert (hint.key, hint.append) == (writer.key, None)
        await writer.append(b"second")
        hint = await soon(anext(aiter(feed)))
    assert hint.append is not None
    assert hint.append.chunks == (b"second",)


def backend_session(backend: Any) -> Any:
    """Return what the backend's parts share."""
    return backend._session


# -- Between two lines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["delete", "sweep"])
async def test_a_run_that_begins_before_the_old_one_is_off_the_agenda_is_removed_when_it_expires(
    harness: UrlHarness, how: str
) -> None:
    here, there = await harness.make(), await harness.make()
    short = Retention(unfinished_seconds=0.5, ended_seconds=0.5, fence_seconds=0.5)
    writer = await begun(here, harness.unique_key(), short)
    if how == "sweep":
        await eventually(lambda: is_state(there, writer.key, "expired"))
    async with paused_call(backend_session(here).streams, "last", skip=1 if how == "delete" else 2) as (waiting, go):
        # The stream has been read, by a sweep the lives too. What waits is the look for its place in the agenda.
        removing = asyncio.create_task(here.store.delete(writer.key) if how == "delete" else here.store.sweep(100))
        await soon(waiting.wait())
        await begun(there, writer.key, short)
        go.set()
        assert await removing

    async def nothing_left() -> bool:
        await there.store.sweep(100)
        return not await subjects_of(harness)

    await eventually(nothing_left)


async def is_state(backend: Any, key: str, state: str) -> bool:
    """Say whether a stream is in a state."""
    (info,) = await backend.store.describe([key])
    return info is not None and info.state == state


async def subjects_of(harness: UrlHarness) -> dict[str, int]:
    """Return what is stored of streams and the agenda."""
    stream = f"STREAM.INFO.SH_{harness.token}"
    info = await servers.nats_server("2.15").api(stream, {"subjects_filter": ">"})
    found: dict[str, int] = info["state"].get("subjects") or {}
    return {subject: count for subject, count in found.items() if not subject.endswith(".lives")}


async def test_a_producer_of_a_jetstream_stream_that_was_deleted_is_fenced_by_the_one_that_is_made_anew(
    harness: UrlHarness,
) -> None:
    here, there = await harness.make(), await harness.make()
    writer = Writer(here.store, harness.unique_key())
    await writer.open()
    await servers.nats_server("2.15").api(f"STREAM.DELETE.SH_{harness.token}")
    backend_session(there).server.doubt()
    successor = Writer(there.store, writer.key, run="run-2")
    # As many messages as before: were they numbered from one again, the last would have the same number.
    await successor.open(writer.generation + 1)

    (answer,) = await here.store.append([writer.item(b"late")])

    assert isinstance(answer, StaleGenerationError)
    assert await read_all(there.store, writer.key) == []


async def test_a_lease_is_free_at_once_though_the_clock_is_not_known_well(harness: UrlHarness) -> None:
    backend = await harness.make()
    key = harness.unique_key()
    lease = await backend.leases.acquire(key, owner="o", run="r", ttl_seconds=60.0)
    # As after a question that the server answered at once, and whose answer took half a second.
    backend_session(backend).clocks[backend_session(backend).leases.name]._earliest -= 500_000_000

    await backend.leases.release(lease)

    assert list(await backend.leases.holders([key])) == [None]
    assert (await backend.leases.acquire(key, owner="p", run="r", ttl_seconds=60.0)).generation > lease.generation


async def test_a_lease_has_never_more_time_than_it_was_given(harness: UrlHarness) -> None:
    backend = await harness.make()
    key = harness.unique_key()
    await backend.leases.acquire(key, owner="o", run="r", ttl_seconds=60.0)
    # As after a question that the server answered at once, and whose answer took ten seconds.
    backend_session(backend).clocks[backend_session(backend).leases.name]._earliest -= 10_000_000_000

    (holder,) = await backend.leases.holders([key])
    with pytest.raises(LeaseHeldError) as held:
        await backend.leases.acquire(key, owner="p", run="r", ttl_seconds=60.0)

    assert holder is not None
    assert holder.expires_in <= 60.0
    assert held.value.expires_in <= 60.0


async def test_one_of_many_asks_for_the_time(harness: UrlHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = await harness.make()
    session = backend_session(backend)
    writers = [await begun(backend, harness.unique_key()) for _ in range(20)]
    asked = 0
    information = session.streams.information

    async def counted() -> Any:
        nonlocal asked
        asked += 1
        return await information()

    monkeypatch.setattr(session.streams, "information", counted)
    session.clock(session.streams)._looked -= clock.FRESH_SECONDS + 0.1
    await asyncio.gather(*(writer.append(b"second") for writer in writers))

    assert asked == 1


async def test_a_question_that_nobody_answers_is_asked_again(
    harness: UrlHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = await harness.make()
    client = (await backend_session(backend).server.channel()).client
    publish, lost = client.publish, 0

    async def losing(subject: str, *args: Any, **more: Any) -> None:
        nonlocal lost
        if ".STREAM.INFO." in subject and not lost:
            lost += 1  # as where it comes to servers that are about to elect a leader
        else:
            await publish(subject, *args, **more)

    monkeypatch.setattr(client, "publish", losing)
    async with asyncio.timeout(4):
        await backend.ping()
    assert lost == 1


# -- Closing -----------------------------------------------------------------------------------------------------------


async def test_a_feed_that_opens_while_the_backend_closes_is_told(harness: UrlHarness) -> None:
    backend = await harness.make()

    async def watch() -> None:
        async with backend.store.changes():
            pass

    async with paused_call(backend_session(backend).notifications, "_dial") as (waiting, _):
        opening = asyncio.create_task(watch())
        await soon(waiting.wait())
        await soon(backend.aclose())
        with pytest.raises(HubClosedError):
            await soon(opening)


async def test_a_call_that_connects_while_the_backend_closes_is_told(harness: UrlHarness) -> None:
    backend = await harness.make()
    session = backend_session(backend)
    await (await session.server.channel()).aclose()
    async with paused_call(session.server._dialler, "dial") as (waiting, _):
        calling = asyncio.create_task(backend.store.describe(["key"]))
        await soon(waiting.wait())
        await soon(backend.aclose())
        with pytest.raises(HubClosedError):
            await soon(calling)


async def test_a_caller_that_is_cancelled_while_it_connects_spares_the_others(harness: UrlHarness) -> None:
    backend = await harness.make()
    session = backend_session(backend)
    await (await session.server.channel()).aclose()
    async with paused_call(session.server._dialler, "dial") as (waiting, go):
        calls = [asyncio.create_task(backend.store.describe(["key"])) for _ in range(2)]
        await soon(waiting.wait())
        calls[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        go.set()
        assert await soon(calls[1]) == [None]


async def test_a_feed_that_comes_while_the_last_one_leaves_is_served(harness: UrlHarness) -> None:
    backend = await harness.make()
    writer = await begun(backend, harness.unique_key())
    notifications = backend_session(backend).notifications
    for _ in range(20):
        first = backend.store.changes()
        leaving = await first.__aenter__()
        await leaving.follow(writer.key)
        channel = await notifications._channel()
        gone = asyncio.create_task(first.__aexit__(None, None, None))
        # As if the server had dropped the connection while it was being left.
        channel.client._transport._io_writer.transport.abort()
        async with asyncio.timeout(10), backend.store.changes() as feed:
            await gone
            try:
                await feed.follow(writer.key)
            except BackendUnavailableError:
                continue  # it was given the connection that was lost, and says so
            await writer.append(b"more")
            assert (await anext(aiter(feed))).key == writer.key


# -- Credentials -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "hello", "SUSECRETSECRET"])
async def test_a_file_that_holds_no_nkey_is_a_clear_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "user.nk"
    file.write_text(text)
    port = servers.nats_server("2.15").port

    with pytest.raises(ConfigError, match="credentials cannot be used") as caught:
        await NatsBackend(f"nats://127.0.0.1:{port}?nkey={file}").connect()
    assert "SECRET" not in str(caught.value)


def test_a_server_that_is_too_busy_to_read_credentials_is_an_outage() -> None:
    busy = faults.convert("nats at h", Error("nats: 'Authentication Timeout'"))
    refused = faults.convert("nats at h", AuthorizationError())

    assert isinstance(busy, BackendUnavailableError)
    assert isinstance(refused, ConfigError)


# -- A server that stands still ----------------------------------------------------------------------------------------


async def test_many_calls_to_a_server_that_stands_still_end_together() -> None:
    with started(servers.nats_binary("2.15")) as server:
        url = f"{server.url}?timeout_seconds=0.5&connect_seconds=0.5&ping_seconds=0.2"
        async with connected(url) as backend:
            writer = await begun(backend, "key")
            server.freeze()
            try:
                for _ in range(3):  # first on the connection there is, then while connections are made
                    begin = time.monotonic()
                    calls = [
                        *(backend.leases.acquire(f"k{n}", owner="o", run="r", ttl_seconds=60.0) for n in range(50)),
                        *(backend.store.describe([f"k{n}"]) for n in range(50)),
                    ]
                    answers = await asyncio.gather(*calls, return_exceptions=True)
                    assert {type(answer) for answer in answers} == {BackendUnavailableError}
                    assert time.monotonic() - begin < 5.0
            finally:
                server.thaw()
            await eventually(lambda: answers_again(backend, writer))


async def test_a_call_that_nobody_answers_ends_at_its_own_time_and_holds_up_no_other() -> None:
    with started(servers.nats_binary("2.15")) as server:
        async with connected(f"{server.url}?timeout_seconds=2") as backend, server.admin() as admin:
            channel = await backend_session(backend).server.channel()
            await admin.subscribe("questions.silent")
            await admin.subscribe("questions.echo", cb=echo)
            await admin.request("questions.echo")  # a flush overtakes the subscriptions (nats-py 2.16), this does not

            async def seconds_of_silence() -> float:
                begin = time.monotonic()
                with pytest.raises(BackendUnavailableError):
                    await channel.ask("questions.silent")
                return time.monotonic() - begin

            async def hears() -> None:
                words = secrets.token_bytes(8)
                (answer,) = await soon(channel.ask("questions.echo", words))
                assert answer.data == words

            loop = asyncio.get_running_loop()
            for _ in range(2):  # the second time, no call is left of before
                early = asyncio.create_task(seconds_of_silence())
                apart = loop.time() + 0.5
                while loop.time() < apart:
                    await hears()
                late = asyncio.create_task(seconds_of_silence())
                given_up = asyncio.create_task(seconds_of_silence())
                await hears()
                given_up.cancel()
                # Had the late one ended with the early one, it would have waited half a second less.
                assert 1.9 < await early < 10
                assert 1.9 < await late < 10
            assert not channel._calls


async def echo(message: Any) -> None:
    """Answer a question with itself."""
    await message.respond(message.data)


async def answers_again(backend: Any, writer: Writer) -> bool:
    """Say whether an append gets through."""
    item = writer.item(secrets.token_bytes(8))
    try:
        await append(backend.store, item)
    except BackendUnavailableError:
        return False
    return True
