"""Pages that are read in several steps: whole, true to the moment at which they were begun, and not dear."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import accumulate
from typing import Any

import pytest
import servers
from redis_support import RedisHarness
from streamhub_redis import RedisBackend
from streamhub_redis.session import Session

from streamhub.conformance.writer import Writer, read
from streamhub.errors import DataLostError, StreamHubError, UnsupportedFormatError
from streamhub.reader import PAGE_BYTES, PAGE_CHUNKS
from streamhub.types import COMPLETED, Page, Read, Retention

MANY = [b"token %d" % number for number in range(600)]
T = [b"tok"]


class Steps:
    """The round trips of reads; ``between`` is awaited before each but the first of a page."""

    def __init__(self) -> None:
        self.count = 0
        self.between: Callable[[], Awaitable[object]] | None = None

    def meanwhile(self, action: Callable[[], Awaitable[object]]) -> None:
        """Have something done between the first step of the next page and the second."""

        async def once() -> None:
            self.between = None
            await action()

        self.between = once


@pytest.fixture(params=servers.REDIS_FLAVOURS)
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[RedisHarness]:
    async with RedisHarness(servers.redis_server(request.param)) as harness:
        yield harness


@pytest.fixture
async def backend(harness: RedisHarness) -> RedisBackend:
    backend = await harness.make()
    assert isinstance(backend, RedisBackend)
    return backend


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    seen, ask = Steps(), Session.ask

    async def asking(self: Session, requests: Sequence[Any], **given: Any) -> list[Any]:
        if requests and given["lane"] == "read":
            seen.count += 1
            if seen.between is not None and any(b"XRANGE" in request.command for request in requests):
                await seen.between()
        return await ask(self, requests, **given)

    monkeypatch.setattr(Session, "ask", asking)
    return seen


async def written(backend: RedisBackend, key: str, *, per_append: int = 1, **given: Any) -> Writer:
    writer = Writer(backend.store, key, **given)
    await writer.open()
    for at in range(0, len(MANY), per_append):
        await writer.append(*MANY[at : at + per_append])
    return writer


def log_of(harness: RedisHarness, key: str) -> str:
    return f"{harness.store_prefix}:{{{key}}}:log"


def assert_begins(page: Page) -> None:
    """Say that a page ends early, and what it has is right."""
    assert 0 < len(page.chunks) < len(MANY)
    assert list(page.chunks) == MANY[: len(page.chunks)]


async def stream(backend: RedisBackend, key: str, *appends: Sequence[bytes]) -> tuple[Writer, list[bytes]]:
    writer = Writer(backend.store, key, retention=Retention(max_bytes=2**30))
    await writer.open()
    stored: list[bytes] = []
    for start in range(0, len(appends), 200):
        items = []
        for chunks in appends[start : start + 200]:
            items.append(writer.item(*chunks))
            writer.tail += len(chunks)
            stored += chunks
        for answer in await backend.store.append(items):
            assert not isinstance(answer, StreamHubError)
    return writer, stored


def find(harness: RedisHarness, key: str, kind: str) -> bytes:
    with harness.server.admin() as admin:
        (found,) = [name for name in admin.scan_iter(match=f"*{key}*", count=1000) if admin.type(name) == kind.encode()]
    return found


SHAPES = {
    "lone": [1] * 700,
    "flushed": [7] * 300,
    "small, then large": [1] * 40 + [3_000] * 30,
    "large, then small": [3_000] * 3 + [1] * 900,
    "by turns": [1, 200, 1, 1, 50] * 40,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [3, 400])
async def test_pages_are_whole_whatever_their_entries(
    harness: RedisHarness, backend: RedisBackend, shape: str, size: int
) -> None:
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    stored: list[bytes] = []
    for count in SHAPES[shape]:
        chunks = [b"%0*d" % (1 + (len(stored) + number) % size, number) for number in range(count)]
        await writer.append(*chunks)
        stored += chunks
    for after in (0, 1, len(stored) // 2, len(stored) - 1):
        for max_chunks, max_bytes in ((4096, 256 * 1024), (50, 256 * 1024), (10**6, 10**9), (4096, 5000), (1, 1)):
            (page,) = await backend.store.read([Read(writer.key, after, max_chunks, max_bytes)])
            assert isinstance(page, Page)
            wanted = stored[after : after + max_chunks]
            fit = max(1, sum(1 for size_bytes in accumulate(map(len, wanted)) if size_bytes <= max_bytes))
            assert list(page.chunks) == wanted[: len(page.chunks)]
            assert 0 < len(page.chunks) <= fit
            # Whole entries are counted, with all that is stored in them: a page may have less than would fit.
            if max_bytes == 10**9 or max(SHAPES[shape]) <= 200:
                assert len(page.chunks) >= fit / (1 if max_bytes == 10**9 else 3), (after, max_chunks, max_bytes)


# --- what happens meanwhile


async def test_what_is_appended_meanwhile_belongs_to_the_next_page(
    harness: RedisHarness, backend: RedisBackend, steps: Steps
) -> None:
    writer = await written(backend, harness.unique_key())
    steps.meanwhile(lambda: writer.append(b"more", end=COMPLETED))
    page = await read(backend.store, writer.key)
    assert (list(page.chunks), page.tail, page.end) == (MANY, len(MANY), None)
    page = await read(backend.store, writer.key, len(MANY))
    assert (page.chunks, page.end) == ((b"more",), COMPLETED)


async def test_a_page_ends_where_the_stream_was_trimmed_meanwhile(
    harness: RedisHarness, backend: RedisBackend, steps: Steps
) -> None:
    retention = Retention(max_chunks=len(MANY), overflow="trim")
    writer = await written(backend, harness.unique_key(), retention=retention)
    steps.meanwhile(lambda: writer.append(*[b"more"] * 300))
    page = await read(backend.store, writer.key)
    assert_begins(page)
    assert page.first == 1
    assert (await read(backend.store, writer.key, len(page.chunks))).first > len(page.chunks) + 1


async def test_a_page_never_goes_on_with_another_run(
    harness: RedisHarness, backend: RedisBackend, steps: Steps
) -> None:
    writer = await written(backend, harness.unique_key())

    async def begin_anew() -> None:
        await backend.store.delete(writer.key)
        other = Writer(backend.store, writer.key, run="run-2", retention=Retention(max_chunks=300, overflow="trim"))
        await other.open()
        for number in range(1000):  # of which the log begins wherever the page goes on
            await other.append(b"other %d" % number)

    steps.meanwhile(begin_anew)
    assert_begins(await read(backend.store, writer.key))


@pytest.mark.parametrize("start", range(2, 40))
async def test_a_page_never_goes_on_with_another_generation(
    harness: RedisHarness, backend: RedisBackend, steps: Steps, start: int
) -> None:
    writer = await written(backend, harness.unique_key())

    async def replace_log() -> None:
        with harness.server.admin() as admin, admin.pipeline() as pipeline:
            pipeline.delete(log_of(harness, writer.key))
            for index in range(start, len(MANY) + 1):
                pipeline.xadd(
                    log_of(harness, writer.key), {"c": b"\x84otherabcd"}, id=f"{writer.generation + 1}-{index}"
                )
            pipeline.execute()

    steps.meanwhile(replace_log)
    assert_begins(await read(backend.store, writer.key))


async def test_a_page_ends_before_what_it_was_begun_without(
    harness: RedisHarness, backend: RedisBackend, steps: Steps
) -> None:
    writer = await written(backend, harness.unique_key())

    async def resume() -> None:
        again = Writer(backend.store, writer.key)
        await again.open(resume=True)
        await again.append(b"more")

    steps.meanwhile(resume)
    page = await read(backend.store, writer.key)
    assert (list(page.chunks), page.tail, len(page.spans)) == (MANY, len(MANY), 1)


async def test_a_page_goes_on_over_the_opens_of_its_run(harness: RedisHarness, backend: RedisBackend) -> None:
    writer = Writer(backend.store, harness.unique_key())
    stored: list[bytes] = []
    for _ in range(6):
        await writer.open(resume=bool(stored))
        for _ in range(50):
            stored.append(b"%d" % len(stored))
            await writer.append(stored[-1])
    page = await read(backend.store, writer.key)
    assert (list(page.chunks), len(page.spans)) == (stored, 6)


async def test_several_pages_are_gone_on_with_together(harness: RedisHarness, backend: RedisBackend) -> None:
    keys = [harness.unique_key() for _ in range(5)]
    for per_append, key in enumerate(keys, start=1):
        await written(backend, key, per_append=per_append)
    missing = harness.unique_key()
    pages = await backend.store.read([Read(keys[0], 0), Read(missing, 0), *(Read(key, 0) for key in keys[1:])])
    found = [page for page in pages if isinstance(page, Page)]
    assert [list(page.chunks) for page in found] == [MANY] * 5


async def test_an_end_of_a_later_release_fails_its_own_page_alone(harness: RedisHarness, backend: RedisBackend) -> None:
    keys = [harness.unique_key(), harness.unique_key()]
    for key in keys:
        await stream(backend, key, [b"a"])
    with harness.server.admin() as admin:
        admin.hset(find(harness, keys[0], "hash"), "end", '{"v":2,"state":"completed"}')
    failed, page = await backend.store.read([Read(keys[0], 0), Read(keys[1], 0)])
    assert isinstance(failed, UnsupportedFormatError)
    assert isinstance(page, Page)


# --- what cannot be read


async def test_an_entry_of_two_fields_ends_the_page(harness: RedisHarness, backend: RedisBackend, steps: Steps) -> None:
    writer, stored = await stream(backend, harness.unique_key(), *[[b"%d" % n] for n in range(100)])
    log = find(harness, writer.key, "stream")

    async def begin_anew() -> None:
        with harness.server.admin() as admin:
            admin.delete(log)
            admin.xadd(log, {"a": b"x", "b": b"y"}, id=f"{writer.generation + 1}-200")

    steps.meanwhile(begin_anew)
    page = await read(backend.store, writer.key)
    assert 0 < len(page.chunks) < 100
    assert list(page.chunks) == stored[: len(page.chunks)]


@pytest.mark.parametrize("place", [3, 60])
async def test_a_page_ends_before_an_entry_of_a_later_release(
    harness: RedisHarness, backend: RedisBackend, place: int
) -> None:
    writer, stored = await stream(backend, harness.unique_key(), *[[b"%d" % n] for n in range(place)])
    with harness.server.admin() as admin:
        admin.xadd(find(harness, writer.key, "stream"), {"c": b"\x7fnew"}, id=f"{writer.generation}-{place + 1}")
        admin.hset(find(harness, writer.key, "hash"), "tail", place + 1)
    assert list((await read(backend.store, writer.key)).chunks) == stored
    with pytest.raises(UnsupportedFormatError):
        await read(backend.store, writer.key, place)


@pytest.mark.parametrize("place", [3, 60])
async def test_a_page_ends_before_a_hole_and_none_begins_behind_it(
    harness: RedisHarness, backend: RedisBackend, place: int
) -> None:
    writer, stored = await stream(backend, harness.unique_key(), *[[b"%d" % n] for n in range(100)])
    with harness.server.admin() as admin:
        admin.xdel(find(harness, writer.key, "stream"), f"{writer.generation}-{place + 1}")
    assert list((await read(backend.store, writer.key)).chunks) == stored[:place]
    with pytest.raises(DataLostError):
        await read(backend.store, writer.key, place)


@pytest.mark.parametrize("place", [60, 105])  # among others, and alone in its step
async def test_a_page_ends_before_an_entry_that_is_not_the_next(
    harness: RedisHarness, backend: RedisBackend, place: int
) -> None:
    writer, stored = await stream(backend, harness.unique_key(), *[[b"%d" % n] for n in range(place)])
    await writer.open(resume=True)
    with harness.server.admin() as admin:
        admin.xadd(find(harness, writer.key, "stream"), {"c": b"\x84otherabcd"}, id=f"{writer.generation}-5")
        admin.hset(find(harness, writer.key, "hash"), "tail", place + 9)
    assert list((await read(backend.store, writer.key)).chunks) == stored


# --- what pages cost


COSTS = {
    "tokens": [T] * 6000,
    "a chunk that all but fills the page, then tokens": [[bytes(PAGE_BYTES - 5000)], *[T] * 6000],
    "a chunk of 200 KB, then tokens": [[bytes(200_000)], *[T] * 6000],
    "tokens, then chunks of 60 KB": [*[T] * 4096, *[[bytes(60_000)]] * 200],
    "few tokens, then chunks of 60 KB": [*[T] * 22, *[[bytes(60_000)]] * 200],
    "the last chunk of 1024, then tokens": [[b"x"] * 1024, *[T] * 6000],
    "flushed by 20": [T * 20] * 600,
    "flushed by 100": [[bytes(110)] * 100] * 100,
    "4 KB each": [[bytes(4000)]] * 300,
}
FETCHED = {"few tokens, then chunks of 60 KB": 6_000_000}  # four times as many as the tokens: nobody knows what comes


@pytest.mark.parametrize("shape", COSTS)
async def test_a_page_takes_few_round_trips_and_fetches_little_more_than_it_holds(
    harness: RedisHarness, backend: RedisBackend, steps: Steps, shape: str
) -> None:
    writer, stored = await stream(backend, harness.unique_key(), *COSTS[shape])
    after = 1023 if "last chunk" in shape else 0
    steps.count = 0
    with harness.server.admin() as admin:
        before = admin.info("stats")["total_net_output_bytes"]
        (page,) = await backend.store.read([Read(writer.key, after, PAGE_CHUNKS, PAGE_BYTES)])
        fetched = admin.info("stats")["total_net_output_bytes"] - before
    assert isinstance(page, Page)
    assert list(page.chunks) == stored[after : after + len(page.chunks)]
    assert len(page.chunks) == PAGE_CHUNKS or sum(map(len, page.chunks)) > PAGE_BYTES * 0.8
    assert steps.count <= 12
    beside = 50 * len(page.chunks) + 20_000  # ids, and what the server says of itself
    assert fetched < FETCHED.get(shape, 1.2 * sum(map(len, page.chunks)) + beside)


# --- a model


def _chunks(rng: random.Random, number: int) -> list[bytes]:
    kind = rng.random()
    if kind < 0.6:
        count, size = 1, rng.choice((0, 1, 5, 127, 128, 300))
    elif kind < 0.9:
        count, size = rng.randint(1, 60), rng.choice((0, 1, 7, 200))
    elif kind < 0.97:
        count, size = rng.choice((1000, 1024, 1025, 3000)), rng.choice((0, 1, 9))
    else:
        count, size = rng.randint(1, 3), rng.choice((4096, 65_536, 70_000, 300_000))
    return [b"%d." % (number + place) + bytes(rng.randint(0, size)) for place in range(count)]


def _read(rng: random.Random, key: str, tail: int) -> Read:
    after = rng.choice((0, 1, tail - 1, tail, tail + 1, tail + 99, rng.randint(0, tail), rng.randint(0, tail), -1))
    most = rng.choice((0, 1, 2, 17, 50, 1024, 4096, 10**6, 2**53, 2**70))
    size = rng.choice((0, 1, 2, 100, 4096, 5000, 2**18, 2**20, 10**9, 2**60))
    return Read(key, after, most, size)


def _check(item: Read, page: Page, stored: dict[str, list[bytes]], *, still: bool) -> None:
    model = stored[page.run]
    after = item.after_index
    assert list(page.chunks) == model[max(after, 0) : max(after, 0) + len(page.chunks)]
    if page.chunks:
        assert after + 1 >= page.first
        assert after + len(page.chunks) <= page.tail
    else:
        assert not page.first <= after + 1 <= page.tail
    assert len(page.chunks) <= max(item.max_chunks, 1)
    assert len(page.chunks) <= 1 or sum(map(len, page.chunks)) <= item.max_bytes
    if still and item.max_chunks <= 2**53:
        assert page.tail == len(model)
        ended = after + len(page.chunks)
        if page.chunks and ended < page.tail and len(page.chunks) < item.max_chunks:
            # entries are counted whole, with what is stored beside the chunks
            assert sum(len(chunk) + 13 for chunk in model[max(0, after - 3000) : ended + 3001]) >= item.max_bytes


async def test_any_page_of_any_stream_is_right(harness: RedisHarness, backend: RedisBackend) -> None:
    rng = random.Random(1)
    for _ in range(8):
        writer = Writer(
            backend.store,
            harness.unique_key(),
            retention=Retention(
                max_bytes=rng.choice((50_000, 2**26)), max_chunks=rng.choice((None, 500)), overflow="trim"
            ),
        )
        stored: list[bytes] = []
        generation = rng.choice((None, 2**53 + 1, 2**63 - 100))
        attended = rng.random() < 0.7
        await writer.open(generation, attended=attended)
        for _ in range(rng.randint(1, 400)):
            if rng.random() < 0.05:
                await writer.open(resume=True, attended=attended)
            chunks = _chunks(rng, len(stored) + 1)
            await writer.append(*chunks)
            stored += chunks
        for _ in range(30):
            items = [_read(rng, writer.key, len(stored)) for _ in range(rng.randint(1, 4))]
            async with asyncio.timeout(20):
                answers = await backend.store.read(items)
            for item, page in zip(items, answers, strict=True):
                assert isinstance(page, Page), page
                _check(item, page, {writer.run: stored}, still=True)
        await backend.store.delete(writer.key)


async def test_any_page_is_right_whatever_happens_meanwhile(
    harness: RedisHarness, backend: RedisBackend, steps: Steps
) -> None:
    rng = random.Random(1)
    other = await harness.make()
    assert isinstance(other, RedisBackend)
    stored: dict[str, list[bytes]] = {}
    key = harness.unique_key()
    writer = Writer(other.store, key)

    async def begin() -> None:
        nonlocal writer
        writer = Writer(
            other.store,
            key,
            run=f"run-{len(stored)}",
            retention=Retention(
                max_bytes=rng.choice((20_000, 2**26)), max_chunks=rng.choice((None, 300, 1000)), overflow="trim"
            ),
        )
        stored[writer.run] = []
        await writer.open()
        # so far the same indexes and sizes, other bytes
        await some(rng.choice((1, 60, 300)))

    async def some(count: int) -> None:
        for _ in range(count):
            made = _chunks(rng, len(stored[writer.run]))[:50] if rng.random() < 0.05 else [b"%d" % count]
            chunks = [writer.run.encode() + b"/" + chunk for chunk in made]
            stored[writer.run] += chunks  # before it is there: a page may have it at once
            await writer.append(*chunks)

    async def happen() -> None:
        what = rng.choice(("nothing",) * 6 + ("append",) * 6 + ("many", "resume", "resume", "anew", "end", "delete"))
        if what == "append":
            await some(rng.randint(1, 5))
        elif what == "many":
            await some(200)
        elif what == "resume":
            await writer.open(resume=True)
            await some(2)
        elif what == "anew":
            await other.store.delete(key)
            await begin()
        elif what == "end":
            await writer.append(end=COMPLETED)
            await begin()
        elif what == "delete":
            await other.store.delete(key)
            await begin()

    await begin()
    steps.between = happen
    several = 0
    for number in range(400):
        item = _read(rng, key, len(stored[writer.run]))
        steps.count = 0
        async with asyncio.timeout(60):
            (page,) = await backend.store.read([item])
        several += steps.count > 1
        assert isinstance(page, Page), page
        _check(item, page, stored, still=False)
        if number % 3 == 0:
            await happen()
    assert several > 10


# --- a cluster


@pytest.mark.parametrize("stage", range(6))
async def test_a_page_is_whole_while_its_slot_moves(steps: Steps, stage: int) -> None:
    cluster = servers.redis_cluster("8.2")
    async with RedisHarness(cluster) as harness:
        backend = await harness.make()
        assert isinstance(backend, RedisBackend)
        appends = [[b"%d" % n] for n in range(600)]
        writer, stored = await stream(backend, harness.unique_key(), *appends)
        names = backend.store._session.names.stream(writer.key)
        migration = cluster.migration(names.meta)
        todo: list[Callable[[], object]] = [
            migration.begin,
            lambda: migration.move(names.log),
            lambda: migration.move(names.meta),
            migration.hand_over,
            migration.finish,
        ]
        for action in todo[:stage]:
            action()
        rest = todo[stage:]

        async def go_on() -> None:
            if rest:
                await asyncio.to_thread(rest.pop(0))

        steps.between = go_on
        try:
            found: list[bytes] = []
            while len(found) < len(stored):
                (page,) = await backend.store.read([Read(writer.key, len(found), 4096, 2**20)])
                if isinstance(page, StreamHubError):
                    assert rest
                    await go_on()
                    continue
                assert page.chunks
                found += page.chunks
            assert found == stored
        finally:
            for action in rest:
                action()
