"""``doctor``: what is installed, what is connected, and what it promises."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import sqlite3
import statistics
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from streamhub import Hub, HubSettings, open_backend
from streamhub.cli import output, status
from streamhub.cli.running import environment, run
from streamhub.options import redact, without_options
from streamhub.protocols import Backend
from streamhub.registry import schemes

PINGS = 5
PARTS = ("STREAMHUB_URL", "STREAMHUB_LEASES_URL", "STREAMHUB_CANCELS_URL")
DISTRIBUTIONS = ("redis", "nats-py", "asyncpg", "starlette", "rich")


def version() -> str:
    """Return the installed version of streamhub."""
    return importlib.metadata.version("streamhub-py")


def doctor(args: Namespace) -> int:
    """Connect to every part that is configured, and report."""
    return run(_doctor(args))


async def _doctor(args: Namespace) -> int:
    environ = environment(args)
    settings = Hub.from_env(environ).settings
    report: dict[str, Any] = {"versions": _versions(), "schemes": schemes(), "settings": _chosen(settings)}
    for name in PARTS:
        if environ.get(name):
            async with open_backend(without_options(environ[name], HubSettings.names())) as backend:
                report[name] = {"url": redact(environ[name]), **await _examine(backend)}
    advised = advice(args)
    if args.json:
        output.print_json({**report, "advice": advised})
    else:
        output.print_table(("FACT", "VALUE"), list(_flat(report).items()))
    for line in advised:
        output.note(line)
    return status.COMPLETED


def _versions() -> dict[str, str]:
    found = {"streamhub": version(), "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


async def _examine(backend: Backend) -> dict[str, Any]:
    seconds: list[float] = []
    for _ in range(PINGS):
        started = time.perf_counter()
        await backend.ping()
        seconds.append(time.perf_counter() - started)
    return {
        "ping_ms": {"median": _milliseconds(statistics.median(seconds)), "worst": _milliseconds(max(seconds))},
        "about": dict(await backend.about()),
        "limits": {
            "max_append_bytes": backend.store.max_append_bytes,
            "min_lease_seconds": backend.leases.min_ttl_seconds,
            "default_lease_seconds": backend.leases.default_ttl_seconds,
        },
    }


def _chosen(settings: HubSettings) -> dict[str, Any]:
    defaults = HubSettings()
    values = {name: getattr(settings, name) for name in sorted(HubSettings.names())}
    return {name: value for name, value in values.items() if value != getattr(defaults, name)}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def advice(args: Namespace) -> list[str]:
    """Say what should be done otherwise."""
    url: str | None = args.url
    if url is not None and urlsplit(url).password is not None:
        return ["advice: --url shows its password to everyone who lists processes: set STREAMHUB_URL instead"]
    return []


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    rows: dict[str, str] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            rows |= _flat(item, f"{prefix}{name} ")  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(item, list):
            rows[prefix + name] = ", ".join(map(str, item))  # pyright: ignore[reportUnknownArgumentType]
        else:
            rows[prefix + name] = output.value_text(item)
    return rows
