"""The race that fencing must win: producers that take streams over from each other all the time, and rivals that share
a generation. Every append that was acknowledged is remembered, and looked for afterwards.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from dataclasses import dataclass, field

from streamhub.conformance.writer import Writer, read_all
from streamhub.errors import (
    OffsetConflictError,
    OpenConflictError,
    StaleGenerationError,
    StreamHubError,
)
from streamhub.protocols import StreamStore
from streamhub.types import Append, Appended, Retention, Span

RUN = "run-1"


@dataclass
class Found:
    """What was done, and what is wrong about it."""

    counts: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])


class _Stream:
    """One stream: what was acknowledged where, and what was refused."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.acknowledged: dict[int, list[tuple[int, bytes]]] = {}
        self.refused: set[bytes] = set()

    def note(self, item: Append, answer: Appended | StreamHubError) -> str:
        if isinstance(answer, Appended):
            for index, chunk in enumerate(item.chunks, item.first):
                self.acknowledged.setdefault(index, []).append((item.generation, chunk))
            return "acknowledged"
        self.refused.update(item.chunks)
        return type(answer).__name__


class Race:
    """Producers over streams, each with connections of its own."""

    def __init__(self, keys: list[str], found: Found, *, seed: int) -> None:
        self._streams = [_Stream(key) for key in keys]
        self._found = found
        self._seed = seed
        self._over = False

    async def run(self, stores: list[StreamStore], *, rivals: bool, seconds: float) -> None:
        """Race for some time, each store being one producer; with ``rivals``, two of them are one generation."""
        writers = [
            Writer(stores[0], stream.key, run=RUN, retention=Retention(max_bytes=2**40)) for stream in self._streams
        ]
        for writer in writers:
            await writer.open(attended=False)
        async with asyncio.TaskGroup() as group:
            for number, store in enumerate(stores):
                group.create_task(
                    self._produce(store, number // 2 if rivals else number, random.Random(self._seed + number))
                )
            await asyncio.sleep(seconds)
            self._over = True

    async def _produce(self, store: StreamStore, name: int, dice: random.Random) -> None:
        while not self._over:
            stream = dice.choice(self._streams)
            try:
                opened = await self._take_over(store, stream, name)
            except (StaleGenerationError, OpenConflictError):
                self._found.counts["lost the opening"] += 1
                continue
            self._found.counts["takeovers"] += 1
            await self._append(store, stream, *opened, dice)

    async def _take_over(self, store: StreamStore, stream: _Stream, name: int) -> tuple[int, int]:
        (info,) = await store.describe([stream.key])
        assert info is not None
        # Rivals have one name: the second of them finds that it has opened already.
        opened = await store.open(
            stream.key, info.generation + 1, owner=f"{name}", run=RUN, expect=info.seen, resume=True,
            attended=False, retention=info.retention,
        )  # fmt: skip
        return opened.generation, opened.tail

    async def _append(
        self, store: StreamStore, stream: _Stream, generation: int, tail: int, dice: random.Random
    ) -> None:
        for _ in range(dice.randrange(1, 12)):
            chunks = tuple(secrets.token_bytes(8) for _ in range(dice.randrange(1, 4)))
            item = Append(stream.key, generation, tail + 1, chunks, secrets.token_bytes(12))
            (answer,) = await store.append([item])
            self._found.counts[stream.note(item, answer)] += 1
            if isinstance(answer, (Appended, OffsetConflictError)):
                tail = answer.tail
            else:
                return

    async def judge(self, store: StreamStore) -> None:
        """Compare what is stored with what was said."""
        for stream in self._streams:
            (info,) = await store.describe([stream.key])
            assert info is not None
            stored = await read_all(store, stream.key)
            wrong = self._found.wrong
            if len(stored) != info.tail:
                wrong.append(f"{len(stored)} chunks are stored, the tail is {info.tail}")
            if any(chunk in stream.refused for chunk in stored):
                wrong.append("a refused append is stored")
            if list(info.spans) != sorted(info.spans) or len({span.generation for span in info.spans}) != len(
                info.spans
            ):
                wrong.append("generations are out of order")
            for index, said in stream.acknowledged.items():
                if len(said) > 1:
                    wrong.append(f"index {index} was acknowledged {len(said)} times")
                for generation, chunk in said:
                    if index > len(stored) or stored[index - 1] != chunk:
                        wrong.append(f"acknowledged at {index}, and not there")
                    elif _writer_of(info.spans, index) != generation:
                        wrong.append(f"index {index} is another generation's")


def _writer_of(spans: tuple[Span, ...], index: int) -> int:
    return max(span.generation for span in spans if span.first <= index)
