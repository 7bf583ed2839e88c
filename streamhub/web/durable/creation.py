"""Creating a stream: the run is opened under a lease, for its generation, and the lease is given back.

With a first content, or an end, the run is opened as one that is being created, which nobody sees, and the append that
stores the content shows it. Whoever dies between the two leaves a run that the next creation replaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Literal

from streamhub.errors import (
    BackendUnavailableError,
    DataLostError,
    LeaseHeldError,
    OffsetConflictError,
    OpenConflictError,
    ResumeRefusedError,
    StaleGenerationError,
    StreamEndedError,
    StreamHubError,
    StreamUnfinishedError,
)
from streamhub.hub import Hub
from streamhub.inputs import MAX_SECONDS
from streamhub.outage import ride
from streamhub.types import COMPLETED, Append, Lease, Offset, Retention, StreamInfo
from streamhub.web.durable.stored import (
    Configuration,
    configuration_of,
    created_metadata,
    is_creating,
    moment_of,
    tail_of,
    visible_configuration,
)

LEASE_SECONDS = 5.0
"""How long a creation whose process died is in the way of the next one, unless the backend's shortest is longer."""

CONTENTION_SECONDS = 30.0
"""For how long a creation, or a write, is tried again because other processes were faster."""

TTL_SLACK = 1.02
"""By how much a stream outlives its time-to-live: reads renew it only so often."""

OVERTAKEN = (
    OpenConflictError,
    StaleGenerationError,
    OffsetConflictError,
    StreamEndedError,
    ResumeRefusedError,
    StreamUnfinishedError,
    DataLostError,
)


@asynccontextmanager
async def leased(hub: Hub, key: str, found: StreamInfo | None, *, run: str, respected: bool) -> AsyncGenerator[Lease]:
    """Hold a lease with a generation above the one found; ``respected``: that of the one found may be in the way."""
    leases, known = hub.leases, 0 if found is None else found.generation
    owner = secrets.token_urlsafe(12)
    lease = await ride(
        lambda: leases.acquire(
            key,
            owner=owner,
            run=run,
            ttl_seconds=max(LEASE_SECONDS, leases.min_ttl_seconds),
            above=known,
            void=0 if respected else known,
        ),
        hub.settings.outage_seconds,
    )
    try:
        yield lease
    finally:
        with contextlib.suppress(BackendUnavailableError):
            await leases.release(lease)


async def begin_span(hub: Hub, info: StreamInfo) -> None:
    """Let the stream go on as a higher generation, whose offsets differ from those that were given out before.

    Harmless if another process was faster, or the stream has gone.
    """
    with contextlib.suppress(LeaseHeldError, *OVERTAKEN):
        async with leased(hub, info.key, info, run=info.run, respected=False) as lease:
            await _go_on(hub, info, lease)


async def _go_on(hub: Hub, info: StreamInfo, lease: Lease) -> StreamInfo:
    """Open the run that was found as a higher generation: lower ones are fenced off, and what is stored is told."""
    return await ride(
        lambda: hub.store.open(
            lease.key,
            lease.generation,
            owner=lease.owner,
            run=info.run,
            expect=info.seen,
            resume=True,
            attended=False,
            retention=info.retention,
        ),
        hub.settings.outage_seconds,
    )


@dataclass(frozen=True, slots=True)
class Creation:
    """A stream to be, with its first content."""

    key: str
    configuration: Configuration
    chunks: tuple[bytes, ...]
    closed: bool


@dataclass(frozen=True, slots=True)
class Created:
    """What a creation came to.

    Attributes:
        outcome: what became of it.
        tail: of the stream, whoever created it.
        difference: the header in which the stream that exists differs.
    """

    outcome: Literal["created", "exists", "differs"]
    tail: Offset
    difference: str | None = None


