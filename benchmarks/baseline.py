"""What is often written by hand, for comparison: no fencing, no resume, no group commit."""

from __future__ import annotations

from benchmarks.figures import Figure
from benchmarks.floors import floor_of
from benchmarks.places import Place
from benchmarks.scale import Scale


async def measure(place: Place, scale: Scale) -> list[Figure]:
    measured = await floor_of(place).baselines(scale.baseline_chunks)
    return [Figure(name=name, unit="chunks/s", value=value, better="more") for name, value in measured.items()]
