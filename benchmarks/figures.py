"""What is measured: one figure a round, and what the rounds of one figure come to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

Better = Literal["more", "less"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measurement, and the floor that was measured beside it.

    ``floor`` is what the least code that does the same on the same system comes to; None if there is none.
    """

    name: str
    unit: str
    value: float
    better: Better
    floor: float | None = None

    @property
    def share(self) -> float | None:
        """How much of the floor's speed is reached: 1.0 is all of it."""
        if self.floor is None or not self.floor or not self.value:
            return None
        return self.value / self.floor if self.better == "more" else self.floor / self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The rounds of one figure of one benchmark on one backend."""

    backend: str
    benchmark: str
    aim: float | None
    rounds: Sequence[Figure]

    @property
    def name(self) -> str:
        return self.rounds[0].name

    @property
    def median(self) -> float:
        return median(figure.value for figure in self.rounds)

    @property
    def floor(self) -> float | None:
        floors = [figure.floor for figure in self.rounds if figure.floor is not None]
        return median(floors) if floors else None

    @property
    def share(self) -> float | None:
        """The median of the rounds' own shares: value and floor of one round saw the same noise."""
        shares = [figure.share for figure in self.rounds if figure.share is not None]
        return median(shares) if shares else None

    def as_json(self) -> dict[str, Any]:
        return {
            "backend": self.backend,
            "benchmark": self.benchmark,
            "name": self.name,
            "unit": self.rounds[0].unit,
            "better": self.rounds[0].better,
            "aim": self.aim,
            "median": self.median,
            "min": min(figure.value for figure in self.rounds),
            "max": max(figure.value for figure in self.rounds),
            "floor": self.floor,
            "share": self.share,
            "rounds": [dataclasses.asdict(figure) for figure in self.rounds],
        }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of the values lie (the nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def latency_figures(what: str, nanoseconds: Sequence[int], floor: Sequence[int] | None) -> list[Figure]:
    """Return the median, p99 (of a hundred or more) and maximum of latencies, in milliseconds."""
    figures: list[Figure] = []
    ranks = {"p50": 0.5, "p99": 0.99, "max": 1.0} if len(nanoseconds) >= 100 else {"p50": 0.5, "max": 1.0}
    for name, share in ranks.items():
        least = percentile(floor, share) / 1e6 if floor else None
        value = percentile(nanoseconds, share) / 1e6
        figures.append(Figure(name=f"{what}, {name}", unit="ms", value=value, floor=least, better="less"))
    return figures
