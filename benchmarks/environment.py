"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
import time
from importlib.metadata import version
from pathlib import Path


def environment(directory: Path | None) -> dict[str, str]:
    """Return the facts without which figures mean nothing."""
    folder = directory or Path(tempfile.gettempdir())
    return {
        "streamhub": version("streamhub-py"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "interpreter": f"{_interpreter_ms():.1f} ms for 100 000 calls that make an object each",
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.release()}",
        "cpu": f"{os.cpu_count()} x {_cpu_model()}",
        "sqlite files in": f"{folder} ({_filesystem(folder)})",
        "load average": load_average(),
    }


def load_average() -> str:
    """Say how busy the machine has been in the last one, five and fifteen minutes."""
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


class _Point:
    __slots__ = ("x",)

    def __init__(self, x: int) -> None:
        self.x = x


def _interpreter_ms() -> float:
    """Time what interpreters of one version differ in, by how they were built.

    The least of several, for that is what other work disturbs least.
    """
    took: list[float] = []
    for _ in range(20):
        found: dict[int, _Point] = {}
        began = time.perf_counter()
        for number in range(100_000):
            _keep(found, _Point(number % 50))
        took.append(time.perf_counter() - began)
    return min(took) * 1000


def _keep(found: dict[int, _Point], point: _Point) -> tuple[int, bytes]:
    found[point.x] = point
    return point.x, b"%d" % point.x


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _filesystem(folder: Path) -> str:
    """Name the file system a folder is on: that of the longest mount point above it."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "unknown file system"
    above = [(len(point), kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(above, default=(0, "unknown file system"))[1]
