"""Work for hubs while something happens to their server, and what must come of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack

from streamhub import Chunk, Hub, StreamHubError
from streamhub.conformance.drive import data_of, indexes_of, reading, replay, soon, words

ROUNDS = int(os.environ.get("STREAMHUB_FAULT_ROUNDS", "1"))
"""How often a fault is repeated that strikes at a random moment."""

STEADY = {"lease_seconds": 600.0}
"""Settings of a hub whose leases outlive whatever happens to the server."""

PATIENCE = 30.0


def assert_whole(chunks: list[Chunk], source: list[bytes]) -> None:
    """Fail unless every chunk is there once, in order, at its own index."""
    assert data_of(chunks) == source
    assert indexes_of(chunks) == list(range(1, len(source) + 1))


async def whole_or_told(chunks: Awaitable[list[Chunk]], source: list[bytes]) -> StreamHubError | None:
    """Fail unless a subscriber got all, or a typed error; return the error."""
    try:
        assert_whole(await soon(chunks, PATIENCE), source)
    except StreamHubError as exc:
        return exc
    return None


async def work_under(
    disturb: Callable[[int], Awaitable[object]],
    *,
    producing: Hub,
    following: Iterable[Hub],
    keys: list[str],
    chunks: int = 120,
    every: int = 20,
) -> None:
    """Produce streams and follow each from every hub, disturbed every so many chunks, while more is on its way.

    All must arrive once and in order at every subscriber, end, and be what is stored.
    """
    hubs, source = list(following), words(chunks)
    async with AsyncExitStack() as readers:
        lives = [
            await readers.enter_async_context(reading(hub, key, wait=PATIENCE, run="r1"))
            for hub in hubs
            for key in keys
        ]
        async with AsyncExitStack() as producers:
            opened = [await producers.enter_async_context(producing.produce(key, run="r1")) for key in keys]
            disturbance: asyncio.Task[object] | None = None
            for number, chunk in enumerate(source, 1):
                for producer in opened:
                    await producer.send(chunk)
                if number % every == 0:
                    disturbance = asyncio.ensure_future(disturb(number))
                elif number % 4 == 0:
                    await soon(asyncio.gather(*(producer.flush() for producer in opened)), PATIENCE)
                    if disturbance is not None:
                        await soon(disturbance, PATIENCE)
            assert disturbance is not None
            await soon(disturbance, PATIENCE)
        for live in lives:
            assert_whole(await live.finished(PATIENCE), source)
    for key in keys:
        assert_whole(await replay(hubs[0], key), source)
