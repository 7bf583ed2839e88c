"""Interleavings, limits and settings of the server that the postgresql backend has to stand."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import asyncpg
import pytest
import servers
from postgres_servers import QUICK, PostgresServer, started
from postgres_support import PostgresHarness, connected
from streamhub_postgres import PostgresBackend
from streamhub_postgres.ear import Ear
from streamhub_postgres.heads import stream_topic
from streamhub_postgres.target import parse_url

from streamhub.conformance.drive import UNPOLLED, data_of, reading, soon, words
from streamhub.conformance.waiting import eventually, settle
from streamhub.conformance.writer import Writer, append, described, read_all
from streamhub.errors import (
    BackendUnavailableError,
    ConfigError,
    InvalidOffsetError,
    StreamHubError,
)
from streamhub.records import pack_chunks
from streamhub.types import COMPLETED, End, Read, Retention


@pytest.fixture
def server() -> PostgresServer:
    return servers.postgres_server("18")


@pytest.fixture
async def harness(server: PostgresServer) -> AsyncIterator[PostgresHarness]:
    async with PostgresHarness(server) as harness:
        yield harness


@pytest.fixture
async def backend(harness: PostgresHarness) -> PostgresBackend:
    return await harness.connect_kept()


@contextlib.asynccontextmanager
async def role(server: PostgresServer, harness: PostgresHarness, settings: str) -> AsyncGenerator[str]:
    """Make a role with settings of its own; yield the URL by which it connects."""
    name = f"odd_{harness.token}"
    server.psql(f"CREATE ROLE {name} LOGIN SUPERUSER")
    for setting in settings.split(";"):
        server.psql(f"ALTER ROLE {name} SET {setting}")
    try:
        yield (harness.url or "").replace(
            server.least_url.partition("?")[0], server.url.replace("postgres@", f"{name}@")
        )
    finally:
        server.psql(f"DROP ROLE {name}")


@contextlib.asynccontextmanager
async def table_locked(harness: PostgresHarness, *tables: str) -> AsyncGenerator[Any]:
    """Let every statement on some tables wait; yields a connection that looks on."""
    async with harness.admin() as holder, harness.admin() as onlooker:
        transaction = holder.transaction()
        await transaction.start()
        names = ", ".join(f'"{harness.schema}".{name}' for name in tables)
        await holder.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
        try:
            yield onlooker
        finally:
            await transaction.rollback()


async def waiting(onlooker: Any, count: int = 1) -> None:
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'streamhub' AND wait_event_type = 'Lock'"
        " AND state = 'active'"
    )
    await eventually(lambda: onlooker.fetchval(query), lambda found: found >= count)


# --- numbers at their limit


async def test_an_offset_at_the_end_of_all_numbers_harms_nobody(
    harness: PostgresHarness, backend: PostgresBackend
) -> None:
    good, other = Writer(backend.store, harness.unique_key()), Writer(backend.store, harness.unique_key())
    for writer in (good, other):
        await writer.open()
        await writer.append(b"a")
    one, two = await backend.store.read([Read(good.key, 0), Read(other.key, 2**63 - 1)])
    assert not isinstance(one, StreamHubError)
    assert one.chunks == (b"a",)
    assert not isinstance(two, StreamHubError)
    assert two.chunks == ()


async def test_a_subscriber_with_the_greatest_offset_gets_a_typed_error(harness: PostgresHarness) -> None:
    hub = await harness.hub()
    key = harness.unique_key()
    async with hub.produce(key) as producer:
        await producer.send(b"a")
        offset = await producer.flush()
    with pytest.raises(InvalidOffsetError):
        async for _ in hub.subscribe(key, after=f"{offset.generation if offset else 1}-{2**63 - 1}"):
            pass


async def test_caps_beyond_all_numbers_are_no_outage(harness: PostgresHarness, backend: PostgresBackend) -> None:
    writer = Writer(backend.store, harness.unique_key(), retention=Retention(max_bytes=2**64, max_chunks=2**70))
    await soon(writer.open())
    await writer.append(b"a")
    assert (await described(backend.store, writer.key)).retention.max_bytes >= 2**63 - 1


# --- isolation levels of the role


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_other_isolation_levels_of_the_role(server: PostgresServer, harness: PostgresHarness, level: str) -> None:
    async with role(server, harness, f"default_transaction_isolation = '{level}'") as url:
        async with connected(url) as one, connected(url) as two:
            stores = [one.store, two.store]

            async def write(number: int) -> None:
                writer = Writer(stores[number % 2], f"{harness.unique_key()}-{number}")
                await writer.open()
                for turn in range(20):
                    await writer.append(b"%d" % turn)
                assert len(await read_all(stores[0], writer.key)) == 20

            await soon(asyncio.gather(*(write(number) for number in range(10))), 40)


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
async def test_processes_that_start_together_make_the_schema_at_any_isolation_level(
    server: PostgresServer, level: str
) -> None:
    async with PostgresHarness(server) as harness:
        async with role(server, harness, f"default_transaction_isolation = '{level}'") as url, harness.admin() as admin:
            fresh = f"fresh_{harness.token}"
            url = url.replace(harness.schema, fresh)
            transaction = admin.transaction()
            await transaction.start()
            await admin.execute(f"SELECT pg_advisory_xact_lock(hashtextextended('streamhub ' || '{fresh}', 0))")
            backends = [PostgresBackend(url) for _ in range(3)]
            starting = asyncio.gather(*(backend.connect() for backend in backends), return_exceptions=True)
            async with harness.admin() as onlooker:
                await waiting(onlooker, 3)
            await transaction.rollback()
            try:
                assert await soon(starting) == [None] * 3
            finally:
                for backend in backends:
                    await backend.aclose()
                await admin.execute(f'DROP SCHEMA IF EXISTS "{fresh}" CASCADE')


async def test_a_role_that_owns_the_schema_but_may_make_none_fills_it(server: PostgresServer) -> None:
    async with PostgresHarness(server) as harness, harness.admin() as admin:
        name, fresh = f"owner_{harness.token}", f"fresh_{harness.token}"
        await admin.execute(f"CREATE ROLE {name} LOGIN; CREATE SCHEMA {fresh} AUTHORIZATION {name}")
        try:
            url = (
                (harness.url or "")
                .replace(server.least_url.partition("?")[0], server.url.replace("postgres@", f"{name}@"))
                .replace(harness.schema, fresh)
            )
            async with connected(url) as backend:
                await Writer(backend.store, "k").open()
        finally:
            await admin.execute(f"DROP SCHEMA {fresh} CASCADE; DROP ROLE {name}")


# --- statements that take too long


async def test_what_was_given_up_does_not_pile_up_on_the_server(server: PostgresServer) -> None:
    """Each repetition opens a connection; the statement before it ends, though its lock does not."""
    async with PostgresHarness(server, options="timeout_seconds=0.2&connect_seconds=2") as harness:
        backend = await harness.connect_kept()
        writer = Writer(backend.store, harness.unique_key())
        await writer.open()
        item = writer.item(b"a")
        count = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'streamhub' AND wait_event_type = 'Lock'"
        )
        async with table_locked(harness, "stream") as onlooker:
            before = await onlooker.fetchval(count)
            for _ in range(12):
                with pytest.raises(BackendUnavailableError):
                    await append(backend.store, item)
            assert await onlooker.fetchval(count) - before <= 3 + 5
            await eventually(lambda: onlooker.fetchval(count), lambda found: found <= before + 1, within=5)
        assert (await append(backend.store, item)).tail == 1


async def test_many_calls_to_a_server_that_stands_still_end_together(server: PostgresServer) -> None:
    """Each call is bounded, and so is the wait for those before it."""
    async with PostgresHarness(server, options="timeout_seconds=0.5&connect_seconds=0.5") as harness:
        backend = await harness.connect_kept()
        keys = [harness.unique_key() for _ in range(20)]
        loop = asyncio.get_running_loop()
        async with harness.paused():
            begun = loop.time()
            outcomes = await asyncio.gather(
                *(backend.leases.acquire(key, owner="o", run="r", ttl_seconds=9) for key in keys),
                return_exceptions=True,
            )
            took = loop.time() - begun
        assert all(isinstance(outcome, BackendUnavailableError) for outcome in outcomes)
        assert took < 4


@pytest.mark.parametrize("setting", ["transaction_timeout = '300ms'", "lock_timeout = '300ms'"])
async def test_time_limits_of_the_role_are_outages(
    server: PostgresServer, harness: PostgresHarness, setting: str
) -> None:
    async with role(server, harness, setting) as url, connected(url) as backend:
        writer = Writer(backend.store, harness.unique_key())
        await writer.open()
        item = writer.item(b"a")
        async with table_locked(harness, "stream", "record"):
            with pytest.raises(BackendUnavailableError):
                await soon(append(backend.store, item))
        assert (await append(backend.store, item)).tail == 1


async def test_sessions_that_are_ended_when_idle_cost_nothing(server: PostgresServer, harness: PostgresHarness) -> None:
    async with role(server, harness, "idle_session_timeout = '200ms'") as url:
        harness.url = url
        here, there = await harness.hub(), await harness.hub(**UNPOLLED)
        key, source = harness.unique_key(), words(8)
        async with here.produce(key) as producer, reading(there, key) as live:
            for number, chunk in enumerate(source, 1):
                await producer.send(chunk)
                await producer.flush()
                await asyncio.sleep(0.15 * (number % 3))
                assert data_of(await live.has(number)) == source[:number]


# --- time


async def test_an_end_that_waited_for_its_row_is_kept_for_all_its_time(
    harness: PostgresHarness, backend: PostgresBackend
) -> None:
    writer = Writer(backend.store, harness.unique_key(), retention=Retention(ended_seconds=1.0))
    await writer.open()
    async with harness.admin() as stranger:
        transaction = stranger.transaction()
        await transaction.start()
        await stranger.execute(f'UPDATE "{harness.schema}".stream SET owner = owner WHERE key = $1', writer.key)
        ending = asyncio.create_task(writer.append(b"a", end=COMPLETED))
        async with harness.admin() as onlooker:
            await waiting(onlooker)
        await asyncio.sleep(1.2)  # longer than it is to be kept
        await transaction.commit()
        await soon(ending)
    assert (await described(backend.store, writer.key)).state == "ended"


async def test_a_touch_that_waited_revives_nothing(harness: PostgresHarness, backend: PostgresBackend) -> None:
    writer = Writer(backend.store, harness.unique_key(), retention=Retention(unfinished_seconds=0.5))
    await writer.open()
    async with table_locked(harness, "stream") as onlooker:
        touching = asyncio.create_task(backend.store.describe([writer.key], touch=True))
        await waiting(onlooker)
        await asyncio.sleep(0.9)  # its life ends meanwhile
    (info,) = await soon(touching)
    assert info is not None
    assert info.state == "expired"


async def test_generations_grow_though_the_lease_goes_while_another_waits_for_it(
    harness: PostgresHarness, backend: PostgresBackend
) -> None:
    """The clock has gone back, and the row of the lease is removed by a sweep that the acquisition waits for."""
    key, ahead = harness.unique_key(), 4_000_000_000_000
    lease = await backend.leases.acquire(key, owner="o", run="r", ttl_seconds=9, above=ahead)
    await backend.leases.release(lease)
    sweep = backend.store._sweeper._leases.replace("$1", "500")
    async with harness.admin() as sweeper:
        transaction = sweeper.transaction()
        await transaction.start()
        await sweeper.execute(sweep)
        acquiring = asyncio.create_task(backend.leases.acquire(key, owner="p", run="r", ttl_seconds=9))
        async with harness.admin() as onlooker:
            await waiting(onlooker)
        await transaction.commit()
        assert (await soon(acquiring)).generation > lease.generation


async def test_a_generation_below_what_was_swept_is_never_stored(
    harness: PostgresHarness, backend: PostgresBackend
) -> None:
    """The same, but the answer is lost: the owner asks again, over another connection, and finds its own row."""
    key, ahead = harness.unique_key(), 4_000_000_000_000
    lease = await backend.leases.acquire(key, owner="o", run="r", ttl_seconds=9, above=ahead)
    await backend.leases.release(lease)
    sweep, acquire = backend.store._sweeper._leases.replace("$1", "500"), backend.leases._queries["acquire"]
    async with harness.admin() as sweeper, harness.admin() as onlooker:
        transaction = sweeper.transaction()
        await transaction.start()
        await sweeper.execute(sweep)
        session = backend._session
        unheard = asyncio.create_task(session.fetch(session.changing, acquire, key, "p", "r", 9.0, 0, 0))
        await waiting(onlooker)
        await transaction.commit()
        await soon(unheard)
    other = await harness.connect_kept()
    again = await other.leases.acquire(key, owner="p", run="r", ttl_seconds=9)
    assert again.generation > lease.generation


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
async def test_an_acquisition_that_a_sweep_passed_is_undone_at_any_isolation_level(
    harness: PostgresHarness, backend: PostgresBackend, level: str
) -> None:
    """Behind a pooler the level is the role's: there is no setting of the session."""
    key, ahead = harness.unique_key(), 4_000_000_000_000
    await backend.leases.release(await backend.leases.acquire(key, owner="o", run="r", ttl_seconds=9, above=ahead))
    sweep, acquire = backend.store._sweeper._leases.replace("$1", "500"), backend.leases._queries["acquire"]
    async with harness.admin() as sweeper, harness.admin() as stranger, harness.admin() as onlooker:
        await stranger.execute(f"SET application_name = 'streamhub'; SET default_transaction_isolation = '{level}'")
        transaction = sweeper.transaction()
        await transaction.start()
        await sweeper.execute(sweep)
        acquiring = asyncio.create_task(stranger.fetch(acquire, key, "p", "r", 9.0, 0, 0))
        await waiting(onlooker)
        await transaction.commit()
        with pytest.raises(asyncpg.SerializationError):
            await soon(acquiring)
        assert await stranger.fetchval(acquire, key, "p", "r", 9.0, 0, 0) > ahead