class Creator:
    """Creates streams."""

    def __init__(self, hub: Hub, *, default_type: str, retention: Retention) -> None:
        self._hub = hub
        self._default_type = default_type
        self._retention = retention

    async def create(self, creation: Creation) -> Created:
        """Create a stream, or find it there.

        Raises:
            LeaseHeldError: another creation, or a producer, was in the way for too long.
            BackendUnavailableError: nobody knows what became of it; it may be repeated.
        """
        deadline = math.inf
        while True:
            found = await self._describe(creation.key)
            if found is not None and self._is_there(found):
                return self._compared(creation, found)
            try:
                if found is not None and found.state == "open" and _is_begun(found):
                    return Created("created", await self._take_over(creation, found))
                return Created("created", await self._create(creation, found))
            except (LeaseHeldError, *OVERTAKEN):
                now = time.monotonic()
                if now >= deadline:
                    raise
                deadline = min(deadline, now + CONTENTION_SECONDS)
                await asyncio.sleep(random.uniform(0.005, 0.05))  # another one creates it

    async def _describe(self, key: str) -> StreamInfo | None:
        return (await ride(lambda: self._hub.store.describe([key]), self._hub.settings.outage_seconds))[0]

    def _is_there(self, found: StreamInfo) -> bool:
        visible = visible_configuration(found.metadata, attended=found.attended, default_type=self._default_type)
        return found.state in ("open", "ended") and visible is not None

    def _configuration(self, found: StreamInfo) -> Configuration:
        return configuration_of(found.metadata, default_type=self._default_type)

    def _compared(self, creation: Creation, found: StreamInfo) -> Created:
        difference = creation.configuration.difference(self._configuration(found))
        if difference is None and creation.closed != (found.end is not None):
            difference = "Stream-Closed"
        return Created("exists" if difference is None else "differs", tail_of(found), difference)

    async def _create(self, creation: Creation, found: StreamInfo | None) -> Offset:
        """Begin a run in the place of what was found, which nobody may be creating any more."""
        run = secrets.token_urlsafe(12)
        async with leased(self._hub, creation.key, found, run=run, respected=False) as lease:
            opened = await self._open(creation, found, lease)
            return await self._fill(creation, opened)

    async def _take_over(self, creation: Creation, found: StreamInfo) -> Offset:
        """Fence off whoever began to create the stream, and begin anew; unless he finished before the fence stood."""
        async with leased(self._hub, creation.key, found, run=found.run, respected=True) as lease:
            fenced = await _go_on(self._hub, found, lease)
            if not _is_begun(fenced):
                raise OpenConflictError(creation.key, found=fenced.seen)
            return await self._create(creation, fenced)

    async def _open(self, creation: Creation, found: StreamInfo | None, lease: Lease) -> StreamInfo:
        creating = bool(creation.chunks) or creation.closed
        return await ride(
            lambda: self._hub.store.open(
                lease.key,
                lease.generation,
                owner=lease.owner,
                run=lease.run,
                expect=None if found is None else found.seen,
                resume=False,
                attended=False,
                metadata=created_metadata(creation.configuration, creating=creating),
                retention=self._retention_of(creation.configuration),
            ),
            self._hub.settings.outage_seconds,
        )

    async def _fill(self, creation: Creation, opened: StreamInfo) -> Offset:
        if not creation.chunks and not creation.closed:
            return tail_of(opened)
        append = Append(
            creation.key,
            opened.generation,
            opened.tail + 1,
            creation.chunks,
            os.urandom(12),
            created_metadata(creation.configuration, creating=False),
            COMPLETED if creation.closed else None,
        )
        await ride(lambda: self._append(append), self._hub.settings.outage_seconds)
        return Offset(opened.generation, append.last) if creation.chunks else tail_of(opened)

    async def _append(self, append: Append) -> None:
        answer = (await self._hub.store.append([append]))[0]
        if isinstance(answer, StreamHubError):
            raise answer

    def _retention_of(self, configuration: Configuration) -> Retention:
        kept = self._retention
        if configuration.ttl is not None:
            seconds = min(max(configuration.ttl, 1) * TTL_SLACK, MAX_SECONDS)
            return replace(kept, unfinished_seconds=seconds, ended_seconds=seconds)
        if configuration.expires is not None:  # readers and writers look at the moment itself; the store tidies up
            seconds = max(moment_of(configuration.expires) - time.time(), 0) + 1
            return replace(
                kept,
                unfinished_seconds=min(kept.unfinished_seconds, seconds),
                ended_seconds=min(kept.ended_seconds, seconds),
            )
        return kept


def _is_begun(found: StreamInfo) -> bool:
    """Say whether a creation was begun, and is not finished."""
    return is_creating(found.metadata, attended=found.attended)
