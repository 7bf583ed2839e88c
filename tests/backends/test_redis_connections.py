"""The redis backend and its connections: what breaks them, what the server refuses, and who may use them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import redis_servers
import servers
from ports import free_port
from redis_support import RedisHarness, connected, until
from streamhub_redis import RedisBackend

from streamhub import Hub
from streamhub.conformance.writer import Writer, acquire, append, described, read_all
from streamhub.errors import (
    BackendUnavailableError,
    ConfigError,
    HubClosedError,
    StreamHubError,
)
from streamhub.kit import MAX_ITEMS, Inbox
from streamhub.types import COMPLETED, Append, Change, Read, RunRef

CERTIFICATE = Path(__file__).parent.parent / "data" / "localhost.pem"


@pytest.fixture(params=servers.REDIS_FLAVOURS)
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[RedisHarness]:
    async with RedisHarness(servers.redis_server(request.param)) as harness:
        yield harness


@pytest.fixture
async def backend(harness: RedisHarness) -> RedisBackend:
    backend = await harness.make()
    assert isinstance(backend, RedisBackend)
    return backend


# --- cancelled callers


async def test_a_cancelled_caller_leaves_the_connection_usable(harness: RedisHarness, backend: RedisBackend) -> None:
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    with harness.server.admin() as admin:
        before = int(admin.info("clients")["connected_clients"])
        for number in range(60):
            item = writer.item(b"%d" % number)
            task = asyncio.create_task(backend.store.append([item]))
            for _ in range(number % 12):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            # It may or may not have happened: the same append says which, and nobody gets another's reply.
            await writer.put(item)
            assert (await described(backend.store, writer.key)).tail == number + 1
        assert int(admin.info("clients")["connected_clients"]) <= before + 1
    assert await read_all(backend.store, writer.key) == [b"%d" % number for number in range(60)]


async def test_a_cancelled_follow_leaves_the_feed_usable(harness: RedisHarness, backend: RedisBackend) -> None:
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    async with backend.store.changes() as feed, asyncio.timeout(20):
        hints = aiter(feed)
        for turns in range(12):
            task = asyncio.create_task(feed.follow(writer.key))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await feed.unfollow(writer.key)
            await feed.follow(writer.key)
            await writer.append(b"x")
            assert (await anext(hints)).key == writer.key
            await feed.unfollow(writer.key)


async def test_a_cancelled_opening_of_a_feed_leaves_no_connection(harness: RedisHarness, backend: RedisBackend) -> None:
    def listeners() -> int:
        with harness.server.admin() as admin:
            return len(admin.client_list(_type="pubsub")) + len(admin.client_list(_type="normal"))

    await backend.store.describe(["warm"])
    before = listeners()

    async def open_feed() -> None:
        async with backend.store.changes() as feed:
            await feed.follow("k")

    for turns in range(25):
        task = asyncio.create_task(open_feed())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await until(lambda: listeners() <= before)


# --- connections that break


async def test_an_idle_connection_that_the_server_closed_is_no_error(
    harness: RedisHarness, backend: RedisBackend
) -> None:
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    for number in range(3):
        await harness.kill_connections()
        await asyncio.sleep(0.05)  # for the end of the connection to arrive
        await writer.append(b"%d" % number)
        await harness.kill_connections()
        await asyncio.sleep(0.05)
        assert len(await read_all(backend.store, writer.key)) == number + 1


async def test_a_listener_that_hears_nothing_is_given_up(harness: RedisHarness) -> None:
    harness.url = f"{harness.url}&ping_seconds=0.2"
    backend = await harness.make()
    async with backend.store.changes() as feed:
        await feed.follow("k")
        hints = aiter(feed)
        waiting = asyncio.ensure_future(anext(hints))
        # While the server answers, silence is no reason to give up.
        await asyncio.wait([waiting], timeout=1.0)
        assert not waiting.done()
        async with harness.paused(), asyncio.timeout(5):
            with pytest.raises(BackendUnavailableError, match="has not answered"):
                await waiting
            with pytest.raises(BackendUnavailableError):
                await feed.follow("another")
    async with backend.store.changes() as feed, asyncio.timeout(10):
        await feed.follow("k")


async def test_an_empty_listener_is_tested_too(harness: RedisHarness) -> None:
    harness.url = f"{harness.url}&ping_seconds=0.4"
    backend = await harness.make()
    async with backend.store.changes() as feed:
        waiting = asyncio.ensure_future(anext(aiter(feed)))
        await asyncio.wait([waiting], timeout=1.0)
        assert not waiting.done()
        async with harness.paused(), asyncio.timeout(5):
            with pytest.raises(BackendUnavailableError):
                await waiting


async def test_calls_on_a_frozen_server_end_within_their_time(harness: RedisHarness) -> None:
    harness.url = f"{harness.server.url}?prefix={harness.store_prefix}&timeout_seconds=0.3&connect_seconds=0.3"
    backend = await harness.make()
    key = harness.unique_key()
    async with harness.paused():
        for _ in range(2):
            async with asyncio.timeout(3):
                outcomes = await asyncio.gather(
                    backend.ping(),
                    backend.store.describe([key]),
                    backend.leases.holders([key]),
                    backend.cancels.pending([]),
                    return_exceptions=True,
                )
            assert [type(outcome) for outcome in outcomes] == [BackendUnavailableError] * 3 + [list]
    assert await backend.store.describe([key]) == [None]


async def test_a_reply_that_comes_too_late_is_nobodys(harness: RedisHarness) -> None:
    harness.url = f"{harness.server.url}?prefix={harness.store_prefix}&timeout_seconds=0.2&connect_seconds=2"
    backend = await harness.make()
    writers = [Writer(backend.store, harness.unique_key()) for _ in range(12)]
    for number, writer in enumerate(writers, 1):
        await writer.open()
        await writer.append(*[b"a"] * number)
    for _ in range(4):
        async with harness.paused():
            late = await asyncio.gather(
                *(described(backend.store, writer.key) for writer in writers), return_exceptions=True
            )
        assert {type(outcome) for outcome in late} == {BackendUnavailableError}
        infos = await asyncio.gather(*(described(backend.store, writer.key) for writer in writers))
        assert [info.tail for info in infos] == list(range(1, 13))


async def test_connection_at_rest_outlives_the_time_limit_of_calls(harness: RedisHarness) -> None:
    harness.url = f"{harness.server.url}?prefix={harness.store_prefix}&timeout_seconds=0.1"
    backend = await harness.make()
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    with harness.server.admin() as admin:
        before = admin.info("stats")["total_connections_received"]
        for number in range(40):
            # Some calls come right when the limit that the call before them set is reached.
            await asyncio.sleep(0.09 + 0.001 * (number % 20))
            await writer.append(b"%d" % number)
        assert admin.info("stats")["total_connections_received"] == before
    assert await read_all(backend.store, writer.key) == [b"%d" % number for number in range(40)]


async def test_closing_ends_calls_and_feeds(harness: RedisHarness, backend: RedisBackend) -> None:
    async with harness.paused():
        call = asyncio.ensure_future(backend.store.describe(["k"]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await backend.aclose()
            with pytest.raises(HubClosedError):
                await call
    for use in (backend.ping, lambda: backend.store.describe(["k"]), lambda: backend.leases.holders(["k"])):
        with pytest.raises(HubClosedError):
            await use()
    with pytest.raises(HubClosedError):
        async with backend.store.changes():
            pass
    await backend.aclose()


async def test_closing_ends_feeds(harness: RedisHarness, backend: RedisBackend) -> None:
    async with backend.store.changes() as feed, backend.cancels.requests() as requests:
        await feed.follow("k")
        await backend.aclose()
        for each in (feed, requests):
            with pytest.raises(BackendUnavailableError):
                await anext(aiter(each))


async def test_connections_do_not_grow_with_use(harness: RedisHarness) -> None:
    def connections() -> int:
        with harness.server.admin() as admin:
            return sum(client["user"] == "streamhub" for client in admin.client_list())

    before = connections()
    hub = await harness.hub()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(30):
            key = harness.unique_key()
            producer = await stack.enter_async_context(hub.produce(key))
            await producer.send("a")
            for _ in range(3):
                subscription = await stack.enter_async_context(hub.subscribe(key, wait=10))
                await anext(aiter(subscription))
        assert connections() - before <= 3


# --- refusals


async def test_wrong_credentials_are_told_without_the_password(harness: RedisHarness) -> None:
    url = f"redis://streamhub:geheim@127.0.0.1:{harness.server.port}/0"
    with pytest.raises(ConfigError, match="credentials") as caught:
        await RedisBackend(url).connect()
    assert "geheim" not in "".join(traceback.format_exception(caught.value))


async def test_a_url_without_the_credentials_that_are_wanted_is_told_to_name_them() -> None:
    with redis_servers.started(servers.redis_binary("8.2"), config=["requirepass geheim"]) as server:
        with pytest.raises(ConfigError, match="put user and password into the URL"):
            await RedisBackend(server.url).connect()


async def test_a_database_that_the_server_does_not_have_is_a_configuration_error(harness: RedisHarness) -> None:
    with pytest.raises(ConfigError, match="use a database that it has"):
        await RedisBackend(f"redis://streamhub:s3cret@127.0.0.1:{harness.server.port}/16").connect()


async def test_no_message_shows_the_password(harness: RedisHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    port = free_port()
    for url in (
        f"redis://u:geheim@127.0.0.1:{port}/0",
        f"redis+sentinel://u:geheim@127.0.0.1:{port}/main?sentinel_password=geheim",
        "unix://u:geheim@/nowhere/redis.sock",
    ):
        backend = RedisBackend(url)
        with pytest.raises(BackendUnavailableError) as caught:
            await backend.connect()
        assert "geheim" not in "".join(traceback.format_exception(caught.value)) + repr(backend)
    hub = await harness.hub()
    assert "s3cret" not in repr(hub) + str(await (await harness.make()).about())
    assert "geheim" not in caplog.text
    assert "s3cret" not in caplog.text


async def test_a_missing_right_is_a_configuration_error(harness: RedisHarness) -> None:
    with harness.server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "poor", "on", "nopass", "~streamhub:*", "-@all", "+ping", "+info")
        try:
            with pytest.raises(ConfigError, match="permissions"):
                await RedisBackend(f"redis://poor:x@127.0.0.1:{harness.server.port}").connect()
            admin.execute_command("ACL", "SETUSER", "poor", "+script|load", "+evalsha", "+hmget", "+time")
            async with connected(f"redis://poor:x@127.0.0.1:{harness.server.port}") as backend:
                with pytest.raises(ConfigError, match="permissions"):
                    await Writer(backend.store, harness.unique_key()).open()
                with pytest.raises(ConfigError, match="permissions"):
                    await anext(backend.store.keys())
                about = await backend.about()
                assert about["durability"].startswith("unknown")
            admin.execute_command(
                "ACL", "SETUSER", "poor", "resetchannels", "&streamhub:*", "+hset", "+hgetall", "+hdel", "+unlink"
            )
            admin.execute_command("ACL", "SETUSER", "poor", "+pexpireat", "+publish")
            async with connected(f"redis://poor:x@127.0.0.1:{harness.server.port}?wait_replicas=1") as backend:
                with pytest.raises(ConfigError, match=r"wait.*permissions"):
                    await Writer(backend.store, harness.unique_key()).open()
        finally:
            admin.execute_command("ACL", "DELUSER", "poor")


async def test_a_key_of_something_else_is_a_configuration_error(harness: RedisHarness, backend: RedisBackend) -> None:
    key, other = harness.unique_key(), harness.unique_key()
    writer = Writer(backend.store, other)
    await writer.open()
    with harness.server.admin() as admin:
        admin.set(f"{harness.store_prefix}:{{{key}}}:meta", "mine")
        admin.set(f"{harness.store_prefix}:{{{other}}}:log", "mine")
    with pytest.raises(ConfigError, match="prefix"):
        await backend.store.describe([key])
    with pytest.raises(ConfigError, match="prefix"):
        await writer.append(b"a")
    # The append that was refused has changed nothing.
    assert (await described(backend.store, other)).tail == 0


@pytest.mark.parametrize("flavour", servers.REDIS_FLAVOURS)
async def test_a_full_server_refuses_and_recovers(flavour: str) -> None:
    with redis_servers.started(servers.redis_binary(flavour), config=["maxmemory-policy noeviction"]) as server:
        async with connected(server.url) as backend:
            writer = Writer(backend.store, "k")
            await writer.open()
            await writer.append(b"a")
            ending = Writer(backend.store, "ending")
            await ending.open()
            lease = await backend.leases.acquire("held", owner="o", run="r", ttl_seconds=60)
            with server.admin() as admin:
                admin.config_set("maxmemory", "100kb")
                item = writer.item(b"b", end=COMPLETED)
                with pytest.raises(BackendUnavailableError, match="maxmemory"):
                    await append(backend.store, item)
                for replacing in ("another", "k"):
                    with pytest.raises(BackendUnavailableError, match="maxmemory"):
                        await Writer(backend.store, replacing, run="run-2").open()
                with pytest.raises(BackendUnavailableError, match="maxmemory"):
                    await backend.leases.acquire("k", owner="o", run="r", ttl_seconds=60)
                # What keeps a producer going, and what makes room, is taken.
                assert list(await backend.leases.renew([lease])) == [True]
                await backend.store.describe(["k"], touch=True)
                await ending.append(end=COMPLETED)
                assert await backend.store.delete("ending")
                # Reading goes on; nothing is half written.
                info = await described(backend.store, "k")
                assert (info.tail, info.state) == (1, "open")
                assert await read_all(backend.store, "k") == [b"a"]
                admin.config_set("maxmemory", "0")
            await writer.put(item)
            assert await read_all(backend.store, "k") == [b"a", b"b"]


@pytest.mark.parametrize("flavour", servers.REDIS_FLAVOURS)
async def test_a_master_that_became_a_replica_is_left(flavour: str) -> None:
    binary = servers.redis_binary(flavour)
    with (
        redis_servers.started(binary, config=["repl-diskless-sync-delay 0"]) as master,
        redis_servers.started(binary) as server,
    ):
        async with connected(server.url) as backend:
            writer = Writer(backend.store, "k")
            await writer.open()
            with server.admin() as admin:
                admin.config_set("replica-read-only", "yes")
                identity = {client["id"] for client in admin.client_list()}
                admin.execute_command("REPLICAOF", "127.0.0.1", str(master.port))
                await until(lambda: _linked(server))
                outcome = await backend.store.append([writer.item(b"a")])
                assert isinstance(outcome[0], BackendUnavailableError)
                assert (await backend.about())["role"].startswith("replica: WARNING")
                admin.execute_command("REPLICAOF", "NO", "ONE")
                await Writer(backend.store, "another").open()
                # The connection on which it was refused is gone.
                assert not {c["id"] for c in admin.client_list() if c["cmd"].startswith("evalsha")} & identity


def _linked(server: redis_servers.RedisServer) -> bool:
    with server.admin() as admin:
        return admin.info("replication").get("master_link_status") == "up"


@pytest.mark.parametrize("flavour", servers.REDIS_FLAVOURS)
async def test_what_is_acknowledged_waits_for_replicas(flavour: str) -> None:
    binary = servers.redis_binary(flavour)
    with (
        redis_servers.started(binary, config=["repl-diskless-sync-delay 0"]) as master,
        redis_servers.started(binary) as replica,
    ):
        url = f"{master.url}?wait_replicas=1&wait_seconds=0.2&timeout_seconds=2"
        async with connected(url) as backend:
            lonely = Writer(backend.store, "lonely")
            with pytest.raises(BackendUnavailableError, match="0 of wait_replicas=1"):
                await lonely.open()
            with replica.admin() as admin:
                admin.execute_command("REPLICAOF", "127.0.0.1", str(master.port))
            await until(lambda: _linked(replica))
            # It had happened: the same open, again, is confirmed now.
            info = await backend.store.open(
                "lonely",
                lonely.generation,
                owner=lonely.owner,
                run=lonely.run,
                expect=None,
                resume=False,
                retention=lonely.retention,
            )
            assert info.state == "open"
            await lonely.append(b"a")
            replica.freeze()
            item = lonely.item(b"b")
            with pytest.raises(BackendUnavailableError, match="0 of wait_replicas=1"):
                await append(backend.store, item)
            # Also a retry over another connection is not confirmed before the replica has it.
            async with connected(url) as other:
                with pytest.raises(BackendUnavailableError, match="0 of wait_replicas=1"):
                    await append(other.store, item)
                replica.thaw()
                async with asyncio.timeout(10):
                    while not await _confirmed(other, item):
                        pass
        with replica.admin() as admin:
            assert admin.xlen("streamhub:{lonely}:log") == 2


async def _confirmed(backend: RedisBackend, item: Append) -> bool:
    (answer,) = await backend.store.append([item])
    return not isinstance(answer, StreamHubError)


async def test_a_node_of_a_cluster_is_told_apart() -> None:
    with redis_servers.started(servers.redis_binary("8.2"), config=["cluster-enabled yes"]) as server:
        with pytest.raises(ConfigError, match=r"redis\+cluster://"):
            await RedisBackend(server.url).connect()


# --- ways to connect


async def test_a_socket_in_the_file_system_serves(harness: RedisHarness) -> None:
    path = f"{harness.server.directory}/redis.sock"
    async with connected(f"unix://streamhub:s3cret@{path}?prefix={harness.store_prefix}&db=3") as backend:
        writer = Writer(backend.store, harness.unique_key())
        async with backend.store.changes() as feed, asyncio.timeout(10):
            await feed.follow(writer.key)
            await writer.open()
            assert (await anext(aiter(feed))).key == writer.key
        await writer.append(b"a", end=COMPLETED)
        assert await read_all(backend.store, writer.key) == [b"a"]
        await backend.ping()
    with harness.server.admin(db=3) as admin:
        assert admin.dbsize() == 2
        admin.flushdb()


@contextlib.asynccontextmanager
async def tls_before(port: int) -> AsyncGenerator[int]:
    """Serve TLS in front of a server that has none, inside the block."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside, outside = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, outside), copy(inside, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_encrypted_connections_serve_and_are_verified(harness: RedisHarness) -> None:
    async with tls_before(harness.server.port) as port:
        url = f"rediss://streamhub:s3cret@localhost:{port}/0?prefix={harness.store_prefix}"
        async with connected(f"{url}&ssl_ca_certs={CERTIFICATE}") as backend:
            writer = Writer(backend.store, harness.unique_key())
            await writer.open()
            await writer.append(b"a")
            assert await read_all(backend.store, writer.key) == [b"a"]
        async with connected(f"{url}&ssl_cert_reqs=none") as backend:
            await backend.ping()
        with pytest.raises(BackendUnavailableError, match="certificate"):
            await RedisBackend(url).connect()
        for option in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
            with pytest.raises(ConfigError, match=f"{option}='/nowhere.pem' cannot be read: No such file"):
                await RedisBackend(f"{url}&{option}=/nowhere.pem").connect()


