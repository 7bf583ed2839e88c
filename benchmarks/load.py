"""Open-loop load: chunks that carry the moment they were sent, at a steady rate on many streams."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from benchmarks.scale import Scale

CHUNK_BYTES = 20
CHUNK = b"a token of 20 bytes "
_STAMP_BYTES = 8

# How many chunks each flush held: for each stream in it, in the order of the flushes.
Flushes = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """``rate`` chunks a second on each of ``streams``, after a warm-up that does not count."""

    streams: int
    rate: float
    seconds: float
    warmup_seconds: float

    @property
    def chunks(self) -> int:
        """Of each stream, the warm-up's included."""
        return int(self.rate * (self.seconds + self.warmup_seconds))

    @property
    def warmup_chunks(self) -> int:
        return int(self.rate * self.warmup_seconds)

    @classmethod
    def of(cls, scale: Scale) -> Load:
        return cls(
            streams=scale.latency_streams,
            rate=scale.latency_rate,
            seconds=scale.latency_seconds,
            warmup_seconds=scale.warmup_seconds,
        )


def stamp(now_ns: int) -> bytes:
    """Write a chunk that carries a time of CLOCK_MONOTONIC, which the processes of a host share; 0 for none."""
    return now_ns.to_bytes(_STAMP_BYTES, "little").ljust(CHUNK_BYTES, b".")


def age_ns(chunk: bytes) -> int | None:
    """Say how long ago a stamped chunk was written; None if it carries no time."""
    now_ns = time.monotonic_ns()
    then_ns = int.from_bytes(chunk[:_STAMP_BYTES], "little")
    return now_ns - then_ns if then_ns else None


def freeze_heap() -> None:
    """Spare the garbage collector what is there by now, as a service may once it has started.

    A full collection looks at everything that was ever imported: tens of milliseconds that come once in many
    seconds, and would make the p99 of a short measurement a matter of luck.
    """
    gc.collect()
    gc.freeze()


async def pace(load: Load, send: Callable[[int, bytes], Awaitable[object]]) -> float:
    """Send the load, the streams evenly out of step with each other; return the seconds it took."""
    begin = time.monotonic() + 0.05

    async def one(stream: int) -> None:
        for number in range(load.chunks):
            delay = begin + (number + stream / load.streams) / load.rate - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            await send(stream, stamp(0 if number < load.warmup_chunks else time.monotonic_ns()))

    await asyncio.gather(*map(one, range(load.streams)))
    return time.monotonic() - begin
