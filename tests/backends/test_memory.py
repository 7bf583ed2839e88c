"""What only ``memory://`` has: names, forgetting, threads, feeds that collapse. The conformance suite has the rest."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from streamhub_memory import MemoryBackend
from streamhub_memory.mailbox import MAX_PENDING

from streamhub.errors import BackendUnavailableError, ConfigError, DataLostError, HubClosedError
from streamhub.types import COMPLETED, Append, Appended, Change, Read, Retention, RunRef, StreamInfo

RETENTION = Retention()
NAMES = (f"test-{number}" for number in itertools.count())


@pytest.fixture
def name() -> str:
    return next(NAMES)


Connect = Callable[..., Awaitable[MemoryBackend]]


@pytest.fixture
async def connect(name: str) -> AsyncIterator[Connect]:
    async with AsyncExitStack() as stack:

        async def connect(other: str = name) -> MemoryBackend:
            backend = MemoryBackend(f"memory://{other}")
            await backend.connect()
            stack.push_async_callback(backend.aclose)
            return backend

        yield connect
    MemoryBackend.forget(name)


async def open_stream(
    backend: MemoryBackend, key: str = "k", *, retention: Retention = RETENTION, **options: object
) -> StreamInfo:
    lease = await backend.leases.acquire(key, owner="o", run="r", ttl_seconds=5)
    return await backend.store.open(
        key,
        lease.generation,
        owner="o",
        run="r",
        expect=None,
        resume=False,
        retention=retention,
        **options,  # pyright: ignore[reportArgumentType]
    )


def appends(info: StreamInfo) -> Callable[..., Append]:
    nonces = itertools.count()

    def make(first: int, *chunks: bytes, **options: object) -> Append:
        return Append(info.key, info.generation, first, chunks, b"%d" % next(nonces), **options)  # pyright: ignore[reportArgumentType]

    return make


async def keys_of(backend: MemoryBackend) -> set[str]:
    keys = backend.store.keys()
    return {key async for key in keys}


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# -- Names and URLs ----------------------------------------------------------------------------------------------------


async def test_backends_of_one_name_share_and_of_another_do_not(connect: Connect) -> None:
    info = await open_stream(await connect())

    assert await (await connect()).store.describe(["k"]) == [info]
    assert await (await connect("another")).store.describe(["k"]) == [None]


async def test_the_unnamed_namespace_is_a_name_like_any_other() -> None:
    first, second = MemoryBackend("memory://"), MemoryBackend("memory://")
    await first.connect()
    await second.connect()
    assert first.namespace is second.namespace
    assert first.name == ""
    await first.aclose()
    await second.aclose()


async def test_data_outlives_closing_every_backend(connect: Connect) -> None:
    first = await connect()
    info = await open_stream(first)
    await first.aclose()

    assert await (await connect()).store.describe(["k"]) == [info]


async def test_forget_empties_a_namespace_that_nobody_is_connected_to(name: str, connect: Connect) -> None:
    first = await connect()
    generation = (await open_stream(first)).generation
    await first.aclose()

    MemoryBackend.forget(name)

    second = await connect()
    assert len(second.namespace) == 0
    assert (await open_stream(second)).generation > generation


async def test_forget_empties_a_namespace_under_connected_backends_and_tells_their_feeds(
    name: str, connect: Connect
) -> None:
    backend = await connect()
    info = await open_stream(backend)
    async with backend.store.changes() as changes, backend.cancels.requests() as requests:
        MemoryBackend.forget(name)
        async with asyncio.timeout(5):
            assert await anext(aiter(changes)) == Change(None)
            assert await anext(aiter(requests)) is None

    (answer,) = await backend.store.append([appends(info)(1, b"x")])
    assert isinstance(answer, DataLostError)
    assert (await connect()).namespace is backend.namespace


async def test_forgetting_an_unknown_name_is_harmless() -> None:
    MemoryBackend.forget("never used")


@pytest.mark.parametrize(
    "url",
    [
        "memory:name",
        "sqlite://name",
        "memory://name/path",
        "memory:///",
        "memory://name:80",
        "memory://user@name",
        "memory://user:secret@name",
        "memory://name#part",
        "memory://[name",
        "memory://name?size=3",
        "memory://name?size=3&size=4",
    ],
)
def test_a_url_with_more_than_a_name_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        MemoryBackend(url)
    assert "secret" not in str(raised.value)


# -- The connection ----------------------------------------------------------------------------------------------------


async def test_every_call_is_refused_unless_connected(name: str) -> None:
    backend = MemoryBackend(f"memory://{name}")
    with pytest.raises(HubClosedError, match="not connected"):
        await backend.ping()
    await backend.connect()
    await backend.ping()
    lease = await backend.leases.acquire("k", owner="o", run="r", ttl_seconds=5)
    await backend.aclose()
    await backend.aclose()

    calls: list[Callable[[], Awaitable[object]]] = [
        backend.ping,
        backend.about,
        lambda: open_stream(backend),
        lambda: backend.store.append([Append("k", 1, 1, (b"x",), b"n")]),
        lambda: backend.store.read([Read("k", 0)]),
        lambda: backend.store.describe(["k"]),
        lambda: backend.store.delete("k"),
        lambda: backend.store.sweep(10),
        lambda: anext(aiter(backend.store.keys())),
        backend.store.changes().__aenter__,
        lambda: backend.leases.acquire("k", owner="p", run="r", ttl_seconds=5),
        lambda: backend.leases.renew([lease]),
        lambda: backend.leases.release(lease),
        lambda: backend.leases.holders(["k"]),
        lambda: backend.cancels.request("k", "r", reason=None, requested_by=None, ttl_seconds=5),
        lambda: backend.cancels.pending([RunRef("k", "r")]),
        backend.cancels.requests().__aenter__,
    ]
    for call in calls:
        with pytest.raises(HubClosedError, match="memory backend is closed"):
            await call()


async def test_about_says_that_nothing_is_durable(connect: Connect, name: str) -> None:
    about = await (await connect()).about()
    assert about["durability"] == "none: lives and dies with the process"
    assert name in about["namespace"]


async def test_closing_ends_the_feeds_that_wait(connect: Connect) -> None:
    backend = await connect()
    async with backend.store.changes() as changes, backend.cancels.requests() as requests:
        waiting = [asyncio.ensure_future(anext(aiter(feed))) for feed in (changes, requests)]
        await asyncio.sleep(0)
        await backend.aclose()
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*waiting, return_exceptions=True)
        await changes.follow("k")
        await requests.listen(RunRef("k", "r"))
    assert [type(answer) for answer in answers] == [BackendUnavailableError] * 2


async def test_a_feed_leaves_nothing_behind(connect: Connect) -> None:
    backend = await connect()
    async with backend.store.changes() as changes, backend.cancels.requests() as requests:
        await changes.follow("k")
        await changes.follow("l")
        await changes.unfollow("l")
        await changes.unfollow("never followed")
        await requests.listen(RunRef("k", "r"))
        await requests.unlisten(RunRef("k", "s"))
    for exchange in (backend.namespace.changes, backend.namespace.notices):
        assert not exchange._boxes
        assert not exchange._topics


# -- Feeds -------------------------------------------------------------------------------------------------------------


async def test_a_change_carries_the_append_itself(connect: Connect) -> None:
    backend, other = await connect(), await connect()
    make = appends(await open_stream(backend))
    async with other.store.changes() as changes:
        await changes.follow("k")
        stored = make(1, b"x", end=COMPLETED)
        await backend.store.append([stored])
        await backend.store.delete("k")
        assert await anext(aiter(changes)) == Change("k", stored)
        assert await anext(aiter(changes)) == Change("k")


async def test_a_large_append_is_hinted_without_its_chunks(connect: Connect) -> None:
    backend = await connect()
    make = appends(await open_stream(backend))
    async with backend.store.changes() as changes:
        await changes.follow("k")
        await backend.store.append([make(1, bytes(65 * 1024))])
        assert await anext(aiter(changes)) == Change("k")


async def test_changes_that_nobody_takes_collapse_into_anything_may_have_changed(connect: Connect) -> None:
    backend = await connect()
    make = appends(await open_stream(backend))
    async with backend.store.changes() as changes:
        await changes.follow("k")
        for index in range(1, MAX_PENDING + 3):
            await backend.store.append([make(index, b"x")])
        last = await anext(aiter(changes)), await anext(aiter(changes))
        assert last[0] == Change(None)
        assert last[1].append is not None
        assert last[1].append.first == MAX_PENDING + 2


async def test_cancel_requests_that_nobody_takes_collapse_into_none(connect: Connect) -> None:
    backend = await connect()
    async with backend.cancels.requests() as requests:
        for number in range(MAX_PENDING + 1):
            await requests.listen(RunRef("k", f"r{number}"))
            assert await backend.cancels.request("k", f"r{number}", reason=None, requested_by=None, ttl_seconds=5)
        assert await anext(aiter(requests)) is None


async def test_a_taker_that_is_cancelled_loses_nothing(connect: Connect) -> None:
    backend = await connect()
    async with backend.cancels.requests() as requests:
        await requests.listen(RunRef("k", "r"))
        taking = asyncio.ensure_future(anext(aiter(requests)))
        await asyncio.sleep(0)
        taking.cancel()
        await backend.cancels.request("k", "r", reason="why", requested_by=None, ttl_seconds=5)
        with pytest.raises(asyncio.CancelledError):
            await taking
        request = await anext(aiter(requests))
        assert request is not None
        assert request.reason == "why"


# -- Threads -----------------------------------------------------------------------------------------------------------


async def test_an_append_in_another_thread_wakes_this_loop(connect: Connect, name: str) -> None:
    backend = await connect()

    async def produce() -> None:
        other = MemoryBackend(f"memory://{name}")
        await other.connect()
        make = appends(await open_stream(other))
        await other.store.append([make(1, b"from a thread", end=COMPLETED)])
        await other.cancels.request("k", "r", reason="why", requested_by=None, ttl_seconds=5)
        await other.aclose()

    async with backend.store.changes() as changes, backend.cancels.requests() as requests:
        await changes.follow("k")
        await requests.listen(RunRef("k", "r"))
        request = asyncio.ensure_future(anext(aiter(requests)))
        thread = threading.Thread(target=lambda: asyncio.run(produce()))
        thread.start()
        async with asyncio.timeout(10):
            async for change in changes:
                if change.append is not None:
                    break
            assert (await request) is not None
        thread.join()


async def test_the_feed_of_a_loop_that_is_gone_is_harmless(connect: Connect, name: str) -> None:
    backend = await connect()
    feeds = AsyncExitStack()

    async def abandon() -> None:
        other = MemoryBackend(f"memory://{name}")
        await other.connect()
        changes = await feeds.enter_async_context(other.store.changes())
        await changes.follow("k")
        asyncio.ensure_future(anext(aiter(changes)))  # noqa: RUF006 - cancelled when the loop ends
        await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: asyncio.run(abandon()))
    thread.start()
    await asyncio.to_thread(thread.join)
    await open_stream(backend)
    await backend.store.delete("k")
    await feeds.aclose()


def test_threads_that_race_for_one_index_store_one_append_each(name: str) -> None:
    threads, wanted = 4, 200

    async def setup() -> StreamInfo:
        backend = MemoryBackend(f"memory://{name}")
        await backend.connect()
        return await open_stream(backend, attended=False)

    async def write(info: StreamInfo, number: int) -> None:
        backend = MemoryBackend(f"memory://{name}")
        await backend.connect()
        first = 1
        while first <= wanted:
            append = Append("k", info.generation, first, (b"%d" % number,), b"%d-%d" % (number, first))
            (answer,) = await backend.store.append([append])
            if isinstance(answer, Appended):
                stored.append(answer.tail)
            first += 1
        await backend.aclose()

    stored: list[int] = []
    info = asyncio.run(setup())
    writers = [threading.Thread(target=lambda n=n: asyncio.run(write(info, n))) for n in range(threads)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    # A writer may run ahead of the tail and be refused: what was acknowledged is dense and has no index twice.
    assert sorted(stored) == list(range(1, len(stored) + 1))
    MemoryBackend.forget(name)


# -- Storage -----------------------------------------------------------------------------------------------------------


async def test_stored_metadata_is_out_of_reach(connect: Connect) -> None:
    backend = await connect()
    given = {"a": [1]}
    await open_stream(backend, metadata=given)
    given["a"].append(2)
    (info,) = await backend.store.describe(["k"])
    assert info is not None
    info.metadata["a"].append(3)
    (page,) = await backend.store.read([Read("k", 0)])
    assert not isinstance(page, Exception)
    assert page.metadata == {"a": [1]}


async def test_trimming_keeps_every_kept_chunk_readable(connect: Connect) -> None:
    backend = await connect()
    make = appends(await open_stream(backend, retention=Retention(max_chunks=70, overflow="trim")))
    first, sizes = 1, itertools.cycle([1, 3, 1, 1, 20, 2, 90, 1])
    for size in itertools.islice(sizes, 800):
        chunks = [b"%d" % index for index in range(first, first + size)]
        append = make(first, *chunks)
        first += size
        assert await backend.store.append([append]) == [Appended(first - 1)]
        (info,) = await backend.store.describe(["k"])
        assert info is not None
        assert (info.first, info.tail) == (max(first - 70, 1), first - 1)
        (page,) = await backend.store.read([Read("k", info.first - 1)])
        assert not isinstance(page, Exception)
        assert list(page.chunks) == [b"%d" % index for index in range(info.first, first)]
        assert info.size_bytes == sum(map(len, page.chunks))
        assert await backend.store.append([append]) == [Appended(first - 1)]


async def test_ten_thousand_chunks_are_paged_within_both_bounds(connect: Connect) -> None:
    backend = await connect()
    make = appends(await open_stream(backend))
    chunks = [b"x" * (index % 40) for index in range(10_000)]
    at = 0
    for size in itertools.cycle([1, 7, 300, 2]):
        await backend.store.append([make(at + 1, *chunks[at : at + size])])
        at = min(at + size, len(chunks))
        if at == len(chunks):
            break
    for max_chunks, max_bytes in ((100, 10**6), (1, 1), (10**6, 500), (64, 500)):
        found: list[bytes] = []
        while len(found) < len(chunks):
            (page,) = await backend.store.read([Read("k", len(found), max_chunks, max_bytes)])
            assert not isinstance(page, Exception)
            assert 1 <= len(page.chunks) <= max_chunks
            assert len(page.chunks) == 1 or sum(map(len, page.chunks)) <= max_bytes
            found += page.chunks
        assert found == chunks


async def test_sweep_leaves_nothing_once_everything_is_outlived(connect: Connect) -> None:
    backend = await connect()
    clock = backend.namespace.clock = Clock()
    retention = Retention(unfinished_seconds=10, ended_seconds=5, fence_seconds=20)
    for number in range(6):
        info = await open_stream(backend, f"k{number}", retention=retention)
        await backend.cancels.request(f"k{number}", "r", reason=None, requested_by=None, ttl_seconds=8)
        if number % 2:
            await backend.store.append([appends(info)(1, b"x", end=COMPLETED)])
    await backend.store.delete("k0")

    clock.now += 5
    assert await backend.store.sweep(2) == 2
    assert await backend.store.sweep(10) == 1
    clock.now += 5
    assert await backend.store.sweep(10) == 2
    assert await keys_of(backend) == {f"k{number}" for number in range(6)}
    clock.now += 10
    assert await keys_of(backend) == {f"k{number}" for number in range(1, 6)}
    assert await backend.store.sweep(10) == 1
    clock.now += 20
    assert await backend.store.sweep(10) == 5
    assert len(backend.namespace) == 0
    assert await backend.store.sweep(10) == 0


async def test_sweep_spares_what_was_renewed_meanwhile(connect: Connect) -> None:
    backend = await connect()
    clock = backend.namespace.clock = Clock()
    info = await open_stream(backend, retention=Retention(unfinished_seconds=10))
    make = appends(info)
    lease = await backend.leases.acquire("other", owner="o", run="r", ttl_seconds=10)
    for index in range(1, 6):
        clock.now += 9
        assert await backend.leases.renew([lease]) == [True]
        await backend.store.append([make(index, b"x")])
        assert await backend.store.sweep(10) == 0
    clock.now += 10
    assert await backend.leases.renew([lease]) == [False]
    assert await backend.store.sweep(10) == 1
    assert not backend.namespace.leases
