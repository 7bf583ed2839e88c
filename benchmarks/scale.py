"""How much each benchmark does: the full amount, or the little that shows that it works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Crowd(NamedTuple):
    """Subscribers, spread over streams, each with so many chunks a second."""

    subscribers: int
    streams: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    chunks: int = 200_000
    """Sent in a throughput measurement, by all its producers together."""
    producers: int = 64
    baseline_chunks: int = 10_000
    latency_streams: int = 64
    latency_rate: float = 50.0
    latency_seconds: float = 4.0
    warmup_seconds: float = 1.0
    replay_chunks: int = 10_000
    replay_times: int = 5
    replay_readers: int = 100
    fanout_streams: int = 1_000
    fanout_subscribers: int = 10_000
    fanout_chunks: int = 20
    fanout_rate: float = 1.0
    fanout_seconds: float = 3.0
    crowds: tuple[Crowd, ...] = (Crowd(1_000, 100, 10.0), Crowd(10_000, 1_000, 1.0))
    crowd_seconds: float = 4.0
    crowd_warmup_seconds: float = 1.0
    attach_cycles: int = 1_000
    takeovers: int = 3
    lease_seconds: float = 2.0
    cancels: int = 30


FULL = Scale()
QUICK = Scale(
    chunks=5_000,
    producers=8,
    baseline_chunks=200,
    latency_streams=4,
    latency_rate=50.0,
    latency_seconds=0.3,
    warmup_seconds=0.1,
    replay_chunks=500,
    replay_times=1,
    replay_readers=5,
    fanout_streams=20,
    fanout_subscribers=100,
    fanout_chunks=5,
    fanout_rate=10.0,
    fanout_seconds=0.3,
    crowds=(Crowd(20, 4, 20.0),),
    crowd_seconds=0.3,
    crowd_warmup_seconds=0.1,
    attach_cycles=50,
    takeovers=1,
    lease_seconds=0.5,
    cancels=3,
)
