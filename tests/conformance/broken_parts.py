"""Stores, lease managers and cancel buses that are wrong on purpose, each in one way, around the memory backend."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

from streamhub_memory import MemoryBackend

from streamhub.errors import StreamHubError, StreamNotFoundError
from streamhub.types import COMPLETED, Append, Appended, CancelRequest, Page, Read, RunRef

FOREVER = 1e9


class Broken:
    """One part of a backend; what a subclass does not define is right."""

    def __init__(self, inner: Any, backend: MemoryBackend) -> None:
        self.inner = inner
        self.backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@dataclass
class BrokenBackend:
    """A connected memory backend with some parts replaced."""

    inner: MemoryBackend
    store: Any
    leases: Any
    cancels: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def with_parts(
    *, store: Callable[..., Any] | None = None, leases: Callable[..., Any] | None = None, cancels: Any = None
) -> Callable[[MemoryBackend], BrokenBackend]:
    """Say which parts are broken."""

    def build(backend: MemoryBackend) -> BrokenBackend:
        return BrokenBackend(
            backend,
            store(backend.store, backend) if store else backend.store,
            leases(backend.leases, backend) if leases else backend.leases,
            cancels(backend.cancels, backend) if cancels else backend.cancels,
        )

    return build


# Stores


class StoreThatTrustsTheCaller(Broken):
    """Appends whatever the generation: the current one is put in its place."""

    async def append(self, batch: Any) -> Any:
        infos = await self.inner.describe([item.key for item in batch])
        return await self.inner.append(
            [
                item._replace(generation=info.generation, first=info.tail + 1) if info else item
                for item, info in zip(batch, infos, strict=True)
            ]
        )


class StoreThatAcknowledgesRefusals(Broken):
    """Says that an append is stored when it was refused: a hole nobody learns of."""

    async def append(self, batch: Any) -> Any:
        answers = await self.inner.append(batch)
        return [
            Appended(item.last) if isinstance(answer, StreamHubError) else answer
            for item, answer in zip(batch, answers, strict=True)
        ]


class StoreThatChecksThenWrites(Broken):
    """Checks an append, lets others run, then writes it wherever the tail is by now."""

    async def append(self, batch: Any) -> Any:
        return [await self._one(item) for item in batch]

    async def _one(self, item: Append) -> Any:
        (info,) = await self.inner.describe([item.key])
        refused = info is None or info.generation != item.generation or info.end or item.first != info.tail + 1
        if refused:
            return (await self.inner.append([item]))[0]
        await asyncio.sleep(0)
        (now,) = await self.inner.describe([item.key])
        late = item._replace(generation=now.generation, first=now.tail + 1)
        (answer,) = await self.inner.append([late])
        return Appended(item.last) if isinstance(answer, Appended) else answer


class StoreThatOpensInTwoSteps(Broken):
    """Checks what an open expects, lets others run, then opens over whatever is there."""

    async def open(self, key: str, generation: int, *, expect: Any, **rest: Any) -> Any:
        (info,) = await self.inner.describe([key])
        if info is not None and (info.generation >= generation or info.seen != expect):
            return await self.inner.open(key, generation, expect=expect, **rest)
        await asyncio.sleep(0)
        (now,) = await self.inner.describe([key])
        if now is not None and now.generation > generation:
            self.backend.namespace.streams.pop(key, None)
            now = None
        return await self.inner.open(key, generation, expect=now.seen if now else None, **rest)


class StoreThatWritesInPieces(Broken):
    """Stores an append chunk by chunk, its metadata first and its end last."""

    async def append(self, batch: Any) -> Any:
        return [await self._pieces(item) for item in batch]

    async def _pieces(self, item: Append) -> Any:
        answer: Any = None
        for number, chunk in enumerate(item.chunks):
            piece = item._replace(
                first=item.first + number,
                chunks=(chunk,),
                metadata=None if number else item.metadata,
                end=None,
                nonce=item.nonce + b"%d" % number,
            )
            (answer,) = await self.inner.append([piece])
            if isinstance(answer, StreamHubError):
                return answer
            await asyncio.sleep(0)
        if item.end is not None or not item.chunks:
            (answer,) = await self.inner.append([item._replace(first=item.last + 1, chunks=())])
        return answer


class StoreThatForgetsNonces(Broken):
    """Takes a retried append for a new one."""

    async def append(self, batch: Any) -> Any:
        renewed: list[Append] = []
        for item in batch:
            (info,) = await self.inner.describe([item.key])
            tail = info.tail if info else 0
            first = tail + 1 if item.first <= tail else item.first
            renewed.append(item._replace(nonce=f"{time.monotonic_ns()}".encode(), first=first))
        return await self.inner.append(renewed)


class StoreWithoutFences(Broken):
    """Deletes a stream with every trace of its generation."""

    async def delete(self, key: str) -> bool:
        return self.backend.namespace.streams.pop(key, None) is not None


class StoreThatCleansKeys(Broken):
    """Leaves braces out of keys, as if they were a cluster's tags."""

    def _clean(self, key: str) -> str:
        return key.replace("{", "").replace("}", "")

    async def open(self, key: str, *args: Any, **rest: Any) -> Any:
        return replace(await self.inner.open(self._clean(key), *args, **rest), key=key)

    async def append(self, batch: Any) -> Any:
        return await self.inner.append([item._replace(key=self._clean(item.key)) for item in batch])

    async def read(self, reads: Any) -> Any:
        return await self.inner.read([replace(item, key=self._clean(item.key)) for item in reads])

    async def describe(self, keys: Any, *, touch: bool = False) -> Any:
        infos = await self.inner.describe([self._clean(key) for key in keys], touch=touch)
        return [info and replace(info, key=key) for key, info in zip(keys, infos, strict=True)]


