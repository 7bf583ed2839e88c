"""What may happen to a PostgreSQL server, its connections and its clients, on servers of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
import servers
from postgres_proxy import proxied
from postgres_servers import QUICK, PostgresServer, started
from postgres_support import PostgresHarness, connected
from streamhub_postgres import PostgresBackend
from work import ROUNDS

from streamhub import Hub, HubSettings
from streamhub.conformance.drive import UNPOLLED, data_of, reading, replay, soon, words
from streamhub.conformance.waiting import eventually, settle
from streamhub.conformance.writer import Writer, append, described, read_all
from streamhub.errors import BackendUnavailableError, HubClosedError, StreamHubError
from streamhub.types import COMPLETED, Lease, Read, RunRef

TIMES = "timeout_seconds=3&connect_seconds=3"


@pytest.fixture
def server() -> PostgresServer:
    return servers.postgres_server("18")


@pytest.fixture
async def harness(server: PostgresServer) -> AsyncIterator[PostgresHarness]:
    async with PostgresHarness(server, options=TIMES) as harness:
        yield harness


@pytest.fixture
async def backend(harness: PostgresHarness) -> PostgresBackend:
    return await harness.connect_kept()


# --- every statement


class Calls:
    """Every kind of call, each ready to be made, and to be made again."""

    def __init__(self, backend: PostgresBackend, key: str) -> None:
        self.backend = backend
        self.writer = Writer(backend.store, key)
        self.key = key
        self.lease: Lease | None = None

    async def prepare(self) -> None:
        await self.writer.open()
        await self.writer.append(b"first")
        self.lease = await self.backend.leases.acquire(
            self.key, owner="me", run="run-1", ttl_seconds=60, above=self.writer.generation
        )
        self.next = self.writer.item(b"second", end=COMPLETED)
        self.resumed = Writer(self.backend.store, self.key + " resumed")
        await self.resumed.open()
        await self.resumed.append(b"first")
        self.seen = (await described(self.backend.store, self.resumed.key)).seen

    async def _resume(self) -> object:
        return await self.backend.store.open(
            self.resumed.key, self.resumed.generation + 1, owner="again", run="run-1", expect=self.seen, resume=True,
            retention=self.resumed.retention,
        )  # fmt: skip

    async def _begin(self) -> object:
        return await self.backend.store.open(
            self.key + " new", 3, owner="new", run="run-1", expect=None, resume=False, retention=self.writer.retention
        )

    async def _keys(self) -> object:
        return [key async for key in self.backend.store.keys(self.key)]

    def all(self) -> dict[str, Callable[[], Awaitable[object]]]:
        backend, key, lease = self.backend, self.key, self.lease
        assert lease is not None
        return {
            "append": lambda: append(backend.store, self.next),
            "resume": self._resume,
            "begin": self._begin,
            "read": lambda: backend.store.read([Read(key, 0)]),
            "describe": lambda: backend.store.describe([key]),
            "touch": lambda: backend.store.describe([key], touch=True),
            "keys": self._keys,
            "sweep": lambda: backend.store.sweep(10),
            "acquire": lambda: backend.leases.acquire(key + " 2", owner="other", run="run-2", ttl_seconds=60),
            "renew": lambda: backend.leases.renew([lease]),
            "holders": lambda: backend.leases.holders([key]),
            "release": lambda: backend.leases.release(lease),
            "request": lambda: backend.cancels.request(key, "run-1", reason="r", requested_by=None, ttl_seconds=60),
            "pending": lambda: backend.cancels.pending([RunRef(key, "run-1")]),
            "delete": lambda: backend.store.delete(self.resumed.key),
        }


CALLS = (
    "append", "resume", "begin", "read", "describe", "touch", "keys", "sweep", "acquire", "renew", "holders", "release",
    "request", "pending", "delete",
)  # fmt: skip

WAITING = """
SELECT pid FROM pg_stat_activity WHERE application_name = 'streamhub' AND wait_event_type = 'Lock' AND state = 'active'
    AND EXISTS (SELECT 1 FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
        WHERE l.pid = pg_stat_activity.pid AND c.relnamespace = $1::regnamespace)
