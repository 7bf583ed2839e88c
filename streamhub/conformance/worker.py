"""The second process: ``python -m streamhub.conformance.worker``, driven through its standard input and output.

It opens the backend that ``STREAMHUB_CONFORMANCE_URL`` names (leases and cancels may live elsewhere) and does what
``Peer.call`` asks: a method of a part of the backend, or one of the commands below, which are the public methods of
``Worker``.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from streamhub import Hub
from streamhub.conformance.mixed import open_parts
from streamhub.conformance.process import (
    CANCELS_URL_VARIABLE,
    LEASES_URL_VARIABLE,
    MAX_LINE_BYTES,
    SKEW_VARIABLE,
    URL_VARIABLE,
    pack,
    unpack,
)
from streamhub.errors import StreamHubError
from streamhub.protocols import Backend
from streamhub.settings import HubSettings
from streamhub.types import Append, Appended, Chunk, End, Offset

_PARTS = frozenset({"", "store", "leases", "cancels", "hub"})


class _Production:
    """A produce block that is entered here and driven from the other process."""

    def __init__(self, hub: Hub, key: str, options: dict[str, Any]) -> None:
        self._opened: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
        self._orders: asyncio.Queue[tuple[str, Any, asyncio.Future[Any]] | None] = asyncio.Queue(1000)
        self.task = asyncio.create_task(self._run(hub, key, options))

    async def opened(self) -> tuple[str, int]:
        await asyncio.wait({self.task, self._opened}, return_when=asyncio.FIRST_COMPLETED)
        if not self._opened.done():
            await self.task
        return await self._opened

    async def order(self, name: str, argument: Any) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await self._orders.put((name, argument, answer))
        await asyncio.wait({self.task, answer}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            await self.task  # raises why the block was left
            raise RuntimeError("the produce block was left")
        return await answer

    async def finish(self) -> None:
        await self._orders.put(None)
        await self.task

    async def _run(self, hub: Hub, key: str, options: dict[str, Any]) -> None:
        async with hub.produce(key, **options) as producer:
            self._opened.set_result((producer.run, producer.generation))
            while (order := await self._orders.get()) is not None:
                await self._obey(producer, *order)

    async def _obey(self, producer: Any, name: str, argument: Any, answer: asyncio.Future[Any]) -> None:
        try:
            if name == "send":
                result: Any = [await producer.send(chunk) for chunk in argument]
            elif name == "flush":
                result = await producer.flush()
            else:
                result = [chunk.data async for chunk in producer.history()]
        except Exception as error:
            answer.set_exception(error)
            answer.exception()  # the caller may be gone already
            raise
        answer.set_result(result)


class _Reading:
    """A subscription that is read here as fast as it comes."""

    def __init__(self, hub: Hub, key: str, options: dict[str, Any]) -> None:
        self.chunks: list[tuple[Offset, bytes]] = []
        self.end: End | None = None
        self._grown = asyncio.Condition()
        self.task = asyncio.create_task(self._run(hub, key, options))

    async def received(self, count: int) -> list[tuple[Offset, bytes]]:
        async with self._grown:
            await self._grown.wait_for(lambda: len(self.chunks) >= count or self.task.done())
        if len(self.chunks) < count:
            await self.task
        return self.chunks[:count]

    async def _run(self, hub: Hub, key: str, options: dict[str, Any]) -> None:
        try:
            async with hub.subscribe(key, **options) as subscription:
                async for chunk in subscription:
                    await self._keep(chunk)
                self.end = subscription.end
        finally:
            # After this turn the task is done, and whoever waits sees it.
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self._wake()))

    async def _keep(self, chunk: Chunk) -> None:
        self.chunks.append((chunk.offset, chunk.data))
        await self._wake()

    async def _wake(self) -> None:
        async with self._grown:
            self._grown.notify_all()


class Worker:
    """The commands of the second process."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._hub: Hub | None = None
        self._productions: dict[str, _Production] = {}
        self._readings: dict[str, _Reading] = {}

    async def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one call of the other process."""
        part, _, method = name.rpartition(".")
        if method.startswith("_") or part not in _PARTS:
            raise ValueError(f"no command {name!r}")
        target: Any = self
        if part:
            target = self.hub() if part == "hub" else getattr(self._backend, part)
        result = getattr(target, method)(*args, **kwargs)
        if isinstance(result, AsyncIterator):
            return [item async for item in result]  # pyright: ignore[reportUnknownVariableType]
        return await result

    async def ready(self) -> int:
        """Say that the process is connected; return its number."""
        return os.getpid()

    async def wall_clock(self) -> float:
        """Return the process's wall clock."""
        return time.time()

    async def append_each(self, items: Sequence[Append]) -> list[Appended | StreamHubError]:
        """Append items one after the other; stop at the first answer that is an error. Return the answers."""
        answers: list[Appended | StreamHubError] = []
        for item in items:
            answers += await self._backend.store.append([item])
            if isinstance(answers[-1], StreamHubError):
                break
        return answers

    async def open_hub(self, **settings: Any) -> None:
        """Open the hub with settings of ``HubSettings``; without this call it opens with short times."""
        assert self._hub is None, "the hub is open already"
        self._hub = self._make_hub(settings)
        await self._hub.__aenter__()

    async def produce(self, key: str, **options: Any) -> tuple[str, int]:
        """Enter ``hub.produce(key, **options)``; return its run and generation."""
        hub = await self._opened_hub()
        self._productions[key] = production = _Production(hub, key, options)
        return await production.opened()

    async def send(self, key: str, *chunks: str | bytes) -> list[Offset]:
        """Send chunks from the produce block of ``key``."""
        return await self._productions[key].order("send", chunks)

    async def flush(self, key: str) -> Offset:
        """Flush in the produce block of ``key``."""
        return await self._productions[key].order("flush", None)

    async def history(self, key: str) -> list[bytes]:
        """Read the history in the produce block of ``key``."""
        return await self._productions[key].order("history", None)

    async def finish(self, key: str) -> None:
        """Leave the produce block of ``key`` in the ordinary way."""
        await self._productions[key].finish()

    async def outcome(self, key: str) -> None:
        """Wait until the produce block of ``key`` is left; raise what it raised."""
        await self._productions[key].task

    async def subscribe(self, name: str, key: str, **options: Any) -> None:
        """Begin to read ``hub.subscribe(key, **options)``, as ``name``."""
        self._readings[name] = _Reading(await self._opened_hub(), key, options)

    async def received(self, name: str, count: int) -> list[tuple[Offset, bytes]]:
        """Wait until the subscription ``name`` has read ``count`` chunks; raise what ended it before."""
        return await self._readings[name].received(count)

    async def read_all(self, name: str) -> tuple[list[tuple[Offset, bytes]], End | None]:
        """Wait until the subscription ``name`` finishes; return its chunks and end, or raise what it raised."""
        reading = self._readings[name]
        await reading.task
        return reading.chunks, reading.end

    async def close_hub(self) -> None:
        """Close the hub."""
        if self._hub is not None:
            await self._hub.aclose()
            self._hub = None

    def hub(self) -> Hub:
        """The hub that is open."""
        assert self._hub is not None, "call open_hub first"
        return self._hub

    async def _opened_hub(self) -> Hub:
        if self._hub is None:
            await self.open_hub()
        return self.hub()

    def _make_hub(self, settings: dict[str, Any]) -> Hub:
        backend = self._backend
        settings.setdefault("lease_seconds", max(0.6, backend.leases.min_ttl_seconds))
        settings.setdefault("poll_seconds", 0.5)
        settings.setdefault("drain_seconds", 2.0)
        return Hub(
            store=backend.store, leases=backend.leases, cancels=backend.cancels, settings=HubSettings(**settings)
        )


