"""The demo's processes: ``python -m streamhub.cli.demo.roles ROLE KEY …``, with the backend in STREAMHUB_URL.

Each tells what it does in lines of JSON on standard output. They hold what an application would hold: this is how
one writes a producer that continues a dead one's text, and a subscriber that remembers its cursor.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

from streamhub import Hub
from streamhub.cli.demo import text
from streamhub.errors import ProducerCancelledError
from streamhub.types import Chunk

# For the test that the demo's checks work: what a subscriber does wrong at chunk 40.
FAULT = "STREAMHUB_DEMO_FAULT"
FAULT_AT = 40


def _tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def produce(key: str, run: str, pace: str, hold_after: str) -> None:
    """Stream the text, one word a chunk; first ask what a dead predecessor has left of it.

    Args:
        key: the stream.
        run: the run to begin, or to continue.
        pace: seconds between words.
        hold_after: the word after which to wait for ever, or 0.
    """
    async with (
        Hub.from_env() as hub,
        hub.produce(key, run=run, unfinished="resume", wait=20) as producer,
    ):
        said = "".join([chunk.text async for chunk in producer.history()])
        done = len(text.words(said))
        _tell(done=done, generation=producer.generation)
        for number, word in enumerate(text.words(text.load())[done:], start=done + 1):
            await producer.send(word)
            await asyncio.sleep(float(pace))
            if number == int(hold_after):
                await asyncio.Event().wait()


async def count(key: str, run: str, pace: str) -> None:
    """Count for ever, until cancelled."""
    try:
        async with Hub.from_env() as hub, hub.produce(key, run=run) as producer:
            for number in itertools.count(1):
                await producer.send(f"{number} ")
                if number == 1:
                    _tell(done=0, generation=producer.generation)
                await asyncio.sleep(float(pace))
    except ProducerCancelledError as exc:
        _tell(cancelled=exc.reason, by=exc.requested_by)


async def subscribe(key: str, run: str, after: str) -> None:
    """Read a run, and report each chunk with its offset.

    Args:
        key: the stream.
        run: the run to read.
        after: the cursor, or ``start``.
    """
    async with Hub.from_env() as hub, hub.subscribe(key, run=run, after=after, wait=20) as subscription:
        async for batch in subscription.batches():
            for chunk in _faulty(batch):
                _tell(offset=str(chunk.offset), text=chunk.text)
        _tell(end=None if subscription.end is None else subscription.end.state)


def _faulty(batch: Iterable[Chunk]) -> Iterator[Chunk]:
    fault = os.environ.get(FAULT)
    for chunk in batch:
        if fault == "lose" and chunk.offset.index == FAULT_AT:
            continue
        if fault == "double" and chunk.offset.index == FAULT_AT:
            yield chunk
        if fault == "change" and chunk.offset.index == FAULT_AT:
            yield Chunk(chunk.offset, chunk.data.upper() + b"!")
            continue
        yield chunk


ROLES: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "produce": produce,
    "count": count,
    "subscribe": subscribe,
}

if __name__ == "__main__":
    # Bounded, in case nobody is left to kill this process.
    asyncio.run(asyncio.wait_for(ROLES[sys.argv[1]](*sys.argv[2:]), timeout=120))