"""


@contextlib.asynccontextmanager
async def locked(harness: PostgresHarness) -> AsyncGenerator[Any]:
    """Let every statement wait, whatever it is, until the block is left; yields a connection that looks on."""
    async with harness.admin() as holder, harness.admin() as onlooker:
        transaction = holder.transaction()
        await transaction.start()
        tables = ", ".join(f'"{harness.schema}".{name}' for name in ("stream", "lease", "request", "record", "garbage"))
        await holder.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
        try:
            yield onlooker
        finally:
            await transaction.rollback()


async def waiting(harness: PostgresHarness, onlooker: Any) -> int:
    """Wait until a statement waits, and return the process that runs it."""
    found = await eventually(lambda: onlooker.fetch(WAITING, harness.schema))
    return found[0]["pid"]


@pytest.mark.parametrize("name", CALLS)
async def test_a_process_killed_in_the_middle_of_a_statement_leaves_nothing_half_done(
    harness: PostgresHarness, backend: PostgresBackend, name: str
) -> None:
    calls = Calls(backend, harness.unique_key())
    await calls.prepare()
    assert set(calls.all()) == set(CALLS)
    call = calls.all()[name]
    async with locked(harness) as onlooker:
        running = asyncio.create_task(call())  # pyright: ignore
        await onlooker.fetchval("SELECT pg_terminate_backend($1)", await waiting(harness, onlooker))
        with pytest.raises(BackendUnavailableError) as caught:
            await soon(running)
        assert isinstance(caught.value.__cause__, asyncpg.PostgresError)
    # The very same call is made again, and nothing of the first one is in its way.
    await soon(call())
    assert await read_all(backend.store, calls.key) == [b"first", *([b"second"] if name == "append" else [])]


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_takes_too_long_ends_and_can_be_repeated(server: PostgresServer, name: str) -> None:
    async with PostgresHarness(server, options="timeout_seconds=0.3") as harness:
        backend = await harness.connect_kept()
        calls = Calls(backend, harness.unique_key())
        await calls.prepare()
        call = calls.all()[name]
        async with locked(harness):
            with pytest.raises(BackendUnavailableError, match=r"no answer within 0\.3 s"):
                await soon(call())
        # What was given up may still be done by the server: the repetition is harmless.
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(BackendUnavailableError):
                    await call()
                    break
        assert await read_all(backend.store, calls.key) == [b"first", *([b"second"] if name == "append" else [])]


@pytest.mark.parametrize("name", ["append", "resume", "begin", "acquire", "request", "delete", "renew", "release"])
async def test_a_reply_lost_after_the_commit_costs_nothing(server: PostgresServer, name: str) -> None:
    async with PostgresHarness(server, options=TIMES) as harness, proxied("127.0.0.1", server.port) as proxy:
        harness.url = (harness.url or "").replace(f":{server.port}/", f":{proxy.port}/")
        backend = await harness.connect_kept()
        for attempt in range(2):  # the second time every statement is prepared
            key = harness.unique_key()
            calls = Calls(backend, key)
            await calls.prepare()
            call = calls.all()[name]
            if attempt == 0:
                continue
            marker = {"append": calls.next.nonce, "resume": b"again", "acquire": b"other"}.get(name, key.encode())
            lost = proxy.lose_reply(marker)
            with pytest.raises(BackendUnavailableError):
                await soon(call())
            assert lost.is_set()
            again = await soon(call())
            assert await read_all(backend.store, key) == [b"first", *([b"second"] if name == "append" else [])]
            if name == "resume":
                assert [span.first for span in again.spans] == [1, 2]  # pyright: ignore
            if name == "acquire":
                (holder,) = await backend.leases.holders([key + " 2"])
                assert holder.generation == again.generation  # pyright: ignore
            if name == "request":
                assert again is False


async def test_calls_cancelled_at_any_await_leave_the_connections_usable(server: PostgresServer) -> None:
    # By a name of their own: a pooler may hold others, of tests before.
    async with PostgresHarness(server, options=f"{TIMES}&application_name=cancelled") as harness:
        backend = await harness.connect_kept()

        async def connections() -> list[str]:
            async with harness.admin() as admin:
                found = await admin.fetch("SELECT * FROM pg_stat_activity WHERE application_name LIKE 'cancelled%'")
                return [str(row) for row in found]

        calls = Calls(backend, harness.unique_key())
        await calls.prepare()
        for turns in range(14):
            for name in CALLS:
                # Nothing of what was done before is to be refused because of it.
                calls = Calls(backend, harness.unique_key())
                await calls.prepare()
                call = calls.all()[name]
                task = asyncio.ensure_future(call())
                await settle(turns)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                await soon(call())
                assert await read_all(backend.store, calls.key) == [
                    b"first",
                    *([b"second"] if name == "append" else []),
                ]
        assert len(await eventually(connections, lambda found: len(found) <= 3)) <= 3


async def test_closing_while_statements_run_tells_their_callers(harness: PostgresHarness) -> None:
    backend = await harness.connect()
    calls = Calls(backend, harness.unique_key())
    await calls.prepare()
    async with locked(harness) as onlooker:
        running = [asyncio.ensure_future(call()) for call in calls.all().values()]
        await waiting(harness, onlooker)
        await soon(backend.aclose())
        for outcome in await soon(asyncio.gather(*running, return_exceptions=True)):
            assert isinstance(outcome, HubClosedError), outcome
    await soon(backend.aclose())


# --- locks of others


async def test_a_deadlock_is_retried(harness: PostgresHarness, backend: PostgresBackend) -> None:
    one, two = sorted([Writer(backend.store, harness.unique_key()) for _ in range(2)], key=lambda writer: writer.key)
    for writer in (one, two):
        await writer.open()
    update = f'UPDATE "{harness.schema}".stream SET owner = owner WHERE key = $1'
    async with harness.admin() as stranger, harness.admin() as onlooker:
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'"
        before = await onlooker.fetchval(deadlocks)
        transaction = stranger.transaction()
        await transaction.start()
        await stranger.execute(update, two.key)
        # It has the first row, and waits for the second.
        flush = asyncio.create_task(backend.store.append([two.item(b"b"), one.item(b"a")]))
        await waiting_for_a_row(onlooker)
        # The stranger waits for the first one: one of the two is undone.
        with contextlib.suppress(asyncpg.DeadlockDetectedError):
            await stranger.execute(update, one.key)
        await transaction.rollback()
        answers = await soon(flush)
        assert not any(isinstance(answer, StreamHubError) for answer in answers)
        await eventually(lambda: onlooker.fetchval(deadlocks), lambda count: count > before)
    assert [await read_all(backend.store, writer.key) for writer in (one, two)] == [[b"a"], [b"b"]]


async def waiting_for_a_row(onlooker: Any) -> int:
    found = await eventually(
        lambda: onlooker.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'streamhub' AND wait_event_type = 'Lock'"
        )
    )
    return found[0]["pid"]


async def test_a_row_that_a_stranger_holds_delays_its_stream_only(
    harness: PostgresHarness, backend: PostgresBackend
) -> None:
    """Renewals, reads and other streams' opens go on while an append, and then an open, wait."""
    held, other = Writer(backend.store, harness.unique_key()), Writer(backend.store, harness.unique_key())
    await held.open()
    lease = await backend.leases.acquire(held.key, owner="me", run="run-1", ttl_seconds=60)
    async with harness.admin() as stranger, harness.admin() as onlooker:
        transaction = stranger.transaction()
        await transaction.start()
        await stranger.execute(f'UPDATE "{harness.schema}".stream SET owner = owner WHERE key = $1', held.key)
        flush = asyncio.create_task(held.append(b"a"))
        await waiting_for_a_row(onlooker)
        async with asyncio.timeout(2):  # less than timeout_seconds
            assert list(await backend.leases.renew([lease])) == [True]
            await described(backend.store, held.key)
            # A life that is being extended already is left alone.
            await backend.store.describe([held.key], touch=True)
            assert await backend.store.sweep(10) == 0
            await other.open()
        assert not flush.done()
        await transaction.rollback()
        await soon(flush)
    assert await read_all(backend.store, held.key) == [b"a"]


