"""Amnesia: a store that is emptied, or goes back to an older state, behind everybody's back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from streamhub import (
    Append,
    Appended,
    Backend,
    Change,
    ChangeFeed,
    DataLostError,
    Hub,
    Page,
    Read,
    Seen,
    StreamHubError,
    StreamInfo,
    StreamNotFoundError,
    StreamReplacedError,
    StreamStore,
)
from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import (
    collect,
    data_of,
    indexes_of,
    leave_unfinished,
    produce_all,
    reading,
    replay,
    send_all,
    until,
    words,
)
from streamhub.conformance.faulty import Faults, FaultyChangeFeed, FaultyStore
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import PATIENCE_SECONDS
from streamhub.conformance.writer import Writer
from streamhub.types import COMPLETED, Metadata, Retention

Scenario = Callable[[Hub, str, Backend], Coroutine[Any, Any, None]]
"""Uses a hub whose backend fails, and judges by another connection what came of it."""


class _Amnesia:
    """Lets stores forget everything, without a fence, as if emptied behind everybody's back: keys get new names."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._times = 0

    def of(self, inner: StreamStore) -> _ForgetfulStore:
        """Wrap a store; all stores that are wrapped forget together."""
        return _ForgetfulStore(inner, self.faults, self)

    def forget(self) -> None:
        """Forget everything that was stored so far."""
        self._times += 1
        self.faults.break_feeds()  # they follow the old names

    async def go_back(self, store: StreamStore, key: str, generation: int, chunks: Sequence[bytes]) -> Writer:
        """Let only ``chunks`` be stored of a run named "r1", as after a failover to a replica that was behind."""
        writer = Writer(store, f"{key} {self._times + 1}", run="r1")
        await writer.open(generation)
        await writer.append(*chunks)
        self.forget()
        return writer

    def name(self, key: str) -> str:
        """Return what a key is called now."""
        return f"{key} {self._times}" if self._times else key

    def key(self, name: str) -> str:
        """Return the key that has, or had, a name."""
        return name.partition(" ")[0]


class _ForgetfulStore(FaultyStore):
    def __init__(self, inner: StreamStore, faults: Faults, amnesia: _Amnesia) -> None:
        super().__init__(inner, faults)
        self._amnesia = amnesia

    async def open(
        self,
        key: str,
        generation: int,
        *,
        owner: str,
        run: str,
        expect: Seen | None,
        resume: bool,
        attended: bool = True,
        metadata: Metadata | None = None,
        retention: Retention,
    ) -> StreamInfo:
        """See ``StreamStore.open``."""
        info = await super().open(
            self._amnesia.name(key),
            generation,
            owner=owner,
            run=run,
            expect=expect,
            resume=resume,
            attended=attended,
            metadata=metadata,
            retention=retention,
        )
        return replace(info, key=key)

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | StreamHubError]:
        """See ``StreamStore.append``."""
        return await super().append([item._replace(key=self._amnesia.name(item.key)) for item in batch])

    async def read(self, reads: Sequence[Read]) -> Sequence[Page | StreamHubError]:
        """See ``StreamStore.read``."""
        return await super().read([replace(item, key=self._amnesia.name(item.key)) for item in reads])

    async def describe(self, keys: Sequence[str], *, touch: bool = False) -> Sequence[StreamInfo | None]:
        """See ``StreamStore.describe``."""
        infos = await super().describe([self._amnesia.name(key) for key in keys], touch=touch)
        return [info and replace(info, key=key) for key, info in zip(keys, infos, strict=True)]

    async def delete(self, key: str) -> bool:
        """See ``StreamStore.delete``."""
        return await super().delete(self._amnesia.name(key))

    def changes(self) -> AbstractAsyncContextManager[ChangeFeed]:
        """See ``StreamStore.changes``."""
        return self._forgetful()

    @contextlib.asynccontextmanager
    async def _forgetful(self) -> AsyncGenerator[ChangeFeed]:
        async with self._inner.changes() as feed:
            yield _ForgetfulFeed(feed, self._faults, self._amnesia)