async def test_tls_to_a_server_that_has_none_is_told(harness: RedisHarness) -> None:
    with pytest.raises(BackendUnavailableError, match=r"within 0.3 s; does this port speak TLS\?"):
        await RedisBackend(f"rediss://127.0.0.1:{harness.server.port}?connect_seconds=0.3").connect()


async def test_connections_can_have_a_name(harness: RedisHarness) -> None:
    async with connected(f"{harness.url}&client_name=chat-worker") as backend:
        await backend.ping()
        with harness.server.admin() as admin:
            assert "chat-worker" in {client["name"] for client in admin.client_list()}


async def test_a_server_says_what_it_is(harness: RedisHarness, backend: RedisBackend) -> None:
    about = await backend.about()
    assert about["version"].startswith(("Redis 6.2", "Redis 8.2", "Valkey 9"))
    assert about["durability"].startswith("appendonly, appendfsync everysec")
    assert about["eviction"] == "noeviction"
    with harness.server.admin() as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        try:
            assert "WARNING" in (await backend.about())["eviction"]
        finally:
            admin.config_set("maxmemory-policy", "noeviction")


# --- parts


async def test_the_parts_work_alone(harness: RedisHarness) -> None:
    """Leases here, chunks there: nothing of one is looked for beside the other."""
    prefixes = [f"{harness.store_prefix}:{part}" for part in ("store", "leases", "cancels")]
    urls = [f"{harness.server.url}?prefix={prefix}" for prefix in prefixes]
    async with contextlib.AsyncExitStack() as stack:
        store, leases, cancels = [await stack.enter_async_context(connected(url)) for url in urls]
        hub = await stack.enter_async_context(Hub(store=store.store, leases=leases.leases, cancels=cancels.cancels))
        async with hub.produce("k", run="r") as producer:
            await producer.send("a")
            await producer.flush()
            assert (await hub.cancel("k", run="another")).state == "requested"
            with harness.server.admin() as admin:
                for prefix, kinds in zip(prefixes, ({"meta", "log"}, {"lease"}, {"another"}), strict=True):
                    found = {name.decode().rpartition(":")[2] for name in admin.scan_iter(match=f"{prefix}:*")}
                    assert found == kinds
        assert await read_all(store.store, "k") == [b"a"]


