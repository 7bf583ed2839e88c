"""Stores that begin an append within ``send``."""

import asyncio

import pytest

from streamhub import (
    BackendUnavailableError,
    DrainingError,
    Hub,
    HubClosedError,
    HubSettings,
    StaleGenerationError,
    StreamHubError,
    open_backend,
)


class PromptStore:
    """A store whose appends begin at once, and are answered when ``answer`` says so."""

    groups_streams = False

    def __init__(self, store):
        self._store = store
        self.begun = []
        self.appended = []
        self.flying = 0
        self.answer = self.stored
        self.refuses = False

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def append(self, batch):
        assert not self.flying
        self.appended += batch
        return await self._store.append(batch)

    def begin_append(self, append):
        if self.refuses:
            return None
        assert not self.flying
        self.flying += 1
        self.begun.append(append)

        async def answered():
            try:
                return await self.answer(append)
            finally:
                self.flying -= 1

        return answered

    async def stored(self, append):
        return (await self._store.append([append]))[0]


@pytest.fixture
async def backend(request):
    async with open_backend(f"memory://prompt-{hash(request.node.name)}") as backend:
        yield backend


@pytest.fixture
async def store(backend):
    return PromptStore(backend.store)


@pytest.fixture
async def hub(backend, store):
    settings = HubSettings(poll_seconds=0.1, lease_seconds=30)
    async with Hub(store=store, leases=backend.leases, cancels=backend.cancels, settings=settings) as hub:
        yield hub


async def _idle(producer):
    """The first chunk of a producer starts its committer."""
    await producer.send("first")
    await producer.flush()
    await asyncio.sleep(0)


async def _texts(hub):
    async with hub.subscribe("k") as subscription:
        return [chunk.text async for chunk in subscription]


async def test_an_idle_stream_s_chunk_has_begun_when_send_returns_and_later_ones_ride_together(hub, store):
    async with hub.produce("k") as producer:
        await _idle(producer)

        for text in "abc":
            await producer.send(text)

        assert [append.chunks for append in store.begun] == [(b"a",)]
        await producer.flush()
        assert [append.chunks for append in store.appended] == [(b"first",), (b"b", b"c")]
    assert await _texts(hub) == ["first", "a", "b", "c"]


async def test_what_cannot_begin_is_appended(hub, store):
    async with hub.produce("k") as producer:
        await _idle(producer)
        store.refuses = True
        await producer.send("a")
    assert not store.begun
    assert await _texts(hub) == ["first", "a"]


@pytest.mark.parametrize("kept", [False, True])
async def test_one_of_unknown_outcome_is_repeated_as_it_was(hub, store, kept):
    async def lost(append):
        if kept:
            await store.stored(append)
        return BackendUnavailableError("lost")

    async with hub.produce("k") as producer:
        await _idle(producer)
        store.answer = lost
        await producer.send("a")
        await producer.send("b")
        await asyncio.sleep(0)
        store.answer = store.stored
        await producer.flush()
    assert store.begun[0] in store.begun[1:] + store.appended
    assert await _texts(hub) == ["first", "a", "b"]


async def test_a_defect_while_beginning_does_not_reach_send_and_nothing_is_lost(hub, store, caplog):
    def begin_append(append):
        raise LookupError

    async with hub.produce("k") as producer:
        await _idle(producer)
        store.begin_append = begin_append
        await producer.send("a")
        await producer.flush()
    assert "begin_append raised what no backend may raise" in caplog.text
    assert await _texts(hub) == ["first", "a"]


async def test_a_backend_that_is_closed_is_no_defect(hub, store, caplog):
    def closed(append):
        raise HubClosedError("the backend is not open")

    async def refused(batch):
        raise HubClosedError("the backend is not open")

    with pytest.raises(HubClosedError, match="backend"):
        async with hub.produce("k") as producer:
            await _idle(producer)
            store.begin_append, store.append = closed, refused
            await producer.send("a")
            await producer.flush()
    assert "no backend may raise" not in caplog.text


@pytest.mark.parametrize("how", ["answered", "raised", "defect"])
async def test_a_refusal_stops_the_producer(hub, store, how):
    async def fenced(append):
        if how == "defect":
            raise LookupError
        stale = StaleGenerationError(append.key, generation=append.generation, current=append.generation + 1)
        if how == "raised":
            raise stale
        return stale

    with pytest.raises(StreamHubError if how == "defect" else StaleGenerationError):
        async with hub.produce("k") as producer:
            await _idle(producer)
            store.answer = fenced
            await producer.send("a")
            await producer.flush()
    assert not store.flying


async def test_one_at_most_is_in_flight_however_it_is_sent(hub, store):
    async def late(append):
        await asyncio.sleep(0.001 * (len(store.begun) % 3))
        return await store.stored(append)

    store.answer = late
    async with hub.produce("k") as producer:
        for number in range(200):
            await producer.send(str(number))
            if number % 7 == 0:
                await producer.flush()
            if number % 5 == 0:
                await asyncio.sleep(0.001 * (number % 3))
    assert len(store.begun) > 20
    assert await _texts(hub) == [str(number) for number in range(200)]


async def test_a_hub_that_is_closed_leaves_what_has_begun(backend, store):
    """Its outcome is never asked for."""
    hub = Hub(store=store, leases=backend.leases, cancels=backend.cancels)

    async def produce():
        async with hub.produce("k") as producer:
            await _idle(producer)
            await producer.send("a")
            await hub.aclose()

    await hub.__aenter__()
    async with asyncio.timeout(10):
        with pytest.raises((HubClosedError, DrainingError, asyncio.CancelledError)):
            await asyncio.create_task(produce())
        await hub.aclose()
    assert [append.chunks for append in store.begun] == [(b"a",)]


@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("idle", [True, False])
async def test_sending_once_nothing_can_be_stored_any_more_raises_every_time_and_nobody_waits(
    backend, store, prompt, idle
):
    async with Hub(store=store if prompt else backend.store, leases=backend.leases, cancels=backend.cancels) as hub:
        with pytest.raises(HubClosedError):
            async with asyncio.timeout(5), hub.produce("k") as producer:
                if idle:
                    await _idle(producer)
                hub._core.tasks.closed = True  # as it is once closing no longer waits
                try:
                    for _ in range(2):
                        with pytest.raises(HubClosedError, match="the hub is closed"):
                            await producer.send("a")
                    await producer.flush()
                finally:
                    hub._core.tasks.closed = False