async def test_sweeps_that_meet_at_the_counter_keep_the_highest(
    harness: PostgresHarness, backend: PostgresBackend
) -> None:
    for ours, theirs in ((5_000_000_000_000, 4_000_000_000_000), (6_000_000_000_000, 7_000_000_000_000)):
        lease = await backend.leases.acquire(harness.unique_key(), owner="o", run="r", ttl_seconds=9, above=ours)
        await backend.leases.release(lease)
        counter = f'"{harness.schema}".counter'
        async with harness.admin() as stranger, harness.admin() as onlooker:
            transaction = stranger.transaction()
            await transaction.start()
            await stranger.execute(f"UPDATE {counter} SET generation = {theirs}")
            sweeping = asyncio.create_task(backend.store.sweep(10))
            await waiting(onlooker)
            await transaction.commit()
            await soon(sweeping)
            assert await onlooker.fetchval(f"SELECT generation FROM {counter}") == max(lease.generation, theirs)


# --- notifications


async def test_a_feed_that_opens_while_the_backend_closes_ends(harness: PostgresHarness) -> None:
    for turns in range(6):
        backend = await harness.connect()

        async def follow(backend: PostgresBackend = backend) -> None:
            async with backend.store.changes() as feed:
                await feed.follow("k")
                async for _ in feed:
                    pass

        following = asyncio.create_task(follow())
        await settle(turns)
        closing = asyncio.create_task(backend.aclose())
        _, late = await asyncio.wait([following, closing], timeout=5)
        assert not late, turns
        assert isinstance(following.exception(), StreamHubError)