async def test_an_empty_call_asks_nobody(harness: RedisHarness, backend: RedisBackend) -> None:
    async with harness.paused():
        assert list(await backend.store.append([])) == []
        assert list(await backend.store.read([])) == []
        assert list(await backend.store.describe([])) == []
        assert list(await backend.leases.renew([])) == []
        assert list(await backend.cancels.pending([])) == []


async def test_many_calls_share_a_connection(harness: RedisHarness, backend: RedisBackend) -> None:
    writers = [Writer(backend.store, harness.unique_key()) for _ in range(50)]
    await asyncio.gather(*(writer.open() for writer in writers))
    for number in range(5):
        await asyncio.gather(*(writer.append(b"%d" % number) for writer in writers))
    pages = await backend.store.read([Read(writer.key, 0) for writer in writers])
    assert [page.chunks for page in pages if not isinstance(page, StreamHubError)] == [
        (b"0", b"1", b"2", b"3", b"4")
    ] * 50


@pytest.mark.parametrize("call", ["renew", "pending", "touch"])
async def test_a_call_for_many_streams_keeps_no_append_waiting(
    harness: RedisHarness, backend: RedisBackend, call: str
) -> None:
    keys = [harness.unique_key() for _ in range(200)]
    leases = await asyncio.gather(*(acquire(backend, key) for key in keys))
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "renew": lambda: backend.leases.renew(leases),
        "pending": lambda: backend.cancels.pending([RunRef(key, "r") for key in keys]),
        "touch": lambda: backend.store.describe(keys, touch=True),
    }
    long = asyncio.ensure_future(calls[call]())
    await asyncio.sleep(0)  # it is sent first
    await writer.append(b"a")
    assert not long.done()
    assert await long == [True if call == "renew" else None] * 200


async def test_an_inbox_that_is_not_emptied_stays_small() -> None:
    inbox: Inbox[Change] = Inbox(Change(None))
    for number in range(3 * MAX_ITEMS + 2):
        inbox.put(Change(f"{number}"))
    inbox.close(BackendUnavailableError("gone"))
    inbox.close()
    assert (await anext(inbox)).key is None
    with pytest.raises(BackendUnavailableError):
        while True:
            await anext(inbox)
