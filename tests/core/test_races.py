"""Interleavings that once went wrong, each driven step by step."""

import asyncio
import dataclasses
import time
from contextlib import asynccontextmanager

import pytest

from streamhub import (
    Append,
    BackendUnavailableError,
    ConfigError,
    DataLostError,
    Hub,
    HubClosedError,
    HubSettings,
    LeaseLostError,
    Page,
    Retention,
    Span,
    StreamAbandonedError,
    StreamEndedError,
    open_backend,
)
from streamhub.conformance.faulty import Faults, faulty
from streamhub.cursor import number_chunks
from streamhub.feed import Feed
from streamhub.reader import LoadedPage


@pytest.fixture
async def backend(request):
    async with open_backend(f"memory://races-{hash(request.node.name)}") as backend:
        yield backend


def _hub(backend, store=None, **settings):
    settings = HubSettings(**{"poll_seconds": 0.1, "lease_seconds": 30, **settings})
    return Hub(store=store or backend.store, leases=backend.leases, cancels=backend.cancels, settings=settings)


class _Around:
    """A store, to override a part of."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)


class _LateHints(_Around):
    """Hints wait for ``gate``."""

    def __init__(self, store):
        super().__init__(store)
        self.gate = asyncio.Event()
        self.gate.set()

    @asynccontextmanager
    async def changes(self):
        async with self._store.changes() as feed:
            yield _LateFeed(feed, self.gate)


class _LateFeed:
    def __init__(self, feed, gate):
        self._feed, self._gate = feed, gate
        self.follow, self.unfollow = feed.follow, feed.unfollow

    def __aiter__(self):
        return self

    async def __anext__(self):
        item = await anext(self._feed)
        await self._gate.wait()
        return item


async def _until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("lost", [False, True])
async def test_a_waiting_subscriber_gets_what_anothers_read_brought_into_the_shared_window(backend, lost):
    store = _LateHints(backend.store)
    async with _hub(backend) as producing, _hub(backend, store) as hub:
        async with producing.produce("k") as producer:
            await producer.send("1")
            await producer.flush()
            received = []

            async def read():
                async for chunk in hub.subscribe("k"):
                    received.append(chunk.text)

            waiter = asyncio.create_task(read())
            feeds = hub._core.feeds._feeds
            await _until(lambda: received == ["1"] and feeds["k"].awaited and feeds["k"]._polled)
            store.gate.clear()
            await producer.send("2")
        assert [chunk.text async for chunk in hub.subscribe("k")] == ["1", "2"]
        if not lost:
            store.gate.set()
        async with asyncio.timeout(5):
            await waiter
        assert received == ["1", "2"]


async def test_latest_misses_nothing_of_a_stream_that_began_after_the_subscriber_came(backend):
    async with _hub(backend) as hub:
        subscription = hub.subscribe("k", run="new", after="latest", wait=10)
        first = asyncio.create_task(anext(subscription))
        await _until(lambda: "k" in hub._core.feeds._feeds and hub._core.feeds._feeds["k"].awaited)
        async with hub.produce("k", run="new") as producer:
            await producer.send("1")
            await producer.send("2")
        assert (await first).text == "1"
        assert [chunk.text async for chunk in subscription] == ["2"]


async def _leave_unfinished(hub, *texts):
    with pytest.raises(asyncio.CancelledError):
        async with hub.produce("k", run="r", on_interrupt="handover") as producer:
            for text in texts:
                await producer.send(text)
            raise asyncio.CancelledError


async def test_the_offset_of_a_producer_that_has_resumed_is_a_cursor(backend):
    async with _hub(backend) as hub:
        await _leave_unfinished(hub, "1")
        async with hub.produce("k", run="r", unfinished="resume") as producer:
            offset = await producer.flush()
            assert offset == producer.offset
            async with hub.subscribe("k", after=offset) as subscription:
                await producer.send("2")
                assert (await anext(subscription)).text == "2"
                assert producer.offset.generation == producer.generation


async def test_history_of_a_store_that_went_back_is_data_lost_not_a_loop(backend):
    class Shorter(_Around):
        back = False

        async def read(self, reads):
            pages = await self._store.read(reads)
            return [_cut(page, read, 1) for page, read in zip(pages, reads, strict=True)] if self.back else pages

    store = Shorter(backend.store)
    async with _hub(backend, store) as hub:
        await _leave_unfinished(hub, "1", "2", "3")
        async with hub.produce("k", run="r", unfinished="resume") as producer:
            store.back = True
            with pytest.raises(DataLostError):
                async with asyncio.timeout(5):
                    [chunk async for chunk in producer.history()]


def _cut(page, read, tail):
    return dataclasses.replace(page, tail=tail, chunks=page.chunks[: max(0, tail - read.after_index)])


async def test_a_start_whose_lease_ran_out_before_its_open_writes_nothing(backend):
    faults = Faults()
    faults.fail("renew", times=float("inf"))
    over = time.monotonic() + 1

    class Down(_Around):
        async def open(self, *args, **options):
            if time.monotonic() < over:
                raise BackendUnavailableError("down")
            return await self._store.open(*args, **options)

    broken = faulty(backend, faults)
    settings = HubSettings(lease_seconds=0.3)
    hub = Hub(store=Down(backend.store), leases=broken.leases, cancels=backend.cancels, settings=settings)
    async with hub:
        with pytest.raises(LeaseLostError):
            async with hub.produce("k", run="r"):
                pytest.fail("the body must not begin")
        assert await hub.info("k") is None


async def test_starting_a_run_that_ends_meanwhile_says_that_it_has_ended(backend):
    faults = Faults()
    broken = faulty(backend, faults)
    producing = Hub(store=broken.store, leases=broken.leases, cancels=broken.cancels)
    async with producing, _hub(backend) as hub:
        released = faults.pause("release")  # the run has ended, its lease is not given back yet
        block = producing.produce("k", run="r")
        await block.__aenter__()
        leaving = asyncio.create_task(block.__aexit__(None, None, None))
        await released.reached.wait()
        with pytest.raises(StreamEndedError):
            await hub.start("k", lambda _: pytest.fail("must not be called"), run="r")
        released.resume()
        await leaving


async def test_a_subscription_whose_opening_was_cancelled_is_closed_not_deaf(backend):
    async with _hub(backend) as hub:
        subscription = hub.subscribe("k", wait=60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), subscription:
                pass
        assert not hub._core.feeds._feeds
        with pytest.raises(HubClosedError, match="subscription is closed"):
            async with subscription:
                pass


async def test_a_caller_cancelled_while_the_hub_closes_is_cancelled(backend, monkeypatch):
    monkeypatch.setattr("streamhub.core.GRACE_SECONDS", 0)
    faults = Faults()
    stuck, release = faults.pause("open"), faults.pause("release")
    broken = faulty(backend, faults)
    settings = HubSettings(outage_seconds=0)
    hub = await Hub(store=broken.store, leases=broken.leases, cancels=broken.cancels, settings=settings).__aenter__()

    async def produce():
        async with hub.produce("k"):
            pytest.fail("the body must not begin")

    task = asyncio.create_task(produce())
    await stuck.reached.wait()
    hub._core.tasks.closed = True  # as it is once closing no longer waits
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hub._core.tasks.closed = False
    stuck.resume()
    release.resume()
    await hub.aclose()


async def test_a_topic_that_is_left_while_a_connection_joins_others_is_left_there_too(backend):
    faults = Faults()
    broken = faulty(backend, faults)
    async with _hub(backend, broken.store) as hub:
        subscriptions = [hub.subscribe(key, wait=60) for key in "abc"]
        waiting = [asyncio.create_task(anext(each)) for each in subscriptions]
        await _until(
            lambda: all(key in hub._core.feeds._feeds and hub._core.feeds._feeds[key].awaited for key in "abc")
        )
        faults.calls.clear()
        last = [faults.pause("follow") for _ in range(3)]
        faults.break_feeds()
        for pause in last[:2]:
            await pause.reached.wait()
            pause.resume()
        await last[2].reached.wait()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for each in subscriptions:
            await each.aclose()
        last[2].resume()
        await _until(lambda: faults.calls["unfollow"] == 3)


@pytest.mark.parametrize("depth", [65, 400, 5_000])
async def test_metadata_nested_too_deeply_is_refused(backend, depth):
    metadata = {}
    for _ in range(depth):
        metadata = {"a": metadata}
    async with _hub(backend) as hub:
        with pytest.raises(ValueError, match="nested deeper"):
            hub.produce("k", metadata=metadata)


async def _abandoned(backend, key="k"):
    lease = await backend.leases.acquire(key, owner="o", run="r", ttl_seconds=0.1)
    retention = HubSettings().retention
    await backend.store.open(key, lease.generation, owner="o", run="r", expect=None, resume=False, retention=retention)
    await backend.store.append([Append(key, lease.generation, 1, (b"1", b"2"), b"nonce")])


@pytest.mark.parametrize("when", ["behind", "later"])
async def test_everyone_is_told_of_an_abandoned_run_not_only_those_who_wait_when_it_is_found(backend, when):
    await _abandoned(backend)
    async with _hub(backend, lease_seconds=0.3) as hub:
        behind = hub.subscribe("k")  # keeps the feed
        assert (await anext(behind)).text == "1"
        async with asyncio.timeout(10):
            with pytest.raises(StreamAbandonedError):
                [chunk async for chunk in hub.subscribe("k")]
            with pytest.raises(StreamAbandonedError):
                [chunk async for chunk in (behind if when == "behind" else hub.subscribe("k"))]


async def test_an_idle_run_lives_on_while_the_cancel_bus_is_down(backend):
    faults = Faults()
    broken = faulty(backend, faults)
    settings = HubSettings(lease_seconds=0.3, unfinished_seconds=0.6, outage_seconds=60)
    async with Hub(store=broken.store, leases=broken.leases, cancels=broken.cancels, settings=settings) as hub:
        async with asyncio.timeout(20), hub.produce("k") as producer:
            faults.fail("pending", times=float("inf"))
            before = faults.calls["renew"]
            await _until(lambda: faults.calls["renew"] >= before + 12)  # at 0.1 s each, twice the stream's life
            await producer.send("1")
        assert (await hub.info("k")).end.state == "completed"


async def test_a_join_that_is_cancelled_late_does_not_take_the_topic_from_the_next_one(backend):
    class SlowToCancel(_LateFeed):
        async def follow(self, key):
            try:
                await asyncio.sleep(slow)
            except asyncio.CancelledError:
                await asyncio.sleep(0.05)  # as a driver that cleans up
                raise
            await self._feed.follow(key)

    class Store(_Around):
        @asynccontextmanager
        async def changes(self):
            async with self._store.changes() as feed:
                late = SlowToCancel(feed, opened)
                late.follow = lambda key: SlowToCancel.follow(late, key)
                yield late

    slow, opened = 0.2, asyncio.Event()
    opened.set()
    async with _hub(backend, Store(backend.store)) as hub, hub.produce("k"):
        first = asyncio.create_task(hub.subscribe("k").__aenter__())
        await _until(lambda: "k" in hub._core.feeds._link._wanted and hub._core.feeds._link._wire is not None)
        first.cancel()
        await asyncio.sleep(0)
        async with hub.subscribe("k"):
            assert "k" in hub._core.feeds._link._wanted


def test_an_old_page_is_not_spliced_into_a_resumed_history():
    def load(spans, chunks, tail, after):
        page = Page(run="r", attended=True, spans=spans, chunks=chunks, first=1, tail=tail, end=None, metadata={})
        return LoadedPage(after, page, number_chunks(chunks, after + 1, spans))

    before, since = (Span(1, 1),), (Span(1, 1), Span(2, 6))
    feed = Feed("k", None, 10**6)
    feed._absorb(load(before, (b"o1", b"o2", b"o3", b"o4", b"o5"), 5, 0))
    feed._absorb(load(since, (b"n6", b"n7"), 7, 5))
    feed._absorb(load(before, (b"o6", b"o7", b"o8"), 8, 5))  # read before the store went back
    assert [chunk.data for chunk in feed.window.after(6)] == [b"n7"]


async def test_a_source_with_aclose_is_closed_though_it_is_no_generator(backend):
    class Source:
        closed = False

        def __aiter__(self):
            return self

        async def __anext__(self):
            begun.set()
            await asyncio.sleep(600)

        async def aclose(self):
            self.closed = True

    source, begun = Source(), asyncio.Event()
    async with _hub(backend) as hub:
        await hub.start("k", lambda _: source, run="r")
        await begun.wait()
        assert (await hub.cancel("k", run="r", wait=10)).state == "cancelled"
        assert source.closed


async def test_a_life_shorter_than_between_two_renewals_is_refused(backend):
    async with _hub(backend, lease_seconds=15) as hub:
        with pytest.raises(ConfigError, match="between two renewals"):
            hub.produce("k", retention=Retention(unfinished_seconds=5))
