"""The two ways to run a producer: inside the caller's block, and in a task that the hub owns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Awaitable, Callable
from types import TracebackType
from typing import TypeAlias

from streamhub.errors import DrainingError, ProducerCancelledError, StreamHubError
from streamhub.producer import Producer
from streamhub.run import Run
from streamhub.starter import Starter, StartRequest
from streamhub.tasks import TaskOwner, consume
from streamhub.types import Joined, Started

Source: TypeAlias = Callable[[Producer], AsyncIterable[str | bytes] | Awaitable[None]]
"""What ``hub.start`` runs: it yields the chunks, or sends them by itself."""

logger: logging.Logger = logging.getLogger("streamhub")


class ProduceBlock:
    """``async with hub.produce(…) as producer``: opens the run, guards the body, brings the run to its end.

    What leaves the block: the body's exception; or, in place of the cancellation that interrupted it,
    ``ProducerCancelledError``, ``LeaseLostError``, ``DrainingError`` or what made an append fail; or what kept the
    end from being stored, which is a note of the body's exception if there is one. If the task is cancelled while the
    block closes, closing goes on in the hub's own task.
    """

    def __init__(self, tasks: TaskOwner, open_run: Callable[[], Awaitable[Run]]) -> None:
        self._tasks = tasks
        self._open_run = open_run
        self._run: Run | None = None

    async def __aenter__(self) -> Producer:
        if self._run is not None:
            raise RuntimeError("a produce block is entered once: call hub.produce again")
        run = self._run = await self._open_run()
        try:
            run.enter()
        except StreamHubError as cause:
            await self._finish(run, cause)
            raise
        return run.producer

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        run = self._run
        if run is None:
            return
        leaving = run.leave(exc)
        await self._finish(run, leaving)
        if leaving is not None and leaving is not exc:
            raise leaving from exc

    async def _finish(self, run: Run, leaving: BaseException | None) -> None:
        try:
            await self._tasks.outcome(self._tasks.spawn(run.finish(), "finish"))
        except StreamHubError as exc:
            if leaving is None:
                raise
            if exc is not leaving:
                leaving.add_note(f"the end of stream {run.producer.key!r} was not stored: {exc}")
                logger.warning("the end of stream %r was not stored: %s", run.producer.key, exc)


class HubTask:
    """One ``hub.start``: opens the run, then feeds it from its source, independently of who asked."""

    def __init__(self, starter: Starter, tasks: TaskOwner, request: StartRequest, source: Source) -> None:
        self._starter = starter
        self._tasks = tasks
        self._request = request
        self._source = source

    async def start(self) -> Started | Joined:
        """Return once the run is open, or joined; the source then runs in a task of the hub's."""
        opened: asyncio.Future[Started | Joined] = asyncio.get_running_loop().create_future()
        opened.add_done_callback(consume)
        self._tasks.spawn(self._run(opened), f"run of {self._request.key!r}")
        return await asyncio.shield(opened)

    async def _run(self, opened: asyncio.Future[Started | Joined]) -> None:
        try:
            run = await self._starter.start_or_join(self._request)
            if isinstance(run, Joined):
                opened.set_result(run)
            else:
                await self._produce(run, opened)
        except BaseException as exc:
            if not opened.done():
                opened.set_exception(exc if isinstance(exc, Exception) else DrainingError("the hub is closing"))
            elif isinstance(exc, (ProducerCancelledError, DrainingError)):
                logger.info("a run of %r stopped: %s", self._request.key, exc)
            elif isinstance(exc, Exception):
                logger.exception("a run of %r failed", self._request.key)
            if not isinstance(exc, Exception):
                raise

    async def _produce(self, run: Run, opened: asyncio.Future[Started | Joined]) -> None:
        async def open_run() -> Run:
            return run

        async with ProduceBlock(self._tasks, open_run) as producer:
            opened.set_result(Started(producer.key, producer.run, producer.generation))
            made = self._source(producer)
            if isinstance(made, Awaitable):
                await made
            elif isinstance(made, AsyncIterable):  # pyright: ignore[reportUnnecessaryIsInstance] - users err
                await _pump(made, producer)
            else:
                raise TypeError(f"the source must return an async iterable or an awaitable, not {type(made).__name__}")


async def _pump(source: AsyncIterable[str | bytes], producer: Producer) -> None:
    """Send what the source yields; however that ends, the source is closed."""
    try:
        async for data in source:
            await producer.send(data)
    finally:
        aclose = getattr(source, "aclose", None)  # generators have it, and the streams of most clients
        if aclose is not None:
            await aclose()
