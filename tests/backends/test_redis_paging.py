"""Pages that are read in several steps: whole, and true to the moment at which they were begun."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import accumulate
from typing import Any

import pytest
import servers
from redis_support import RedisHarness
from streamhub_redis import RedisBackend
from streamhub_redis.session import Session

from streamhub.conformance.writer import Writer, read
from streamhub.errors import DataLostError, UnsupportedFormatError
from streamhub.types import COMPLETED, Page, Read, Retention

Meanwhile = Callable[[Callable[[], Awaitable[object]]], None]

MANY = [b"token %d" % number for number in range(600)]


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
async def reader(harness: RedisHarness) -> RedisBackend:
    """A backend that nothing else is done with."""
    reader = await harness.make()
    assert isinstance(reader, RedisBackend)
    return reader


@pytest.fixture
def meanwhile(reader: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Have something done between the first step of the reader's next page and the second."""
    session, ask, steps = reader.store._session, Session.ask, 0
    action: Callable[[], Awaitable[object]] | None = None

    async def asking(self: Session, requests: Sequence[Any], **given: Any) -> list[Any]:
        nonlocal steps
        if self is session and requests:
            steps += 1
            if steps == 2:
                assert action is not None
                await action()
        return await ask(self, requests, **given)

    def plan(planned: Callable[[], Awaitable[object]]) -> None:
        nonlocal action, steps
        action, steps = planned, 0

    monkeypatch.setattr(Session, "ask", asking)
    return plan


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


async def test_what_is_appended_meanwhile_belongs_to_the_next_page(
    harness: RedisHarness, backend: RedisBackend, reader: RedisBackend, meanwhile: Meanwhile
) -> None:
    writer = await written(backend, harness.unique_key())
    meanwhile(lambda: writer.append(b"more", end=COMPLETED))
    page = await read(reader.store, writer.key)
    assert (list(page.chunks), page.tail, page.end) == (MANY, len(MANY), None)
    page = await read(reader.store, writer.key, len(MANY))
    assert (page.chunks, page.end) == ((b"more",), COMPLETED)


async def test_a_page_ends_where_the_stream_was_trimmed_meanwhile(
    harness: RedisHarness, backend: RedisBackend, reader: RedisBackend, meanwhile: Meanwhile
) -> None:
    retention = Retention(max_chunks=len(MANY), overflow="trim")
    writer = await written(backend, harness.unique_key(), retention=retention)
    meanwhile(lambda: writer.append(*[b"more"] * 300))
    page = await read(reader.store, writer.key)
    assert_begins(page)
    assert page.first == 1
    assert (await read(reader.store, writer.key, len(page.chunks))).first > len(page.chunks) + 1


async def test_a_page_never_goes_on_with_another_run(
    harness: RedisHarness, backend: RedisBackend, reader: RedisBackend, meanwhile: Meanwhile
) -> None:
    writer = await written(backend, harness.unique_key())

    async def begin_anew() -> None:
        await backend.store.delete(writer.key)
        other = Writer(backend.store, writer.key, run="run-2", retention=Retention(max_chunks=300, overflow="trim"))
        await other.open()
        for number in range(1000):  # of which the log begins wherever the page goes on
            await other.append(b"other %d" % number)

    meanwhile(begin_anew)
    assert_begins(await read(reader.store, writer.key))


@pytest.mark.parametrize("start", range(2, 40))
async def test_a_page_never_goes_on_with_another_generation(
    harness: RedisHarness, backend: RedisBackend, reader: RedisBackend, meanwhile: Meanwhile, start: int
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

    meanwhile(replace_log)
    assert_begins(await read(reader.store, writer.key))


async def test_a_page_ends_before_what_it_was_begun_without(
    harness: RedisHarness, backend: RedisBackend, reader: RedisBackend, meanwhile: Meanwhile
) -> None:
    writer = await written(backend, harness.unique_key())

    async def resume() -> None:
        again = Writer(backend.store, writer.key)
        await again.open(resume=True)
        await again.append(b"more")

    meanwhile(resume)
    page = await read(reader.store, writer.key)
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


async def test_a_page_ends_before_an_entry_of_a_later_release(harness: RedisHarness, backend: RedisBackend) -> None:
    writer = await written(backend, harness.unique_key(), per_append=2)
    name = f"{writer.generation}-402"
    with harness.server.admin() as admin:
        entries = admin.xrange(log_of(harness, writer.key), count=200)
        admin.delete(log_of(harness, writer.key))
        for found, fields in entries:
            admin.xadd(log_of(harness, writer.key), fields, id=found)
        admin.xadd(log_of(harness, writer.key), {"c": b"\x7fsomething new"}, id=name)
    page = await read(backend.store, writer.key)
    assert list(page.chunks) == MANY[:400]
    with pytest.raises(UnsupportedFormatError):
        await read(backend.store, writer.key, 400)


async def test_a_page_ends_before_a_hole_and_none_begins_behind_it(
    harness: RedisHarness, backend: RedisBackend
) -> None:
    writer = await written(backend, harness.unique_key(), per_append=2)
    with harness.server.admin() as admin:
        admin.xdel(log_of(harness, writer.key), f"{writer.generation}-402")
    page = await read(backend.store, writer.key)
    assert list(page.chunks) == MANY[:400]
    with pytest.raises(DataLostError):
        await read(backend.store, writer.key, 400)


async def test_several_pages_are_gone_on_with_together(harness: RedisHarness, backend: RedisBackend) -> None:
    keys = [harness.unique_key() for _ in range(5)]
    for per_append, key in enumerate(keys, start=1):
        await written(backend, key, per_append=per_append)
    missing = harness.unique_key()
    pages = await backend.store.read([Read(keys[0], 0), Read(missing, 0), *(Read(key, 0) for key in keys[1:])])
    found = [page for page in pages if isinstance(page, Page)]
    assert [list(page.chunks) for page in found] == [MANY] * 5


async def test_little_more_is_fetched_than_a_page_has_room_for(harness: RedisHarness, backend: RedisBackend) -> None:
    writer = Writer(backend.store, harness.unique_key())
    await writer.open()
    for _ in range(100):
        await writer.append(*[bytes(110)] * 100)
    with harness.server.admin() as admin:
        before = admin.info("stats")["total_net_output_bytes"]
        (page,) = await backend.store.read([Read(writer.key, 0, 4096, 2**20)])
        fetched = admin.info("stats")["total_net_output_bytes"] - before
    assert isinstance(page, Page)
    assert len(page.chunks) == 4096
    assert fetched < 1.2 * sum(map(len, page.chunks))