async def test_a_statement_timeout_of_the_role_is_an_outage(server: PostgresServer, harness: PostgresHarness) -> None:
    role = f"hasty_{harness.token}"
    server.psql(f"CREATE ROLE {role} LOGIN SUPERUSER; ALTER ROLE {role} SET statement_timeout = '300ms'")
    url = (harness.url or "").replace(server.least_url.partition("?")[0], server.url.replace("postgres@", f"{role}@"))
    try:
        async with connected(url) as backend:
            writer = Writer(backend.store, harness.unique_key())
            await writer.open()
            item = writer.item(b"a")
            async with locked(harness):
                with pytest.raises(BackendUnavailableError, match="statement timeout"):
                    await soon(append(backend.store, item))
            assert (await append(backend.store, item)).tail == 1
    finally:
        server.psql(f"DROP ROLE {role}")


async def test_too_many_connections_are_an_outage(server: PostgresServer, harness: PostgresHarness) -> None:
    role = f"narrow_{harness.token}"
    server.psql(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 2; GRANT streamhub_app TO {role}")
    url = (harness.url or "").replace(server.least_url.partition("?")[0], server.url.replace("postgres@", f"{role}@"))
    try:
        async with connected(url) as backend:
            writer = Writer(backend.store, harness.unique_key())
            await backend.store.describe([writer.key])
            await writer.open()
            with pytest.raises(BackendUnavailableError, match="too many connections"):
                await writer.append(b"a")
            server.psql(f"ALTER ROLE {role} CONNECTION LIMIT 10")
            assert (await writer.append(b"a")).tail == 1
    finally:
        await harness.kill()
        server.psql(f"DROP ROLE {role}")


# --- connections that break


async def test_listeners_killed_around_bursts_lose_nothing(harness: PostgresHarness) -> None:
    """The listener is killed sixty times; nobody polls, and nobody renews."""
    here, there = await harness.hub(), await harness.hub(**UNPOLLED)
    key, source, dice = harness.unique_key(), words(1200), random.Random(60)
    async with here.produce(key) as producer, reading(there, key) as live:
        for number in range(60):
            burst = source[number * 20 : number * 20 + 20]
            killing = asyncio.create_task(harness.kill_notifications())
            for chunk in burst:
                await producer.send(chunk)
                if dice.random() < 0.3:
                    await producer.flush()
            await killing
            assert data_of(await live.has((number + 1) * 20)) == source[: (number + 1) * 20]


async def test_a_listener_that_went_deaf_is_replaced(server: PostgresServer) -> None:
    """Its connection is dead, and nobody is told: only the probe finds out."""
    options = f"{TIMES}&probe_seconds=0.5&listen_host=127.0.0.1"
    async with PostgresHarness(server) as harness, proxied("127.0.0.1", server.port) as proxy:
        harness.url = f"{(harness.url or '').partition('&')[0]}&{options}&listen_port={proxy.port}"
        here, there = await harness.hub(), await harness.hub(**UNPOLLED)
        key = harness.unique_key()
        async with here.produce(key) as producer, reading(there, key) as live:
            await producer.send(b"1")
            await live.has(1)
            for number in (2, 3):
                await eventually(_count(proxy.connections), bool)
                proxy.swallow(new=False)
                await producer.send(b"%d" % number)
                await live.has(number)
        # Each time another connection took its place, at least in the process that is told of it here.
        assert proxy.accepted >= 2 + 2


def _count(items: Any) -> Callable[[], Awaitable[int]]:
    async def count() -> int:
        return len(items)

    return count


async def test_half_open_connections_end_within_their_time(server: PostgresServer) -> None:
    async with PostgresHarness(server) as harness, proxied("127.0.0.1", server.port) as proxy:
        harness.url = (harness.url or "").replace(f":{server.port}/", f":{proxy.port}/").partition("&")[0]
        harness.url += "&timeout_seconds=0.5&connect_seconds=0.5&probe_seconds=0.5"
        here, there = await harness.hub(lease_seconds=60.0), await harness.hub(lease_seconds=60.0)
        key, source = harness.unique_key(), words(40)
        async with here.produce(key) as producer, reading(there, key) as live:
            for number in range(0, 40, 10):
                await producer.send(source[number])
                await live.has(number + 1)
                proxy.swallow(new=True)
                for chunk in source[number + 1 : number + 10]:
                    await producer.send(chunk)
                await settle(100)
                proxy.heal()
                await soon(producer.flush())
                assert data_of(await live.has(number + 10)) == source[: number + 10]
        assert data_of(await replay(there, key)) == source


async def test_backends_killed_at_random_under_load(harness: PostgresHarness) -> None:
    """Every chunk is stored once, though connections of all kinds are killed all the time."""
    settings = {"lease_seconds": 60.0, "poll_seconds": 0.3}
    here, there = await harness.hub(**settings), await harness.hub(**settings)
    sent: dict[str, list[bytes]] = {harness.unique_key(): [] for _ in range(4)}
    killed, enough = 0, 30 * ROUNDS

    async def kill() -> None:
        nonlocal killed
        async with harness.admin() as admin:
            while killed < enough:
                killed += await admin.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity"
                    " WHERE application_name LIKE 'streamhub%' ORDER BY random() LIMIT 2) AS picked"
                )
                await asyncio.sleep(0.05)

    async def produce(key: str) -> None:
        async with here.produce(key, wait=20) as producer:
            while killed < enough or len(sent[key]) < 200:
                sent[key].append(b"%d" % len(sent[key]))
                await producer.send(sent[key][-1])
                if len(sent[key]) % 7 == 0:
                    await producer.flush()

    async with contextlib.AsyncExitStack() as stack:
        lives = [await stack.enter_async_context(reading(there, key, wait=30)) for key in sent]
        await soon(asyncio.gather(kill(), *map(produce, sent)), 50)
        for key, live in zip(sent, lives, strict=True):
            assert data_of(await live.finished()) == sent[key]


