"""What is the nats backend's own: names, records, marks, and processes that stand still between a look and a write."""

from __future__ import annotations

import asyncio
import json
import secrets
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import servers
from hypothesis import given
from hypothesis import strategies as st
from nats_support import begun, own_namespace, paused_write
from streamhub_nats import NatsBackend, NatsOptions, marks, stamps
from streamhub_nats.agenda import life_of
from streamhub_nats.drafts import Draft
from streamhub_nats.names import Names, decode, encode
from streamhub_nats.record import Opening, Record, read_pushed, read_record, write_record
from streamhub_nats.stored import Stored
from streamhub_nats.target import parse_url

from streamhub import (
    BackendUnavailableError,
    ConfigError,
    OffsetConflictError,
    StaleGenerationError,
    StreamDeletedError,
    StreamExpiredError,
    StreamHubError,
    UnknownOptionError,
    UnsupportedFormatError,
)
from streamhub.conformance import UrlHarness
from streamhub.conformance.drive import words
from streamhub.conformance.writer import Writer, append, described, read_all
from streamhub.records import pack_chunks
from streamhub.types import COMPLETED, Append, End, Read, Retention, Span

KEYS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)

# -- Names -------------------------------------------------------------------------------------------------------------


@given(KEYS)
def test_a_key_is_one_token_that_reads_back_as_itself(key: str) -> None:
    token = encode(key)

    assert decode(token) == key
    assert not set(token) & set(" .*>\t\r\n")
    assert token.isascii()


@given(KEYS, KEYS)
def test_keys_with_a_common_beginning_have_subjects_with_one(one: str, other: str) -> None:
    assert encode(one + other) == encode(one) + encode(other)
    assert (encode(one) == encode(other)) == (one == other)


def test_the_longest_names_fit_into_a_control_line() -> None:
    names = Names("n" * 32)
    longest = len(names.asked("é" * 256, "é" * 256))

    assert longest + 100 < 4096


def test_urls_name_hosts_users_and_tokens() -> None:
    target, options = parse_url("nats://us%40er:p%2Fw@n1,[::1]:4300,n3:4222?namespace=x&replicas=3&storage=memory")

    assert target.hosts == ("n1:4222", "[::1]:4300", "n3:4222")
    assert (target.username, target.password, target.token) == ("us@er", "p/w", None)
    assert (options.namespace, options.replicas, options.storage) == ("x", 3, "memory")
    assert parse_url("wss://tok%3Aen@host")[0].token == "tok:en"
    assert parse_url("wss://host")[0].hosts == ("host:443",)
    assert parse_url("nats://")[0].hosts == ("localhost:4222",)
    assert "p/w" not in repr(target)
    assert "tok" not in repr(parse_url("nats://token@host")[0])


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "nats://host:port",
        "nats://a,,b",
        "nats://host/path",
        "nats://host#x",
        "nats://host?namespace=a.b",
        "nats://host?namespace=",
        "nats://host?replicas=0",
        "nats://host?replicas=7",
        "nats://host?storage=tape",
        "nats://host?storage_bytes=0",
        f"nats://host?storage_bytes={2**63}",
        "nats://host?timeout_seconds=0",
        "nats://host?min_lease_seconds=-1",
        "nats://host?inbox=a.*",
        "nats://host?creds=a&nkey=b",
        "nats://user:pw@host?creds=a",
    ],
)
def test_wrong_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        NatsBackend(url)
    assert "pw" not in str(caught.value)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UnknownOptionError, match="replicas"):
        NatsBackend("nats://host?replica=3")


