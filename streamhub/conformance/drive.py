"""Steps that the hub's cases share: produce, collect, leave a dead producer behind, cancel at any await."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from typing import Any, Generic, TypeVar, cast

from streamhub import Chunk, End, Hub, Lease, Offset, Page, Producer, Read, StreamHubError, Subscription
from streamhub.conformance.faulty import Faults, FaultyStore
from streamhub.conformance.waiting import PATIENCE_SECONDS
from streamhub.conformance.writer import Writer, describe
from streamhub.protocols import Backend, StreamStore

T = TypeVar("T")

UNPOLLED: dict[str, Any] = {"poll_seconds": 600.0, "lease_seconds": 600.0}
"""Settings of a hub whose safety polls and renewals come too late to help: what is fast is so by a notification."""


def words(count: int, prefix: str = "w") -> list[bytes]:
    """Return ``count`` different chunks."""
    return [f"{prefix}{number} ".encode() for number in range(1, count + 1)]


def data_of(chunks: Iterable[Chunk]) -> list[bytes]:
    """Return the payloads of chunks."""
    return [chunk.data for chunk in chunks]


def indexes_of(chunks: Iterable[Chunk]) -> list[int]:
    """Return the indexes of chunks."""
    return [chunk.offset.index for chunk in chunks]


async def soon(awaitable: Awaitable[T], seconds: float = PATIENCE_SECONDS) -> T:
    """Await with a bound; ``TimeoutError`` says that it hung."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def until(fact: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait, with a bound, until ``fact()`` is true; ``TimeoutError`` says that it never was."""
    async with asyncio.timeout(seconds):
        while not fact():
            await asyncio.sleep(0.005)


async def collect(subscription: Subscription, *, limit: int | None = None) -> list[Chunk]:
    """Read ``limit`` chunks, or to the end."""
    chunks: list[Chunk] = []
    if limit == 0:
        return chunks
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for chunk in subscription:
            chunks.append(chunk)
            if len(chunks) == limit:
                break
    return chunks


async def replay(hub: Hub, key: str, after: Offset | str | None = None, **options: Any) -> list[Chunk]:
    """Read a stream to its end, through a subscription of its own."""
    async with hub.subscribe(key, after=after, **options) as subscription:
        return await collect(subscription)


async def read_end(hub: Hub, key: str, **options: Any) -> End | None:
    """Read a stream to its end and return the end."""
    async with hub.subscribe(key, strict=False, **options) as subscription:
        await collect(subscription)
        return subscription.end


class Reading:
    """A subscription read by a task of its own, chunk by chunk as they come."""

    def __init__(self, hub: Hub, key: str, **options: Any) -> None:
        self.chunks: list[Chunk] = []
        self.end: End | None = None
        self.attached: asyncio.Event = asyncio.Event()
        self.task: asyncio.Task[list[Chunk]] = asyncio.create_task(self._read(hub, key, options))

    async def _read(self, hub: Hub, key: str, options: dict[str, Any]) -> list[Chunk]:
        async with hub.subscribe(key, **options) as subscription:
            self.attached.set()
            async for chunk in subscription:
                self.chunks.append(chunk)
            self.end = subscription.end
        return self.chunks

    @property
    def data(self) -> list[bytes]:
        """The payloads so far."""
        return data_of(self.chunks)

    async def ready(self) -> None:
        """Wait until it is attached; raise what it raised instead."""
        await until(lambda: self.attached.is_set() or self.task.done())
        if not self.attached.is_set():
            await self.task

    async def has(self, count: int, seconds: float = PATIENCE_SECONDS) -> list[Chunk]:
        """Wait until it has ``count`` chunks; raise what it raised instead."""
        await until(lambda: len(self.chunks) >= count or self.task.done(), seconds)
        if len(self.chunks) < count:
            await self.task
        return self.chunks[:count]

    async def finished(self, seconds: float = PATIENCE_SECONDS) -> list[Chunk]:
        """Wait until it finishes and return all its chunks; raise what it raised."""
        return await soon(asyncio.shield(self.task), seconds)


@contextlib.asynccontextmanager
async def reading(hub: Hub, key: str, **options: Any) -> AsyncGenerator[Reading]:
    """Read a stream in the background, inside the block."""
    reader = Reading(hub, key, **options)
    try:
        yield reader
    finally:
        await dismiss(reader.task)


