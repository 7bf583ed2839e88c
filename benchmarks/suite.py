"""The benchmarks by name, their aims, and how one round of one runs: in a process of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks import attach, baseline, cancel, crowd, fanout, latency, processes, replay, takeover, throughput
from benchmarks.figures import Figure
from benchmarks.peers import Caller, start_process
from benchmarks.places import OWN, Place, clean, fresh_place
from benchmarks.scale import FULL, QUICK, Scale

Measure = Callable[[Place, Scale], Awaitable[list[Figure]]]

BENCHMARKS: dict[str, Measure] = {
    "throughput": throughput.measure,
    "processes": processes.measure,
    "latency": latency.measure,
    "replay": replay.measure,
    "fanout": fanout.measure,
    "crowd": crowd.measure,
    "attach": attach.measure,
    "takeover": takeover.measure,
    "cancel": cancel.measure,
    "baseline": baseline.measure,
}

AIMS: dict[tuple[str, str], float] = {
    ("memory", "1 producer to 1 subscriber, one process"): 200_000,
    ("sqlite", "1 producer"): 50_000,
    ("sqlite", "64 producers"): 50_000,
    ("sqlite", "publish to receive, 64 streams x 50/s, two processes, p50"): 1.0,
    ("sqlite", "10000 chunks, packed"): 30.0,
    ("postgresql", "1 producer"): 50_000,
    ("postgresql", "64 producers"): 60_000,
    ("postgresql", "10000 chunks, packed"): 30.0,
    ("postgresql", "10000 chunks, appended one by one"): 30.0,
    ("sqlite", "10000 chunks, appended one by one"): 30.0,
    ("redis", "1 producer"): 100_000,
    ("redis", "64 producers"): 150_000,
    ("redis", "10000 chunks, packed"): 20.0,
    ("redis", "10000 chunks, packed, 100 late subscribers at once"): 1500.0,
    ("redis", "10000 chunks, appended one by one"): 80.0,
    ("redis", "1000 subscribers on 100 streams, 10/s each, two processes, p50"): 0.6,
    ("redis", "1000 subscribers on 100 streams, 10/s each, two processes: sockets of the subscribers' process"): 3,
    ("redis", "10000 subscribers on 1000 streams, 1/s each, two processes, p50"): 1.0,
    ("redis", "10000 subscribers on 1000 streams, 1/s each, two processes: sockets of the subscribers' process"): 3,
    ("redis", "cancel() to the interrupted producer, two processes, p50"): 0.5,
    ("nats", "1 producer"): 50_000,
    ("nats", "64 producers"): 80_000,
    ("nats", "10000 chunks, packed"): 30.0,
    ("nats", "1000 subscribers on 100 streams, 10/s each, two processes, p50"): 1.5,
    ("nats", "1000 subscribers on 100 streams, 10/s each, two processes: sockets of the subscribers' process"): 3,
}
"""What a figure should reach on a small machine: orientation only. The share of the floor is what judges."""


async def run_round(name: str, backend: str, *, quick: bool, directory: Path | None) -> list[Figure]:
    """Run one round of a benchmark in a process of its own, so that none disturbs the next."""
    async with start_process(
        "benchmarks.suite:round_in_process",
        name=name,
        backend=backend,
        quick=quick,
        directory=None if directory is None else str(directory),
    ) as peer:
        return [Figure(**facts) for facts in await peer.hear("figures")]


async def round_in_process(caller: Caller, *, name: str, backend: str, quick: bool, directory: str | None) -> None:
    """Role: one round."""
    with fresh_place(backend, None if directory is None else Path(directory)) as place:
        figures = await BENCHMARKS[name](place, QUICK if quick else FULL)
        if backend not in OWN:
            await clean(place)
    await caller.say("figures", [dataclasses.asdict(figure) for figure in figures])