@pytest.mark.parametrize("scheme", ["nats", "wss"])
@pytest.mark.parametrize(
    "userinfo",
    [*(f"u:{word}" for word in ("se?cret", "se/cret", "se#cret", "cret?se", "cret/se", "12/cret", "[cret]")),
     "cret?oken", "cret/oken", "tok:12@n2:cret"],
)  # fmt: skip
def test_no_part_of_a_password_that_was_not_encoded_is_shown(scheme: str, userinfo: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url(f"{scheme}://{userinfo}@host:x")
    assert "cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("end", [None, COMPLETED, End(state="failed", code='a"b', message="\\ é\n")])
@given(numbers=st.lists(st.integers(0, 2**70), min_size=12, max_size=12), nonce=st.binary(max_size=12))
def test_a_record_reads_back_as_itself(end: End | None, numbers: list[int], nonce: bytes) -> None:
    record = Record(
        "append", numbers[0], "open", numbers[1], numbers[2], numbers[3], numbers[4], "abcd", *numbers[5:10], nonce,
        numbers[10], numbers[11], end, (marks.Mark(0, 1, 2), marks.Mark(3, 2**63, 4)),
    )  # fmt: skip

    assert read_record(write_record(record, b"\nbody\n")) == (record, b"\nbody\n")


@pytest.mark.parametrize("metadata_at", [0, 9])
@given(
    chunks=st.lists(st.binary(max_size=200), min_size=1, max_size=4),
    appends=st.integers(0, 40),
    nonce=st.binary(min_size=1),
)
def test_an_append_is_written_by_its_draft_as_without_one(
    metadata_at: int, chunks: list[bytes], appends: int, nonce: bytes
) -> None:
    draft = _draft(appends, metadata_at)
    item = Append("key", 7, draft.base.record.tail + 1, tuple(chunks), nonce)
    record, body = draft.record(item), pack_chunks(chunks)

    assert draft.line(item) + body == write_record(record, body)
    pushed = read_pushed(write_record(record, body))
    assert pushed is not None
    assert pushed == (record.generation, record.until_ms, record.begins, record.nonce, body, None)


@pytest.mark.parametrize(
    "changes",
    [{"kind": "part"}, {"kind": "touch"}, {"end": COMPLETED, "state": "ended"}, {"head_bytes": 2}, {"parts_at": 3},
     {"until_ms": 0}],
)  # fmt: skip
def test_what_is_no_plain_append_is_not_read_as_one(changes: dict[str, Any]) -> None:
    draft = _draft(3, 0)
    record = draft.record(Append("key", 7, draft.base.record.tail + 1, (b"chunk",), b"nonce"))

    assert read_pushed(write_record(record, b"body")) is not None
    assert read_pushed(write_record(record._replace(**changes), b"body")) is None


def _draft(appends: int, metadata_at: int) -> Draft:
    opening = Opening(owner="owner", run="run", attended=True, spans=(Span(7, 1),), retention=Retention(), metadata={})
    record = Record("open", 7, "open", 1, 0, 0, 0, "abcd", metadata_at, 1000, 2000)
    draft = Draft(Stored(5, 10**18, record, opening))
    for number in range(appends):
        record = draft.record(Append("key", 7, record.tail + 1, (b"x",), b"nonce"))
        draft = Draft(Stored(6 + number, 10**18 + number, record, opening))
    return draft


# -- Marks, times ------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 40), min_size=1, max_size=400), st.data())
def test_every_chunk_is_found_from_the_newest_record_in_few_steps(sizes: list[int], data: st.DataObject) -> None:
    records: list[tuple[int, int, tuple[marks.Mark, ...]]] = []
    last, known = 0, ()
    for sequence, size in enumerate(sizes, 1):
        if records:
            known = marks.after(known, records[-1][0] * 7, records[-1][1])
        last += size
        records.append((sequence, last, known))
    index = data.draw(st.integers(1, last))

    place, steps = records[-1], 0
    while not place[1] - sizes[place[0] - 1] < index <= place[1]:
        mark = marks.before(place[2], index)
        assert mark is not None
        assert mark.sequence // 7 < place[0]
        place, steps = records[mark.sequence // 7 - 1], steps + 1

    assert steps <= 2 * len(sizes).bit_length() + 1
    assert all(len(known) <= 2 * len(sizes).bit_length() + 2 for _, _, known in records)


@given(st.integers(1, 10**13))
def test_a_queue_is_never_longer_than_the_life_it_is_for(milliseconds: int) -> None:
    life = life_of(milliseconds)

    assert life <= max(milliseconds, 100)
    assert life > max(milliseconds, 100) * 0.9
    assert life_of(life) == life


def test_times_of_any_length_are_read() -> None:
    assert stamps.nanoseconds("1970-01-01T00:00:01Z") == 10**9
    assert stamps.nanoseconds("1970-01-01T00:00:01.5Z") == 1_500_000_000
    assert stamps.nanoseconds("2026-11-23T03:02:10.802893275Z") % 10**9 == 802_893_275
    assert stamps.nanoseconds("1970-01-01T01:00:01.5+01:00") == 1_500_000_000


def test_leases_last_longer_where_a_leader_must_be_elected() -> None:
    assert NatsBackend("nats://host").leases.default_ttl_seconds == 15.0
    replicated = NatsBackend("nats://host?replicas=3").leases
    assert (replicated.min_ttl_seconds, replicated.default_ttl_seconds) == (20.0, 30.0)
    assert NatsOptions().min_lease_seconds is None


# -- A process stands still --------------------------------------------------------------------------------------------


@pytest.fixture
async def harness() -> AsyncIterator[UrlHarness]:
    async with own_namespace() as harness:
        yield harness


async def held_back(backend: Any, item: Append, meanwhile: Callable[[], Any], *, after: int = 0) -> Any:
    """Append, do something else while the write is about to be made, and return the answer."""
    async with paused_write(backend, "streams", after) as (there, go), asyncio.timeout(30):
        call = asyncio.create_task(backend.store.append([item]))
        await there.wait()
        await meanwhile()
        go.set()
        return (await call)[0]


async def test_an_append_that_was_about_to_be_written_is_fenced(harness: UrlHarness) -> None:
    here, there = await harness.make(), await harness.make()
    writer = await begun(here, harness.unique_key())
    successor = Writer(there.store, writer.key)

    answer = await held_back(here, writer.item(b"late"), lambda: successor.open(resume=True))

    assert isinstance(answer, StaleGenerationError)
    assert answer.current == successor.generation
    assert await read_all(there.store, writer.key) == [b"first"]


async def test_an_append_that_was_about_to_be_written_finds_the_stream_deleted(harness: UrlHarness) -> None:
    here, there = await harness.make(), await harness.make()
    writer = await begun(here, harness.unique_key())

    answer = await held_back(here, writer.item(b"late"), lambda: there.store.delete(writer.key))

    assert isinstance(answer, StreamDeletedError)


async def test_an_append_that_another_jetstream_stream_took_is_not_acknowledged(harness: UrlHarness) -> None:
    """One that has the subjects by now, and by chance the very sequence number."""
    server = servers.nats_server("2.15")
    backend: Any = await harness.make()
    writer = await begun(backend, harness.unique_key())
    last = backend.store._chain.tails.get(writer.key).base.sequence
    subject = backend._session.names.stream(writer.key)
    await server.api(f"STREAM.DELETE.SH_{harness.token}")
    other = {"name": f"OTHER_{harness.token}", "subjects": [subject], "first_seq": last}
    assert "error" not in await server.api(f"STREAM.CREATE.OTHER_{harness.token}", other)
    try:
        async with server.admin() as client:
            await client.request(subject, b"theirs")

        (answer,) = await backend.store.append([writer.item(b"lost")])
    finally:
        await server.api(f"STREAM.DELETE.OTHER_{harness.token}")

    assert isinstance(answer, BackendUnavailableError)
    assert f"OTHER_{harness.token} has its subjects" in str(answer)


@pytest.mark.parametrize("swept", [False, True])
async def test_an_append_that_is_written_after_its_stream_expired_is_void(harness: UrlHarness, swept: bool) -> None:
    here, there = await harness.make(), await harness.make()
    writer = await begun(here, harness.unique_key(), Retention(unfinished_seconds=0.4))

    async def expire() -> None:
        await until(lambda: _is(there, writer.key, "expired"))
        if swept:
            assert await there.store.sweep(100) == 1

    answer = await held_back(here, writer.item(b"late", end=COMPLETED), expire)

    assert isinstance(answer, StreamExpiredError)
    info = (await there.store.describe([writer.key]))[0]
    assert info is not None
    assert (info.state, info.end, info.tail) == ("expired", None, 1)
    (page,) = await there.store.read([_whole(writer.key)])
    assert isinstance(page, StreamExpiredError)
    successor = Writer(there.store, writer.key)
    await successor.open()
    assert (await described(there.store, writer.key)).tail == 0


async def test_a_renewal_that_is_stored_after_its_lease_ran_out_is_lost(harness: UrlHarness) -> None:
    here, there = await harness.make(), await harness.make()
    key = harness.unique_key()
    lease = await here.leases.acquire(key, owner="o", run="r", ttl_seconds=0.5)
    async with paused_write(here, "leases") as (waiting, go):
        renewing = asyncio.create_task(here.leases.renew([lease]))
        await waiting.wait()
        await until(lambda: _unheld(there, key))
        go.set()
        assert list(await renewing) == [False]
    assert await there.leases.holders([key]) == [None]
    other = await there.leases.acquire(key, owner="p", run="r", ttl_seconds=60.0)
    assert other.generation > lease.generation


async def test_an_acquisition_that_was_about_to_be_written_is_decided_anew(harness: UrlHarness) -> None:
    here, there = await harness.make(), await harness.make()
    key = harness.unique_key()
    async with paused_write(here, "leases") as (waiting, go):
        acquiring = asyncio.create_task(here.leases.acquire(key, owner="o", run="r", ttl_seconds=60.0))
        await waiting.wait()
        winner = await there.leases.acquire(key, owner="p", run="r", ttl_seconds=60.0)
        go.set()
        with pytest.raises(StreamHubError) as caught:
            await acquiring
    assert getattr(caught.value, "generation", None) == winner.generation


async def test_a_sweep_that_was_about_to_remove_a_stream_spares_the_run_that_took_its_place(
    harness: UrlHarness,
) -> None:
    here, there = await harness.make(), await harness.make()
    writer = await begun(here, harness.unique_key(), Retention(unfinished_seconds=0.4))
    await until(lambda: _is(there, writer.key, "expired"))
    async with paused_write(here, "streams") as (waiting, go):
        sweeping = asyncio.create_task(here.store.sweep(100))
        await waiting.wait()
        successor = Writer(there.store, writer.key)
        await successor.open()
        await successor.append(b"new")
        go.set()
        assert await sweeping == 0
    assert await read_all(there.store, writer.key) == [b"new"]


async def test_parts_of_an_append_that_another_one_overtook_are_not_seen(harness: UrlHarness) -> None:
    here, there = await harness.make(), await harness.make()
    writer = await begun(here, harness.unique_key())
    chunks = tuple(secrets.token_bytes(900_000) for _ in range(3))
    other = Append(writer.key, writer.generation, writer.tail + 1, (b"quick",), secrets.token_bytes(12))

    answer = await held_back(here, writer.item(*chunks), lambda: append(there.store, other), after=2)

    assert isinstance(answer, OffsetConflictError)
    assert await read_all(there.store, writer.key) == [b"first", b"quick"]
    writer.tail = 2
    await writer.append(*chunks)
    assert await read_all(there.store, writer.key) == [b"first", b"quick", *chunks]
    assert await read_all(there.store, writer.key, 3) == list(chunks[1:])


async def test_what_is_trimmed_is_removed_with_all_its_parts(harness: UrlHarness) -> None:
    backend = await harness.make()
    retention = Retention(overflow="trim", max_bytes=3_000_000)
    writer = Writer(backend.store, harness.unique_key(), retention=retention)
    await writer.open()
    for number in range(20):
        await writer.append(*(bytes([number, part]) * 450_000 for part in range(2)))
    await writer.append(end=COMPLETED)
    info = await described(backend.store, writer.key)
    assert (info.first, info.tail) == (38, 40)
    stored = await servers.nats_server("2.15").api(f"STREAM.INFO.SH_{harness.token}")
    # Two appends and a half are kept, in two or three messages each, and what begins and ends the run.
    assert stored["state"]["bytes"] < 6_000_000
    assert len(await read_all(backend.store, writer.key, 37)) == 3


# -- What others wrote -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b'{"v":2}\n', b"{}", b"\x00\xff", b"[1]"])
async def test_a_record_of_an_unknown_format_is_refused_and_not_changed(harness: UrlHarness, data: bytes) -> None:
    backend, key = await harness.make(), harness.unique_key()
    subject = Names(harness.token).stream(key)
    async with servers.nats_server("2.15").admin() as admin:
        await admin.request(subject, data, timeout=5)
        (page,) = await backend.store.read([_whole(key)])
        (answer,) = await backend.store.append([Append(key, 1, 1, (b"x",), b"n" * 12)])
        assert isinstance(page, UnsupportedFormatError)
        assert isinstance(answer, UnsupportedFormatError)
        for call in (
            lambda: backend.store.describe([key]),
            lambda: backend.store.delete(key),
            lambda: Writer(backend.store, key).open(),
        ):
            with pytest.raises(UnsupportedFormatError):
                await call()
        assert await backend.store.sweep(100) == 0
        query = json.dumps({"last_by_subj": subject}).encode()
        stored = await admin.request(f"$JS.API.DIRECT.GET.SH_{harness.token}", query, timeout=5)
        assert stored.data == data


async def test_a_thousand_records_are_read_from_anywhere(harness: UrlHarness) -> None:
    backend = await harness.make()
    writer = await begun(backend, harness.unique_key())
    source = [b"first", *words(1200)]
    for chunk in source[1:]:
        await writer.append(chunk)
    other = await harness.make()
    for after in (0, 1, 599, 600, 1199, 1200):
        assert await read_all(other.store, writer.key, after) == source[after:]


async def until(fact: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so, with a bound."""
    async with asyncio.timeout(20):
        while not await fact():
            await asyncio.sleep(0.01)


def _whole(key: str) -> Read:
    return Read(key, 0)


async def _is(backend: Any, key: str, state: str) -> bool:
    info = (await backend.store.describe([key]))[0]
    return info is not None and info.state == state


async def _unheld(backend: Any, key: str) -> bool:
    return await backend.leases.holders([key]) == [None]