class StoreWithEndMarkers(Broken):
    """Writes the end into the log as a chunk, so that a chunk like it ends the run."""

    async def read(self, reads: Any) -> Any:
        pages = await self.inner.read(reads)
        return [self._cut(page, item.after_index) for page, item in zip(pages, reads, strict=True)]

    def _cut(self, page: Any, after: int) -> Any:
        if isinstance(page, Page) and b"[DONE]" in page.chunks:
            kept = page.chunks[: page.chunks.index(b"[DONE]")]
            return replace(page, chunks=kept, tail=after + len(kept), end=COMPLETED)
        return page


class StoreWithoutPages(Broken):
    """Loads the whole stream, whatever the bounds of a read."""

    async def read(self, reads: Any) -> Any:
        return await self.inner.read([replace(item, max_chunks=2**31, max_bytes=2**31) for item in reads])


class StoreThatSkipsWhatIsTrimmed(Broken):
    """Answers a read before the trimmed edge with what is kept: the gap is silent."""

    async def read(self, reads: Any) -> Any:
        infos = await self.inner.describe([item.key for item in reads])
        return await self.inner.read(
            [
                Read(item.key, max(item.after_index, info.first - 1 if info else 0), item.max_chunks, item.max_bytes)
                for item, info in zip(reads, infos, strict=True)
            ]
        )


class StoreThatHidesEmptyRuns(Broken):
    """Creates the stream with its first chunk, not with its open."""

    async def read(self, reads: Any) -> Any:
        answers = await self.inner.read(reads)
        return [
            StreamNotFoundError(item.key)
            if isinstance(answer, Page) and not answer.tail and answer.end is None
            else answer
            for item, answer in zip(reads, answers, strict=True)
        ]


class StoreThatCountsFromCreation(Broken):
    """An append or a touch does not begin the retention anew."""

    async def append(self, batch: Any) -> Any:
        deadlines = {key: stream.deadline for key, stream in self.backend.namespace.streams.items()}
        answers = await self.inner.append(batch)
        for item in batch:
            self.backend.namespace.streams[item.key].deadline = deadlines[item.key]
        return answers


class StoreThatKeepsFences(Broken):
    """What expires or is deleted leaves something behind for good."""

    async def open(self, *args: Any, retention: Any, **rest: Any) -> Any:
        return await self.inner.open(*args, retention=replace(retention, fence_seconds=FOREVER), **rest)


class StoreThatComparesAsText(Broken):
    """Compares generations as text: "9" is above "10"."""

    async def append(self, batch: Any) -> Any:
        infos = await self.inner.describe([item.key for item in batch])
        return await self.inner.append(
            [
                item._replace(generation=info.generation)
                if info and str(item.generation) > str(info.generation)
                else item
                for item, info in zip(batch, infos, strict=True)
            ]
        )


class _DeafFeed(Broken):
    """A feed that says nothing any more after a while."""

    def __init__(self, inner: Any, deaf: Callable[[], bool]) -> None:
        self.inner = inner
        self._deaf = deaf

    async def __aiter__(self) -> AsyncIterator[Any]:
        if self._deaf():
            await asyncio.Event().wait()
        async for item in self.inner:
            if self._deaf():
                await asyncio.Event().wait()
            yield item


class StoreWhoseFeedTiresOfWaiting(Broken):
    """Its feed goes silent when nothing came for half a second: a driver's time-out that nobody noticed."""

    @contextlib.asynccontextmanager
    async def changes(self) -> AsyncIterator[Any]:
        last = time.monotonic()

        def deaf() -> bool:
            nonlocal last
            tired = time.monotonic() - last > 0.5
            last = last if tired else time.monotonic()
            return tired

        async with self.inner.changes() as feed:
            yield _DeafFeed(feed, deaf)