# --- servers that fall


async def _acknowledging(hub: Hub, key: str, acknowledged: list[bytes], stop: asyncio.Event) -> None:
    """Produce until told to stop, and remember what was acknowledged."""
    async with hub.produce(key) as producer:
        number = 0
        while not stop.is_set():
            sent = [f"{key}:{number + part}".encode() for part in range(3)]
            number += 3
            for chunk in sent:
                await producer.send(chunk)
            await producer.flush()
            acknowledged.extend(sent)


@contextlib.asynccontextmanager
async def hubs(urls: list[str], **settings: Any) -> AsyncGenerator[list[Hub]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Hub.from_url(url, settings=HubSettings(**settings))) for url in urls]


async def test_an_immediate_shutdown_under_load_loses_nothing_acknowledged() -> None:
    """The server falls as in a crash, and recovers from its log; with fsync, as in production."""
    with started(servers.postgres_binaries("18"), config=["checkpoint_timeout = 30s"]) as server:
        url = f"{server.url}?{TIMES}"
        keys = [f"s{number}" for number in range(8)]
        acknowledged: dict[str, list[bytes]] = {key: [] for key in keys}
        stop = asyncio.Event()
        async with hubs([url, url], lease_seconds=120.0, outage_seconds=60.0) as (hub, reader):
            tasks = [asyncio.create_task(_acknowledging(hub, key, acknowledged[key], stop)) for key in keys]

            async def progressed(before: int) -> bool:
                return sum(map(len, acknowledged.values())) > before + 400

            for _ in range(2 + ROUNDS):
                before = sum(map(len, acknowledged.values()))
                await eventually(lambda before=before: progressed(before), within=60)
                await asyncio.to_thread(server.stop, signal.SIGQUIT)
                await asyncio.to_thread(server.start)
            stop.set()
            await soon(asyncio.gather(*tasks), 60)
            for key in keys:
                assert data_of(await replay(reader, key)) == acknowledged[key]