async def test_a_listener_that_fails_while_the_last_feed_leaves_harms_no_other(harness: PostgresHarness) -> None:
    for turns in range(12):
        backend = await harness.connect()
        notifications = backend._session.notifications
        first = backend.store.changes()
        feed = await first.__aenter__()
        await feed.follow("k")
        watch = notifications._watch
        assert watch is not None
        await eventually(lambda watch=watch: _answer(watch.hearing), bool)
        assert watch._ear is not None
        watch._ear._ended.set()  # the connection ends
        await settle(turns)
        leaving = asyncio.create_task(first.__aexit__(None, None, None))
        await settle(1)
        with contextlib.suppress(BackendUnavailableError):
            async with backend.store.changes() as second:
                await second.follow("k")
                await eventually(lambda watch=watch: _answer(watch._task.done()), bool)
        await leaving
        await backend.aclose()
        left = [task for task in asyncio.all_tasks() if task.get_name().startswith("postgresql")]
        assert left == [], turns


async def _answer(value: object) -> object:
    return value


async def test_a_flush_of_large_heads_fits_into_its_notifications(server: PostgresServer) -> None:
    """A record and an end of ``push_bytes`` each, behind others."""
    async with PostgresHarness(server, options="push_bytes=1500") as harness:
        backend = await harness.connect_kept()
        sizes = [(900, 0), (1450, 1350), (1450, 1350), (450, 0)]
        writers = [Writer(backend.store, f"{harness.unique_key()} {number}") for number in range(len(sizes))]
        for writer in writers:
            await writer.open()
        statements = 0
        fetch = backend.store._appender._settle

        async def counting(*arguments: Any) -> Any:
            nonlocal statements
            statements += 1
            return await fetch(*arguments)

        backend.store._appender._settle = counting  # type: ignore[method-assign]
        items = [
            writer.item(bytes(size), end=End(state="failed", code="x", message="m" * end) if end else None)
            for writer, (size, end) in zip(writers, sizes, strict=True)
        ]
        answers = await backend.store.append(items)
        assert not any(isinstance(answer, StreamHubError) for answer in answers)
        assert statements == 1


