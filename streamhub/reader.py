"""Reading pages: requests of one moment ride in one call, and readers that coincide share a page, decoded once."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from streamhub.cursor import number_chunks
from streamhub.errors import HubClosedError, StreamHubError, defect
from streamhub.protocols import StreamStore
from streamhub.tasks import TaskOwner, consume
from streamhub.types import Chunk, Page, Read

PAGE_CHUNKS = 4096
PAGE_BYTES = 256 * 1024
READS_PER_CALL = 32
CALLS_AT_ONCE = 4

logger: logging.Logger = logging.getLogger("streamhub")


@dataclass(frozen=True, slots=True)
class LoadedPage:
    """A page with its chunks numbered. ``after`` is the index it was read after."""

    after: int
    page: Page
    chunks: list[Chunk]

    @property
    def last(self) -> int:
        """Index of its last chunk; ``after`` when it is empty."""
        return self.after + len(self.chunks)


class PageReader:
    """Serves the page reads of one hub, a bounded number of calls at a time."""

    def __init__(self, store: StreamStore, tasks: TaskOwner) -> None:
        self._store = store
        self._tasks = tasks
        self._waiting: dict[tuple[str, int], asyncio.Future[LoadedPage]] = {}
        self._calls = 0

    async def read(self, key: str, after: int) -> LoadedPage:
        """Read the page after ``after``.

        Readers of one page share a read only before it is sent: no answer is older than the call.
        """
        waiter = self._waiting.get((key, after))
        if waiter is None:
            waiter = asyncio.get_running_loop().create_future()
            waiter.add_done_callback(consume)
            self._waiting[key, after] = waiter
            if self._calls < CALLS_AT_ONCE:
                self._calls += 1
                self._tasks.spawn(self._serve(), "page reader")
        return await asyncio.shield(waiter)

    async def _serve(self) -> None:
        wanted: list[tuple[tuple[str, int], asyncio.Future[LoadedPage]]] = []
        try:
            while self._waiting:
                wanted = [(place, self._waiting.pop(place)) for place in list(self._waiting)[:READS_PER_CALL]]
                await self._call(wanted)
        except asyncio.CancelledError:
            for waiter in [waiter for _, waiter in wanted] + list(self._waiting.values()):
                if not waiter.done():
                    waiter.set_exception(HubClosedError("the hub is closed"))
            raise
        finally:
            self._calls -= 1

    async def _call(self, wanted: list[tuple[tuple[str, int], asyncio.Future[LoadedPage]]]) -> None:
        reads = [Read(key, after, PAGE_CHUNKS, PAGE_BYTES) for (key, after), _ in wanted]
        try:
            answers = await self._store.read(reads)
        except StreamHubError as exc:
            answers = [exc] * len(reads)
        except Exception as exc:  # a defect of the backend's must reach its readers, not leave them waiting
            logger.exception("read raised what no backend may raise")
            answers = [defect(exc)] * len(reads)
        for (place, waiter), answer in zip(wanted, answers, strict=True):
            if isinstance(answer, StreamHubError):
                waiter.set_exception(answer)
            else:
                waiter.set_result(_load(place[1], answer))


def _load(after: int, page: Page) -> LoadedPage:
    return LoadedPage(after, page, number_chunks(page.chunks, after + 1, page.spans))
