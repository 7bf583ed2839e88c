"""What happens to one nats-server, or on the way to it, and what producers and subscribers make of it."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
import servers
from nats_faults import OPTIONS, before, harness_on, through
from nats_servers import NatsServer, started
from proxy import Connection, Proxy, proxied
from streamhub_nats import NatsBackend, layout
from work import PATIENCE, ROUNDS, STEADY, assert_whole, work_under

from streamhub import BackendUnavailableError, ConfigError, Hub, StreamHubError
from streamhub.conformance.drive import UNPOLLED, produce_all, reading, replay, send_all, soon, words
from streamhub.conformance.writer import Writer, append, described, read_all
from streamhub.types import COMPLETED, Append, Appended, Retention, RunRef

pytestmark = pytest.mark.timeout(120 * ROUNDS)


@pytest.fixture
def server() -> Iterator[NatsServer]:
    """A server of one test's own."""
    with started(servers.nats_binary("2.15")) as server:
        yield server


@pytest.fixture
async def proxy(server: NatsServer) -> AsyncGenerator[Proxy]:
    """The way to ``server``."""
    async with before(server.port) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def no_defects(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail if the core met what no backend may raise: it would go on, and hide it."""
    yield
    found = [record.getMessage() for record in caplog.get_records("call") if record.levelname == "ERROR"]
    assert [said for said in found if "nats: encountered error" not in said] == []


async def answer_to(backend: Any, item: Append) -> Appended | StreamHubError:
    """Return what one append comes to, an error too."""
    return (await backend.store.append([item]))[0]


async def begun(backend: Any, key: str) -> Writer:
    """Open a run."""
    writer = Writer(backend.store, key)
    await writer.open()
    return writer


# -- Connections are dropped, the server goes away ---------------------------------------------------------------------


@pytest.mark.parametrize("purpose", ["calls", "notifications", ""])
async def test_nothing_is_lost_or_doubled_while_the_server_drops_connections(server: NatsServer, purpose: str) -> None:
    async with harness_on(server.url) as harness:
        here, there = await harness.hub(**STEADY), await harness.hub(**UNPOLLED)

        kicked = 0

        async def disturb(_: int) -> None:
            nonlocal kicked
            kicked += await server.kick(purpose)  # none, if all are still on their way back

        keys = [harness.unique_key() for _ in range(3)]
        await work_under(disturb, producing=here, following=[here, there], keys=keys)
        assert kicked > 3


async def test_nothing_is_lost_or_doubled_while_the_network_resets_connections(proxy: Proxy) -> None:
    async with harness_on(through(proxy.port)) as harness:

        async def disturb(_: int) -> None:
            proxy.cut()

        here, there = await harness.hub(**STEADY), await harness.hub(**UNPOLLED)
        await work_under(disturb, producing=here, following=[here, there], keys=[harness.unique_key()])


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_nothing_acknowledged_is_lost_when_the_server_is_restarted(server: NatsServer, how: str) -> None:
    async with harness_on(server.url) as harness:

        async def disturb(_: int) -> None:
            await asyncio.to_thread(getattr(server, how))
            await asyncio.to_thread(server.start)

        here, there = await harness.hub(**STEADY), await harness.hub(**UNPOLLED)
        await work_under(disturb, producing=here, following=[there], keys=[harness.unique_key()], every=40)


async def test_a_subscriber_on_a_dead_socket_recovers_within_its_bound(server: NatsServer, proxy: Proxy) -> None:
    async with harness_on(server.url) as direct, harness_on(through(proxy.port)) as harness:
        harness.url = (harness.url or "").replace(harness.token, direct.token)
        here, there = await direct.hub(**STEADY), await harness.hub(**UNPOLLED)
        key = direct.unique_key()
        async with here.produce(key) as producer, reading(there, key) as live:
            await send_all(producer, words(3))
            await live.has(3)
            proxy.swallow(new=False)
            await producer.send(b"unheard")
            since = time.monotonic()
            await live.has(4)
            # Two pings, and a new connection.
            assert time.monotonic() - since < 5 * (2 * OPTIONS["ping_seconds"] + OPTIONS["connect_seconds"])


async def test_a_server_that_is_down_at_the_start_is_named_without_the_password_and_may_come_later() -> None:
    server = NatsServer(servers.nats_binary("2.15"))
    try:
        hub = Hub.from_url(f"{server.url}?connect_seconds=1")
        with pytest.raises(BackendUnavailableError) as caught:
            await hub.__aenter__()
        assert "s3cret" not in str(caught.value)
        assert str(server.port) in str(caught.value)
        await asyncio.to_thread(server.start)
        async with hub:
            await produce_all(hub, "key", words(3))
    finally:
        server.close()


async def test_a_silent_server_among_several_is_passed_over(server: NatsServer) -> None:
    with started(servers.nats_binary("2.15")) as frozen:
        frozen.freeze()
        url = f"nats://app:s3cret@127.0.0.1:{frozen.port},127.0.0.1:{server.port}?connect_seconds=20"
        for _ in range(4):  # the order is random
            async with asyncio.timeout(10), Hub.from_url(url) as hub:
                await hub.ping()
        frozen.thaw()


# -- Replies are lost --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["s", "d", "l"])
async def test_a_whole_run_survives_the_loss_of_a_reply_to_each_kind_of_write(
    proxy: Proxy, server: NatsServer, part: str
) -> None:
    async with harness_on(through(proxy.port)) as harness:
        hub = await harness.hub(**STEADY)
        key = harness.unique_key()
        for number in range(3):
            lost = proxy.lose_reply(f".{part}.".encode())
            async with hub.produce(f"{key}-{number}") as producer:
                await send_all(producer, words(4))
            await soon(lost.wait())
            assert_whole(await replay(hub, f"{key}-{number}"), words(4))


@pytest.mark.parametrize("item", ["chunks", "end", "large"])
async def test_an_append_whose_reply_was_lost_is_stored_once(proxy: Proxy, item: str) -> None:
    async with harness_on(through(proxy.port)) as harness:
        backend = await harness.make()
        writer = await begun(backend, harness.unique_key())
        await writer.append(b"first")
        chunks = {"chunks": (b"a", b"b"), "end": (), "large": (b"x" * 900_000, b"y" * 900_000)}[item]
        wanted = writer.item(*chunks, end=COMPLETED if item == "end" else None)
        lost = proxy.lose_reply(b".s.")
        assert isinstance(await answer_to(backend, wanted), BackendUnavailableError)
        await soon(lost.wait())
        for _ in range(2):
            await append(backend.store, wanted)
        assert (await described(backend.store, writer.key)).tail == 1 + len(chunks)
        assert await read_all(backend.store, writer.key) == [b"first", *chunks]


async def test_acquire_and_cancel_whose_replies_were_lost_are_repeated(proxy: Proxy) -> None:
    async with harness_on(through(proxy.port)) as harness:
        backend, key = await harness.make(), harness.unique_key()
        lost = proxy.lose_reply(b".l.")
        with pytest.raises(BackendUnavailableError):
            await backend.leases.acquire(key, owner="o1", run="r", ttl_seconds=60.0)
        await soon(lost.wait())
        lease = await backend.leases.acquire(key, owner="o1", run="r", ttl_seconds=60.0)
        again = await backend.leases.acquire(key, owner="o1", run="r", ttl_seconds=60.0)
        assert (lease.generation, lease.owner) == (again.generation, again.owner)
        lost = proxy.lose_reply(b".c.")
        ask = {"reason": "r", "requested_by": "u", "ttl_seconds": 60.0}
        with pytest.raises(BackendUnavailableError):
            await backend.cancels.request(key, "run", **ask)
        await soon(lost.wait())
        assert await backend.cancels.request(key, "run", **ask) is False
        assert (await backend.cancels.pending([RunRef(key, "run")]))[0] is not None


# -- Limits ------------------------------------------------------------------------------------------------------------


async def test_a_full_stream_refuses_whole_appends_and_takes_more_when_there_is_room(server: NatsServer) -> None:
    async with harness_on(server.url, storage_bytes=400_000) as harness:
        backend = await harness.make()
        old, writer = (
            await begun(backend, harness.unique_key()),
            await begun(backend, harness.unique_key()),
        )
        await old.append(b"x" * 250_000)
        refused = writer.item(b"y" * 200_000)
        answer = await answer_to(backend, refused)
        assert isinstance(answer, BackendUnavailableError)
        assert "full" in str(answer)
        assert (await described(backend.store, writer.key)).tail == 0
        assert await backend.store.delete(old.key)
        await append(backend.store, refused)
        assert await read_all(backend.store, writer.key) == [b"y" * 200_000]


async def test_an_append_larger_than_max_payload_is_stored_whole_or_not_at_all() -> None:
    with started(servers.nats_binary("2.15"), config="max_payload: 262144") as server:
        async with harness_on(server.url) as harness, before(server.port) as proxy:
            chunks = tuple(secrets.token_bytes(300_000) for _ in range(6))
            backend = await harness.make()
            writer = await begun(backend, harness.unique_key())
            await writer.append(b"first")
            wanted = writer.item(*chunks)
            # Another connection's append is cut off half-way, wherever the loss strikes.
            harness.url = (harness.url or "").replace(str(server.port), str(proxy.port))
            for _ in range(3):
                cut_off = await harness.make()
                lost = proxy.lose_reply(b".s.")
                assert isinstance(await answer_to(cut_off, wanted), BackendUnavailableError)
                await soon(lost.wait())
                assert await read_all(backend.store, writer.key) == [b"first"]
            await append(backend.store, wanted)
            assert await read_all(backend.store, writer.key) == [b"first", *chunks]
            await append(backend.store, wanted)
            assert (await described(backend.store, writer.key)).tail == 7


class ForgetfulConnection(Connection):
    """Loses the first question that makes a JetStream stream, and nothing else."""

    forgot = False

    def ask(self, data: bytes) -> bytes:
        if not self.forgot and b".STREAM.CREATE.SHL_" in data:
            self.forgot = True
            return b""
        return data

    def answer(self, data: bytes) -> bytes:
        return data


async def test_a_jetstream_stream_whose_making_nobody_answers_is_asked_for_again(server: NatsServer) -> None:
    async with proxied("127.0.0.1", server.port, kind=ForgetfulConnection) as proxy:
        async with harness_on(through(proxy.port), timeout_seconds=20) as harness:
            backend = await harness.make()
            writer = await begun(backend, harness.unique_key())
            await writer.append(b"a")
            assert [connection.forgot for connection in proxy.connections] == [True]
            assert await read_all(backend.store, writer.key) == [b"a"]


async def test_a_server_whose_messages_are_too_small_is_refused_with_the_reason() -> None:
    with started(servers.nats_binary("2.15"), config="max_payload: 65536") as server:
        with pytest.raises(ConfigError, match="max_payload"):
            async with Hub.from_url(server.url):
                pass


async def test_a_subscriber_that_cannot_keep_up_loses_nothing() -> None:
    with started(servers.nats_binary("2.15"), config='max_pending: 2097152\nwrite_deadline: "500ms"') as server:
        async with harness_on(server.url) as direct, before(server.port) as proxy:
            async with harness_on(through(proxy.port), ping_seconds=30.0) as harness:
                harness.url = (harness.url or "").replace(harness.token, direct.token)
                here, there = await direct.hub(**STEADY), await harness.hub(**UNPOLLED)
                key, source = direct.unique_key(), [secrets.token_bytes(20_000) for _ in range(600)]
                async with reading(there, key, wait=PATIENCE) as live:
                    async with here.produce(key) as producer:
                        await send_all(producer, source[:1])
                        await live.has(1)
                        proxy.hold()
                        for chunk in source[1:]:
                            await producer.send(chunk)
                        await producer.flush()
                        await asyncio.to_thread(_until, lambda: server.look("/varz")["slow_consumers"] > 0)
                        proxy.release()
                    assert_whole(await live.finished(PATIENCE), source)


async def test_many_subscribers_behind_a_slow_link_get_all_they_missed(server: NatsServer, proxy: Proxy) -> None:
    """All at once they ask for more than the link takes within the time of a call, many times over."""
    async with harness_on(server.url) as direct, harness_on(through(proxy.port), timeout_seconds=1) as harness:
        harness.url = (harness.url or "").replace(harness.token, direct.token)
        here, there = await direct.hub(**STEADY), await harness.hub(**STEADY, outage_seconds=5.0)
        source = [secrets.token_bytes(16_000) for _ in range(30)]
        keys = [direct.unique_key() for _ in range(20)]
        for key in keys:
            await produce_all(here, key, source)
        proxy.slow_down(4_000_000)
        async with asyncio.timeout(60):
            for chunks in await asyncio.gather(*(replay(there, key) for key in keys)):
                assert_whole(chunks, source)


def _until(fact: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# -- Servers that are not fit ------------------------------------------------------------------------------------------


async def test_a_server_without_jetstream_is_told_as_such() -> None:
    with started(servers.nats_binary("2.15"), config="jetstream: disabled") as server:
        with pytest.raises((ConfigError, BackendUnavailableError), match="JetStream"):
            async with Hub.from_url(server.url):
                pass


async def test_a_server_that_is_too_old_is_refused_with_the_reason(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "OLDEST", (99, 0))  # test_nats_versions_matrix.py has servers that are
    with pytest.raises(ConfigError, match=r"2\.11 or later"):
        async with Hub.from_url(server.url):
            pass


async def test_a_changed_configuration_is_found_at_the_next_connection(server: NatsServer) -> None:
    async with harness_on(server.url) as harness:
        backend = await harness.make()
        await begun(backend, harness.unique_key())
        name = f"SHL_{harness.token}"
        config = (await server.api(f"STREAM.INFO.{name}"))["config"]
        answer = await server.api(f"STREAM.UPDATE.{name}", config | {"max_age": 600_000_000_000})
        assert "error" not in answer
        await server.kick()
        with pytest.raises(ConfigError, match="max_age"):
            for _ in range(100):
                try:
                    await backend.ping()
                except BackendUnavailableError:
                    await asyncio.sleep(0.02)


async def test_a_jetstream_stream_that_was_deleted_is_made_anew_and_the_producer_sends_again(
    server: NatsServer,
) -> None:
    async with harness_on(server.url) as harness:
        hub, key = await harness.hub(**STEADY), harness.unique_key()
        async with hub.produce(key) as producer:
            await send_all(producer, words(20))
            await server.api(f"STREAM.DELETE.SH_{harness.token}")
            await send_all(producer, words(5))
        assert_whole(await replay(hub, key), [*words(20), *words(5)])


# -- Many at once ------------------------------------------------------------------------------------------------------


async def test_six_producers_that_steal_a_stream_from_each_other_lose_and_double_nothing(server: NatsServer) -> None:
    async with harness_on(server.url) as harness:
        await steal(harness, seconds=4.0)


async def steal(harness: Any, *, seconds: float) -> None:
    """Let six writers take one stream from each other, and compare what was acknowledged with what is stored."""
    key, stop = harness.unique_key(), asyncio.Event()
    backends = [await harness.make() for _ in range(6)]
    acknowledged: dict[int, bytes] = {}
    fenced = 0

    async def thief(backend: NatsBackend, name: int) -> None:
        nonlocal fenced
        number = 0
        while not stop.is_set():
            info = (await backend.store.describe([key]))[0]
            above = 0 if info is None else info.generation
            owner = secrets.token_hex(4)
            try:
                lease = await backend.leases.acquire(
                    key, owner=owner, run="run", ttl_seconds=60.0, above=above, void=2**60
                )
                opened = await backend.store.open(
                    key,
                    lease.generation,
                    owner=owner,
                    run="run",
                    expect=None if info is None else info.seen,
                    resume=info is not None,
                    retention=Retention(),
                )
            except BackendUnavailableError:
                continue
            except StreamHubError:
                fenced += 1
                continue
            tail = opened.tail
            for _ in range(5):
                number += 1
                chunks = tuple(f"{name}-{number}-{part}".encode() for part in range(1 + number % 3))
                item = Append(key, lease.generation, tail + 1, chunks, os.urandom(12))
                (answer,) = await backend.store.append([item])
                while isinstance(answer, BackendUnavailableError):
                    (answer,) = await backend.store.append([item])
                if isinstance(answer, StreamHubError):
                    fenced += 1
                    break
                for index, chunk in enumerate(chunks, item.first):
                    assert index not in acknowledged
                    acknowledged[index] = chunk
                tail = answer.tail

    thieves = [asyncio.create_task(thief(backend, number)) for number, backend in enumerate(backends)]
    await asyncio.wait(thieves, timeout=seconds)
    stop.set()
    await asyncio.gather(*thieves)
    stored = await read_all(backends[0].store, key)
    info = (await backends[0].store.describe([key]))[0]
    assert info is not None
    generations = [span.generation for span in info.spans]
    assert generations == sorted(set(generations))
    assert len(acknowledged) > 20
    assert fenced > 5
    assert {index: stored[index - 1] for index in acknowledged} == acknowledged
    assert len(set(stored)) == len(stored)