class _ForgetfulFeed(FaultyChangeFeed):
    def __init__(self, inner: ChangeFeed, faults: Faults, amnesia: _Amnesia) -> None:
        super().__init__(inner, faults)
        self._amnesia = amnesia

    async def follow(self, key: str) -> None:
        """See ``ChangeFeed.follow``."""
        await super().follow(self._amnesia.name(key))

    async def unfollow(self, key: str) -> None:
        """See ``ChangeFeed.unfollow``."""
        await super().unfollow(self._amnesia.name(key))

    async def __aiter__(self) -> AsyncIterator[Change]:
        async for change in super().__aiter__():
            key = None if change.key is None else self._amnesia.key(change.key)
            append = change.append and change.append._replace(key=self._amnesia.key(change.append.key))
            yield Change(key, append)


class AmnesiaTests(ContractTests):
    """X6: what is stored is gone, all of it or the newest of it."""

    async def test_a_producer_sends_again_what_an_emptied_store_lost(self, harness: Harness) -> None:
        """X6: Backend emptied: … re-sends what was lost if it still holds it; subscribers get it once, or are told."""
        amnesia, key = _Amnesia(), harness.unique_key()
        here = await harness.hub(store=amnesia.of((await harness.make()).store))
        there = await harness.hub(store=amnesia.of((await harness.make()).store))
        source = words(9)
        async with reading(there, key, wait=PATIENCE_SECONDS) as live:
            async with asyncio.timeout(PATIENCE_SECONDS), here.produce(key, metadata={"model": "m"}) as producer:
                for number in range(0, 9, 3):
                    await send_all(producer, source[number : number + 3])
                    amnesia.forget()
            await _assert_whole_or_told(live.finished(), source)
        chunks = await replay(there, key)
        assert data_of(chunks) == source
        assert indexes_of(chunks) == list(range(1, 10))
        info = await there.info(key)
        assert info is not None
        assert (info.end, info.metadata) == (COMPLETED, {"model": "m"})

    async def test_a_producer_that_cannot_send_again_is_told(self, harness: Harness) -> None:
        """X6: Backend emptied: producers and subscribers get typed errors, no hang: else raises `DataLostError`."""
        amnesia, key = _Amnesia(), harness.unique_key()
        here = await harness.hub(store=amnesia.of((await harness.make()).store))
        there = await harness.hub(store=amnesia.of((await harness.make()).store))
        async with reading(there, key, wait=PATIENCE_SECONDS) as live:
            with pytest.raises(DataLostError):
                async with asyncio.timeout(PATIENCE_SECONDS), here.produce(key) as producer:
                    for _ in range(20):
                        await send_all(producer, [bytes(500_000)])
                    await live.has(20)
                    amnesia.forget()
                    await send_all(producer, [b"after"])
            with pytest.raises(StreamHubError):
                await live.finished()
            assert live.end is None

    async def test_subscribers_of_an_emptied_store_are_told(self, harness: Harness) -> None:
        """X6: Backend emptied: producers and subscribers get typed errors, no hang."""
        amnesia, key = _Amnesia(), harness.unique_key()
        backend = await harness.make()
        hub = await harness.hub(store=amnesia.of((await harness.make()).store))
        lease, writer = await leave_unfinished(backend, key, words(3), lease_seconds=600.0)
        behind = hub.subscribe(key)
        await collect(behind, limit=1)
        async with reading(hub, key) as live:
            await live.has(3)
            amnesia.forget()
            with pytest.raises(StreamNotFoundError):
                await live.finished()
        with pytest.raises(StreamNotFoundError):
            await replay(hub, key)
        # What follows under this key is another stream, and a cursor of the old one is no position in it.
        await backend.leases.release(lease)
        await produce_all(hub, key, words(5, "new"), run="new")
        for index in range(4):
            with pytest.raises(StreamHubError):
                await replay(hub, key, f"{writer.generation}-{index}")
        with pytest.raises(StreamHubError):
            assert data_of(await collect(behind)) == words(3)[1:]
            await anext(behind)

    async def test_a_producer_sends_again_what_a_store_that_went_back_lost(self, harness: Harness) -> None:
        """X6: … when a store goes back, the producer re-sends what was lost if it still holds it."""
        amnesia, key, backend = _Amnesia(), harness.unique_key(), await harness.make()
        here = await harness.hub(store=amnesia.of(backend.store))
        there = await harness.hub(store=amnesia.of((await harness.make()).store), abandon_after_seconds=60.0)
        source = words(9)
        async with reading(there, key, wait=PATIENCE_SECONDS) as live:
            async with asyncio.timeout(PATIENCE_SECONDS), here.produce(key, run="r1") as producer:
                await send_all(producer, source[:3], flush_each=True)
                await send_all(producer, source[3:6], flush_each=True)
                await live.has(6)
                await amnesia.go_back(backend.store, key, producer.generation, source[:4])
                await send_all(producer, source[6:])
            chunks = await live.finished()
        assert data_of(chunks) == source
        assert await replay(there, key) == chunks

    async def test_a_subscriber_ahead_of_a_store_that_went_back_waits_for_it(self, harness: Harness) -> None:
        """X6: … a live subscriber ahead of the store waits while its generation is current."""
        amnesia, key, backend = _Amnesia(), harness.unique_key(), await harness.make()
        faults = amnesia.faults
        hub = await harness.hub(store=amnesia.of(backend.store), poll_seconds=0.1, abandon_after_seconds=60.0)
        _, writer = await leave_unfinished(backend, key, words(5), lease_seconds=600.0)
        async with reading(hub, key) as live:
            await live.has(5)
            writer = await amnesia.go_back(backend.store, key, writer.generation, words(3))
            polls = faults.calls["describe"]
            await until(lambda: faults.calls["describe"] > polls + 2)
            await writer.append(*words(5)[3:])
            await writer.append(b"6", end=COMPLETED)
            assert data_of(await live.finished()) == [*words(5), b"6"]

    async def test_a_subscriber_of_a_history_that_is_written_anew_is_told(self, harness: Harness) -> None:
        """X6: … and raises `StreamReplacedError` as soon as a later generation's span starts at or below its index."""
        for kept in (3, 4):
            amnesia, key, backend = _Amnesia(), harness.unique_key(), await harness.make()
            hub = await harness.hub(store=amnesia.of(backend.store), abandon_after_seconds=60.0)
            other = await harness.hub(store=amnesia.of((await harness.make()).store))
            _, writer = await leave_unfinished(backend, key, words(5), lease_seconds=600.0)
            async with reading(hub, key) as live:
                last = (await live.has(5))[-1].offset
                await amnesia.go_back(backend.store, key, writer.generation, words(kept))
                successor = Writer(backend.store, amnesia.name(key), run="r1")
                await successor.open(resume=True)
                await successor.append(*words(9, "anew"), end=COMPLETED)
                with pytest.raises(StreamReplacedError):
                    await live.finished()
                assert live.data == words(5)
            with pytest.raises(StreamReplacedError):
                await replay(other, key, last)
            assert data_of(await replay(other, key)) == words(kept) + words(9, "anew")

    async def test_everybody_is_told_when_a_backend_is_emptied(self, harness: Harness) -> None:
        """X6: Backend emptied: producers and subscribers get typed errors, no hang."""
        harness.require("wipe")
        here, there = await harness.hub(), await harness.hub()
        key, source = harness.unique_key(), words(3)
        async with reading(there, key, wait=PATIENCE_SECONDS) as live:
            with contextlib.suppress(StreamHubError):
                async with asyncio.timeout(PATIENCE_SECONDS), here.produce(key, run="r1") as producer:
                    await send_all(producer, source)
                    await live.has(3)
                    await harness.wipe()
                    await send_all(producer, [b"after"])
                    source.append(b"after")
            await _assert_whole_or_told(live.finished(), [*source])
        await produce_all(there, key, [b"new"], run="new", unfinished="replace", wait=PATIENCE_SECONDS)
        assert data_of(await replay(here, key)) == [b"new"]


async def _assert_whole_or_told(reading_on: Awaitable[Any], source: Sequence[bytes]) -> None:
    """A subscriber gets everything, or is told that it did not."""
    try:
        chunks = await reading_on
    except StreamHubError:
        return
    assert data_of(chunks) == list(source)