async def test_nobody_without_rights_puts_words_into_a_stream(server: PostgresServer, harness: PostgresHarness) -> None:
    """Whoever may connect may notify, and knows every stream's hash, generation and tail, but not the channel."""
    name = f"stranger_{harness.token}"
    server.psql(f"CREATE ROLE {name} LOGIN")
    here, there = await harness.hub(), await harness.hub(**UNPOLLED)
    key = harness.unique_key()
    try:
        async with here.produce(key) as producer, reading(there, key) as live:
            await producer.send(b"true")
            await producer.flush()
            await live.has(1)
            generation = (await described(here.store, key)).generation
            head = f"1 a{stream_topic(key)},{generation},1,2,{base64.b64encode(pack_chunks([b'forged'])).decode()},"
            async with harness.admin() as admin:
                channel = await admin.fetchval(f'SELECT name FROM "{harness.schema}".channel')
                listening = await admin.fetch("SELECT query FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            stranger = await asyncpg.connect(server.url.replace("postgres@", f"{name}@"))
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await stranger.fetchval(f'SELECT name FROM "{harness.schema}".channel')
            assert not await stranger.fetch("SELECT query FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            for guess in ("streamhub", f"streamhub_{harness.schema}"):
                await stranger.execute("SELECT pg_notify($1, $2)", guess, head)
            await stranger.close()
            await producer.send(b"true too")
            await producer.flush()
            assert data_of(await live.has(2)) == [b"true", b"true too"]
            # So the test can tell: whoever knows the channel can.
            assert any(channel in row["query"] for row in listening)
            async with harness.admin() as admin:
                await admin.execute("SELECT pg_notify($1, $2)", channel, head.replace(",1,2,", ",2,3,"))
            assert data_of(await live.has(3))[2] == b"forged"
    finally:
        server.psql(f"DROP ROLE {name}")


async def test_a_channel_of_another_name_is_found(server: PostgresServer) -> None:
    """Its name is changed, as one does who no longer trusts somebody: what listens to the old one is replaced."""
    async with PostgresHarness(server, options="probe_seconds=0.5") as harness:
        here, there = await harness.hub(), await harness.hub(**UNPOLLED)
        key = harness.unique_key()
        async with here.produce(key) as producer, reading(there, key) as live, harness.admin() as admin:
            await producer.send(b"1")
            await live.has(1)
            await admin.execute(f"UPDATE \"{harness.schema}\".channel SET name = 'streamhub_another'")
            await producer.send(b"2")
            await live.has(2)
            listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%streamhub_another%'"
            await eventually(lambda: admin.fetchval(listening), lambda found: found == 2)
            await producer.send(b"3")
            assert data_of(await live.has(3)) == [b"1", b"2", b"3"]


async def test_a_channel_that_changes_its_name_before_the_first_probe_is_found(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What listens has never heard anything, and could not tell that from a server which carries no notifications."""
    async with PostgresHarness(server, options="probe_seconds=0.5") as harness, harness.admin() as admin:
        backend = await harness.connect_kept()
        renamed, test = [], Ear._test

        async def rename_and_test(self: Ear) -> None:
            if not renamed:
                renamed.append(await admin.execute(f"UPDATE \"{harness.schema}\".channel SET name = 'streamhub_new'"))
            await test(self)

        monkeypatch.setattr(Ear, "_test", rename_and_test)
        async with backend.store.changes() as feed:
            await feed.follow("k")
            with pytest.raises(BackendUnavailableError, match="another name"):
                async with asyncio.timeout(10):
                    async for _ in feed:
                        pass
        async with backend.store.changes():
            await eventually(backend.about, lambda told: told["notifications"] == "heard")


# --- secrets


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:123/secret@db.example.org/chat",
        "postgresql://app:123/4?secret@db.example.org/chat",
        "postgresql://app:12,3/secret@h/chat",
        "postgresql:///secret@h/chat",
    ],
)
def test_a_password_that_was_not_encoded_is_not_shown(url: str) -> None:
    try:
        target, options = parse_url(url)
    except ConfigError as exc:
        assert "secret" not in str(exc)
    else:
        assert "secret" not in target.where
        assert "secret" not in repr(target) + repr(options)


# --- a synchronous standby


async def test_an_append_that_is_answered_by_its_nonce_has_reached_the_standby() -> None:
    """Its first attempt was ended while it waited for the standby: its repetition waits, too."""
    with started(servers.postgres_binaries("18")) as primary:
        replica = primary.standby(config=QUICK)
        try:
            replica.start()
            async with connected(f"{primary.url}?timeout_seconds=2&connect_seconds=2") as backend:
                writer = Writer(backend.store, "k")
                await writer.open()
                primary.psql("ALTER SYSTEM SET synchronous_standby_names = '*'")
                primary.psql("SELECT pg_reload_conf()")
                await writer.append(b"a")
                await asyncio.to_thread(replica.stop)
                item = writer.item(b"b")
                first = asyncio.create_task(append(backend.store, item))

                async def stuck() -> str:
                    return await asyncio.to_thread(
                        primary.psql, "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' LIMIT 1"
                    )

                pid = await eventually(stuck)
                primary.psql(f"SELECT pg_terminate_backend({pid})")
                with pytest.raises(BackendUnavailableError):
                    await soon(first)
                with pytest.raises(BackendUnavailableError):
                    await soon(append(backend.store, item))
        finally:
            primary.psql("ALTER SYSTEM RESET synchronous_standby_names")
            primary.psql("SELECT pg_reload_conf()")
            replica.close()