async def dismiss(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they are done; their outcome does not matter."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def send_all(producer: Producer, chunks: Iterable[str | bytes], *, flush_each: bool = False) -> list[Offset]:
    """Send chunks and flush; return their offsets."""
    offsets: list[Offset] = []
    for chunk in chunks:
        offsets.append(await producer.send(chunk))
        if flush_each:
            await producer.flush()
    await producer.flush()
    return offsets


async def produce_all(
    hub: Hub, key: str, chunks: Iterable[str | bytes], *, flush_each: bool = False, **options: Any
) -> list[Offset]:
    """Produce a whole run; return the chunks' offsets."""
    async with asyncio.timeout(PATIENCE_SECONDS), hub.produce(key, **options) as producer:
        return await send_all(producer, chunks, flush_each=flush_each)


async def leave_unfinished(
    backend: Backend, key: str, chunks: Sequence[bytes] = (), *, run: str = "r1", lease_seconds: float
) -> tuple[Lease, Writer]:
    """Acquire, open and append by the protocols alone, and stop there: a producer that died at this moment.

    An un-ended run of this name is resumed. The lease is never renewed and runs out in ``lease_seconds``.
    """
    writer = Writer(backend.store, key, run=run)
    found = await describe(backend.store, key)
    lease = await backend.leases.acquire(
        key,
        owner=writer.owner,
        run=run,
        ttl_seconds=lease_seconds,
        above=0 if found is None else found.generation,
    )
    await writer.open(lease.generation, resume=found is not None and (found.state, found.run) == ("open", run))
    if chunks:
        await writer.append(*chunks)
    return lease, writer


async def leave_released(backend: Backend, key: str, chunks: Sequence[bytes] = (), *, run: str = "r1") -> Writer:
    """As ``leave_unfinished``, with the lease given back: another producer can resume at once."""
    lease, writer = await leave_unfinished(backend, key, chunks, run=run, lease_seconds=60.0)
    await backend.leases.release(lease)
    return writer


class PageLog(FaultyStore):
    """A store that notes what was asked of ``read`` and what it gave."""

    def __init__(self, inner: StreamStore) -> None:
        super().__init__(inner, Faults())
        self.pages: list[tuple[Read, Page]] = []

    async def read(self, reads: Sequence[Read]) -> Sequence[Page | StreamHubError]:
        """See ``StreamStore.read``."""
        answers = await super().read(reads)
        self.pages += [(read, answer) for read, answer in zip(reads, answers, strict=True) if isinstance(answer, Page)]
        return answers


def live_tasks() -> set[asyncio.Task[Any]]:
    """Return the tasks of this loop that are not done."""
    return {task for task in asyncio.all_tasks() if not task.done()}


class CancelAt(Generic[T]):
    """Run a coroutine in a task and cancel that task the n-th time it waits.

    With ``late`` the cancellation comes when what is awaited has happened and the task has not gone on yet: its
    result is lost on the way, as when a lock is granted to a task that is being cancelled.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], n: int, *, late: bool = False) -> None:
        self._coroutine = coroutine
        self._n = n
        self._late = late
        self._waits = 0
        self.struck: bool = False

    def __await__(self) -> Generator[Any, Any, T]:
        step = self._coroutine.__await__()
        try:
            waiting = next(step)
            while True:
                self._count(waiting)
                try:
                    value = yield waiting
                except BaseException as exc:  # noqa: BLE001 - passed on to the coroutine, which answers it
                    waiting = step.throw(exc)
                else:
                    waiting = step.send(value)
        except StopIteration as stop:
            return stop.value

    def _count(self, waiting: object) -> None:
        self._waits += 1
        if self._waits == self._n:
            self._strike(waiting)

    def _strike(self, waiting: object) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("run in a task")
        if self._late and isinstance(waiting, asyncio.Future):
            future = cast("asyncio.Future[object]", waiting)
            future.add_done_callback(lambda _: self._cancel(task))
        else:
            self._cancel(task)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        self.struck = True
        task.cancel()


async def cancel_everywhere(
    scenario: Callable[[], Coroutine[Any, Any, object]],
    check: Callable[[], Awaitable[object]],
    *,
    given: Callable[[], Awaitable[object]] | None = None,
    late: bool = False,
    limit: int = 400,
) -> int:
    """Run ``scenario`` again and again, cancelled at its first await, its second, and so on to its last.

    Before each, ``given`` sets the scene, and after it ``check`` looks at what is left. A cancellation that was
    delivered must end the task as cancelled.
    Return how many awaits there were.
    """
    for n in range(1, limit + 1):
        if given is not None:
            await given()
        struck = await _run_and_strike(CancelAt(scenario(), n, late=late), n)
        await check()
        if not struck:
            return n - 1
    raise AssertionError(f"the scenario still waits after {limit} awaits")


async def _run_and_strike(strike: CancelAt[object], n: int) -> bool:
    # Returns before anything is checked: the task's traceback holds on to what the scenario held.
    async def run() -> object:
        return await strike

    task = asyncio.create_task(run())
    done, _ = await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
    assert done, f"cancelled at await {n}, it hangs"
    if strike.struck:
        assert task.cancelled(), f"cancelled at await {n}, it swallowed the cancellation: {task}"
    else:
        task.result()
    return strike.struck
