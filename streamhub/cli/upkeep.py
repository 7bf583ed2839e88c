"""``sql`` and ``gc``: what an operator does for a backend, beside any application."""

from __future__ import annotations

from argparse import Namespace

from streamhub.cli import status
from streamhub.cli.running import hub_of, run
from streamhub.registry import setup_sql

GC_LIMIT = 1000


def sql(args: Namespace) -> int:
    """Print the SQL that makes or upgrades a backend's schema."""
    print(setup_sql(args.backend, args.schema, since=args.since))
    return status.COMPLETED


def gc(args: Namespace) -> int:
    """Remove what has expired."""
    return run(_gc(args))


async def _gc(args: Namespace) -> int:
    total = 0
    async with hub_of(args) as hub:
        while removed := await hub.store.sweep(GC_LIMIT):
            total += removed
    print(f"{total} removed")
    return status.COMPLETED