def _answer(number: int, value: Any, error: BaseException | None) -> bytes:
    try:
        return pack((number, value, error))
    except (pickle.PicklingError, TypeError, AttributeError):
        return pack((number, None, RuntimeError(f"cannot be sent: {value!r} {error!r}")))


async def _serve(worker: Worker, requests: asyncio.StreamReader) -> None:
    async def answer(line: bytes) -> None:
        number, name, args, kwargs = unpack(line)
        value: Any = None
        failed: BaseException | None = None
        try:
            value = await worker.call(name, args, kwargs)
        except Exception as error:  # noqa: BLE001 - raised at the other end
            failed = error
        sys.stdout.buffer.write(_answer(number, value, failed))
        sys.stdout.buffer.flush()

    running: set[asyncio.Task[None]] = set()
    while line := await requests.readline():
        task = asyncio.create_task(answer(line))
        running.add(task)
        task.add_done_callback(running.discard)


def _skew_clock(seconds: float) -> None:
    wall, wall_ns = time.time, time.time_ns
    step_ns = int(seconds * 1e9)
    time.time = lambda: wall() + seconds
    time.time_ns = lambda: wall_ns() + step_ns


async def _main() -> None:
    backend = open_parts(
        os.environ[URL_VARIABLE], os.environ.get(LEASES_URL_VARIABLE), os.environ.get(CANCELS_URL_VARIABLE)
    )
    await backend.connect()
    requests = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    worker = Worker(backend)
    try:
        await _serve(worker, requests)
    finally:
        await worker.close_hub()
        await backend.aclose()


def main() -> None:
    """Serve until the standard input ends."""
    skew_seconds = float(os.environ.get(SKEW_VARIABLE, "0"))
    if skew_seconds:
        _skew_clock(skew_seconds)
    asyncio.run(_main())


if __name__ == "__main__":
    main()