async def test_a_replica_promoted_under_load_takes_over() -> None:
    """A synchronous standby has all that was acknowledged; the old primary comes back read-only, and is not used."""
    with started(servers.postgres_binaries("18")) as primary:
        replica = primary.standby(config=QUICK)
        try:
            replica.start()
            primary.psql("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.psql("SELECT pg_reload_conf()")
            url = f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{replica.port}/postgres?{TIMES}"
            keys = [f"s{number}" for number in range(4)]
            acknowledged: dict[str, list[bytes]] = {key: [] for key in keys}
            stop = asyncio.Event()

            async def progressed(before: int) -> bool:
                return sum(map(len, acknowledged.values())) > before + 300

            async with hubs([url, url], lease_seconds=120.0, outage_seconds=60.0) as (hub, reader):
                tasks = [asyncio.create_task(_acknowledging(hub, key, acknowledged[key], stop)) for key in keys]
                await eventually(lambda: progressed(0), within=60)
                await asyncio.to_thread(primary.stop, signal.SIGQUIT)
                await asyncio.to_thread(replica.promote)
                before = sum(map(len, acknowledged.values()))
                await eventually(lambda: progressed(before), within=60)
                stop.set()
                await soon(asyncio.gather(*tasks), 60)
                for key in keys:
                    assert data_of(await replay(reader, key)) == acknowledged[key]
        finally:
            replica.close()


async def test_a_server_that_turns_read_only_is_an_outage() -> None:
    """As after a failover that left the name where it was: 25006, then no connection until it takes writes again."""
    with started(servers.postgres_binaries("18")) as server:
        async with connected(f"{server.url}?{TIMES}") as backend:
            writer = Writer(backend.store, "k")
            await writer.open()
            await writer.append(b"a")
            server.psql("ALTER SYSTEM SET default_transaction_read_only = on")
            server.psql("SELECT pg_reload_conf()")
            # A session that is idle reads its settings anew a moment later: what it stores until then is stored.
            with pytest.raises(BackendUnavailableError, match="read-only"):
                async with asyncio.timeout(20):
                    while True:
                        await writer.append(b"b")
            kept, item = await read_all(backend.store, "k"), writer.item(b"c")
            with pytest.raises(BackendUnavailableError, match="read-write"):
                await append(backend.store, item)
            server.psql("ALTER SYSTEM SET default_transaction_read_only = off")
            server.psql("SELECT pg_reload_conf()")
            async with asyncio.timeout(20):
                while True:
                    with contextlib.suppress(BackendUnavailableError):
                        assert (await append(backend.store, item)).tail == len(kept) + 1
                        break
            assert await read_all(backend.store, "k") == [*kept, b"c"]


async def test_an_asynchronous_failover_is_healed_or_told() -> None:
    """What the new primary does not have is sent again by who still holds it; nobody reads a spliced stream."""
    with started(servers.postgres_binaries("18")) as primary:
        replica = primary.standby(config=QUICK)
        try:
            replica.start()
            url = f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{replica.port}/postgres?{TIMES}"
            async with hubs([url, url], lease_seconds=120.0, outage_seconds=60.0) as (hub, reader):
                async with hub.produce("k") as producer, reading(reader, "k") as live:
                    source = words(60)
                    for chunk in source[:20]:
                        await producer.send(chunk)
                    await producer.flush()

                    async def caught_up() -> bool:
                        return (
                            replica.psql(
                                "SELECT pg_last_wal_replay_lsn() >= '"
                                + primary.psql("SELECT pg_current_wal_lsn()")
                                + "'::pg_lsn"
                            )
                            == "t"
                        )

                    await eventually(caught_up)
                    await asyncio.to_thread(replica.psql, "SELECT pg_wal_replay_pause()")
                    replica_receiver = replica.psql("SELECT pid FROM pg_stat_wal_receiver")
                    os.kill(int(replica_receiver), signal.SIGSTOP)
                    try:
                        for chunk in source[20:40]:
                            await producer.send(chunk)
                        await producer.flush()
                        await live.has(40)
                        await asyncio.to_thread(primary.stop, signal.SIGQUIT)
                    finally:
                        os.kill(int(replica_receiver), signal.SIGCONT)
                    # What was acknowledged is not there: the failover loses it.
                    assert replica.psql("SELECT tail FROM streamhub.stream") == "20"
                    await asyncio.to_thread(replica.psql, "SELECT pg_wal_replay_resume()")
                    await asyncio.to_thread(replica.promote)
                    for chunk in source[40:]:
                        await producer.send(chunk)
                    await soon(producer.flush(), 40)
                    assert data_of(await live.has(60, 40)) == source
                assert data_of(await replay(reader, "k")) == source
        finally:
            replica.close()
