"""What the least code that does the same comes to: the same operations on the same system, and nothing else.

A class for each URL scheme; a backend without one is measured without a floor. A floor has no fencing, no leases, no
cursors, no retries and no ends, and it may block the event loop: the share it leaves to streamhub is what those cost.
"""

from __future__ import annotations

import importlib

from benchmarks.floors.floor import Floor
from benchmarks.places import Place

# Imported when they are used: a driver that is not installed matters to nobody else.
FLOORS: dict[str, str] = {
    "memory": "benchmarks.floors.memory:MemoryFloor",
    "sqlite": "benchmarks.floors.sqlite:SqliteFloor",
    "redis": "benchmarks.floors.redis:RedisFloor",
    "postgresql": "benchmarks.floors.postgres:PostgresFloor",
    "postgres": "benchmarks.floors.postgres:PostgresFloor",
    "nats": "benchmarks.floors.nats:NatsFloor",
}


def floor_of(place: Place) -> Floor:
    """Return the floor of a place's backend; one that measures nothing if there is none."""
    if place.scheme not in FLOORS:
        return Floor(place)
    module, _, name = FLOORS[place.scheme].partition(":")
    floor: Floor = getattr(importlib.import_module(module), name)(place)
    return floor
