"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from importlib.metadata import version
from pathlib import Path


def environment(directory: Path | None) -> dict[str, str]:
    """Return the facts without which figures mean nothing."""
    folder = directory or Path(tempfile.gettempdir())
    return {
        "streamhub": version("streamhub-py"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.release()}",
        "cpu": f"{os.cpu_count()} x {_cpu_model()}",
        "sqlite files in": f"{folder} ({_filesystem(folder)})",
        "load average": load_average(),
    }


def load_average() -> str:
    """Say how busy the machine has been in the last one, five and fifteen minutes."""
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


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