class StoreWhoseFeedDies(Broken):
    """Its second feed, after the first broke, never says anything."""

    opened = 0

    @contextlib.asynccontextmanager
    async def changes(self) -> AsyncIterator[Any]:
        self.opened += 1
        number = self.opened
        async with self.inner.changes() as feed:
            yield _DeafFeed(feed, lambda: number > 1)


# Lease managers


class LeasesThatLookThenTake(Broken):
    """Asks whether the lease is free, lets others run, then takes it."""

    async def acquire(self, key: str, **rest: Any) -> Any:
        if await self.inner.holders([key]) != [None]:
            return await self.inner.acquire(key, **rest)
        await asyncio.sleep(0)
        self.backend.namespace.leases.pop(key, None)
        return await self.inner.acquire(key, **rest)


class LeasesThatLastTooLong(Broken):
    """A dead producer's lease stays for minutes, whatever its time."""

    async def acquire(self, key: str, *, ttl_seconds: float, **rest: Any) -> Any:
        return await self.inner.acquire(key, ttl_seconds=600.0, **rest)


class LeasesNumberedByTheClock(Broken):
    """Generations are milliseconds of the wall clock, and nothing else."""

    async def acquire(self, key: str, **rest: Any) -> Any:
        self.backend.namespace.next_generation = lambda _: time.time_ns() // 1_000_000
        return await self.inner.acquire(key, **rest)


class LeasesThatBeginAgain(Broken):
    """Counts generations from 1 once the lease is free."""

    async def acquire(self, key: str, *, above: int = 0, **rest: Any) -> Any:
        self.backend.namespace.next_generation = lambda above: above + 1
        return await self.inner.acquire(key, above=above, **rest)


class LeasesReleasedByAnyone(Broken):
    """Releases whatever lease the key has."""

    async def release(self, lease: Any) -> None:
        self.backend.namespace.leases.pop(lease.key, None)


class LeasesThatDeposeTheirOwner(Broken):
    """Takes a retried acquire for another one: a new generation each time."""

    async def acquire(self, key: str, *, owner: str, void: int = 0, **rest: Any) -> Any:
        held = self.backend.namespace.leases.get(key)
        if held is not None and held.lease.owner == owner:
            void = held.lease.generation
        return await self.inner.acquire(key, owner=f"{owner}/{time.monotonic_ns()}", void=void, **rest)


class LeasesWhoseRenewalRevives(Broken):
    """A renewal succeeds though the lease has run out, or another holds it."""

    async def renew(self, leases: Any) -> Any:
        await self.inner.renew(leases)
        return [True] * len(leases)


# Cancel buses


class CancelsOnlyNotified(Broken):
    """A request is a notification and nothing more."""

    async def pending(self, runs: Any) -> Any:
        return [None] * len(runs)


class CancelsWithoutRun(Broken):
    """A request is stored under the key: it hits whichever run there is."""

    async def request(self, key: str, run: str, **rest: Any) -> bool:
        return await self.inner.request(key, "any", **rest)

    async def pending(self, runs: Any) -> Any:
        found = await self.inner.pending([RunRef(key, "any") for key, _ in runs])
        return [
            request and CancelRequest(key, run, request.reason, request.requested_by)
            for (key, run), request in zip(runs, found, strict=True)
        ]


class CancelsErasedByTheProducer(Broken):
    """A producer that begins to listen starts with a clean slate."""

    @contextlib.asynccontextmanager
    async def requests(self) -> AsyncIterator[Any]:
        async with self.inner.requests() as feed:
            yield _ErasingFeed(feed, self.backend)


class _ErasingFeed(Broken):
    async def listen(self, ref: RunRef) -> None:
        self.backend.namespace.requests.pop(ref, None)
        await self.inner.listen(ref)

    def __aiter__(self) -> Any:
        return aiter(self.inner)


class CancelsKeptForGood(Broken):
    """A request has no time to live."""

    async def request(self, key: str, run: str, *, ttl_seconds: float, **rest: Any) -> bool:
        return await self.inner.request(key, run, ttl_seconds=FOREVER, **rest)


class CancelsThatReplace(Broken):
    """The last request wins."""

    async def request(self, key: str, run: str, **rest: Any) -> bool:
        self.backend.namespace.requests.pop(RunRef(key, run), None)
        return await self.inner.request(key, run, **rest)


class CancelsWhoseListenerDies(Broken):
    """Its second feed, after the first broke, never says anything, and nothing is stored to be found."""

    opened = 0

    @contextlib.asynccontextmanager
    async def requests(self) -> AsyncIterator[Any]:
        self.opened += 1
        number = self.opened
        async with self.inner.requests() as feed:
            yield _DeafFeed(feed, lambda: number > 1)
