"""The writing side: what a produce body holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from streamhub.cursor import check_kept, generation_at
from streamhub.errors import (
    DataLostError,
    HubContextError,
    LeaseLostError,
    LimitExceededError,
    StreamHubError,
    StreamReplacedError,
)
from streamhub.inputs import check_metadata, encode_chunk, encode_json
from streamhub.interrupt import Interrupter
from streamhub.lane import Lane
from streamhub.outage import ride
from streamhub.reader import PageReader
from streamhub.settings import HubSettings
from streamhub.types import Chunk, Metadata, Offset, StreamInfo

YIELD_EVERY = 256
"""A body that sends without ever waiting lets the event loop run after this many chunks."""


class Producer:
    """Owns one run; made by ``hub.produce`` and ``hub.start``. One task uses it.

    Attributes:
        key: the stream.
        run: the run's name.
        generation: this producer's ownership; its chunks carry it.
        resumed: True if it continues a run that an earlier producer left unfinished.
    """

    def __init__(
        self,
        info: StreamInfo,
        *,
        resumed: bool,
        lane: Lane,
        stop: Interrupter,
        reader: PageReader,
        settings: HubSettings,
    ) -> None:
        self.key: str = info.key
        self.run: str = info.run
        self.generation: int = info.generation
        self.resumed = resumed
        self._info = info
        self._loop = asyncio.get_running_loop()
        self._lane = lane
        self._stop = stop
        self._reader = reader
        self._max_chunk_bytes = settings.max_chunk_bytes
        self._outage_seconds = settings.outage_seconds
        self._size_bytes = info.size_bytes

    # --- the body's interface

    @property
    def offset(self) -> Offset:
        """Position of the run's last chunk, which a predecessor may have sent; index 0 before the first."""
        sent = self._lane.sent
        return Offset(generation_at(self._info.spans, sent), sent)

    @property
    def metadata(self) -> Metadata:
        """The run's metadata as it was opened."""
        return self._info.metadata

    async def send(self, data: str | bytes) -> Offset:
        """Queue a chunk and return its offset: a reservation, until ``flush`` returns.

        Text becomes UTF-8. Calls keep their order. Waits while ``max_buffer_bytes`` are not durable yet; cancelled
        there, the chunk stays queued.

        Raises:
            TypeError, InvalidChunkError, ChunkTooLargeError: the chunk cannot be stored; the stream is unharmed.
            HubContextError: called from another event loop.
            LimitExceededError: the run is full; the chunk is not queued, the run goes on.
            ProducerCancelledError: the run was cancelled.
            LeaseLostError, StaleGenerationError, StreamDeletedError, DataLostError, BackendUnavailableError: an
                earlier append failed for good; nothing more is written.
        """
        lane = self._lane
        self._check_loop()
        if self._stop.cause is not None or lane.error is not None or lane.closed:
            raise self._stopped()
        chunk = encode_chunk(data, self._max_chunk_bytes)
        self._check_caps(len(chunk))
        index = lane.put(chunk)
        if lane.full:
            await lane.room()
        elif (queued := lane.queued) and queued % YIELD_EVERY == 0:
            await asyncio.sleep(0)
        return Offset(self.generation, index)

    async def send_json(self, value: Any) -> Offset:
        """Send an object as compact JSON; see ``send``."""
        return await self.send(encode_json(value))

    async def flush(self) -> Offset:
        """Wait until all that was sent is durable, as the backend defines it; return the last offset."""
        if self._stop.cause is not None or self._lane.error is not None or self._lane.closed:
            raise self._stopped()
        self._check_loop()
        offset = self.offset
        await self._lane.flush()
        return offset

    def set_metadata(self, metadata: Metadata) -> None:
        """Replace the run's metadata, atomically with the next chunk or the end."""
        checked = check_metadata(metadata)
        if checked is not None:
            self._lane.put_metadata(checked)

    async def history(self) -> AsyncIterator[Chunk]:
        """Iterate the chunks the run held when it was opened: what dead predecessors left.

        Raises ``OffsetTrimmedError`` if they are trimmed meanwhile, ``DataLostError`` if the store went back,
        ``BackendUnavailableError`` after an outage.
        """
        index = self._info.first - 1
        while index < self._info.tail:
            loaded = await ride(partial(self._reader.read, self.key, index), self._outage_seconds)
            if loaded.page.spans[0].generation != self._info.spans[0].generation:
                raise StreamReplacedError(self.key, run=loaded.page.run)
            check_kept(self.key, index, first=loaded.page.first)
            if not loaded.chunks:
                raise DataLostError(self.key, f"its tail went back to {loaded.page.tail} after it was opened")
            for chunk in loaded.chunks[: self._info.tail - index]:
                yield chunk
            index = loaded.last

    def _check_caps(self, size: int) -> None:
        self._size_bytes += size
        retention = self._info.retention
        if retention.overflow == "trim":
            return
        if self._size_bytes > retention.max_bytes:
            self._size_bytes -= size
            raise LimitExceededError(self.key, limit="max_bytes", value=retention.max_bytes)
        if retention.max_chunks is not None and self._lane.sent - self._info.first + 1 >= retention.max_chunks:
            self._size_bytes -= size
            raise LimitExceededError(self.key, limit="max_chunks", value=retention.max_chunks)

    def _stopped(self) -> StreamHubError:
        """Why nothing can be sent any more; after the block its lease is released."""
        why = "was given back when its block was left: send inside"
        left = LeaseLostError(self.key, generation=self.generation, why=why)
        return self._stop.cause or self._lane.error or left

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise HubContextError("this producer belongs to another event loop: send from the loop of its hub")
