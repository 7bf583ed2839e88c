"""Floors: what the least code that does the same costs, on the same system, in the same round.

A floor has no fencing, no leases, no cursors, no retries and no end records. It shows how much of what the system
can do is left to the user. A backend's floor is a subclass of ``Floor`` in a module of its own, listed in ``FLOORS``;
what it does not override has no floor.
"""

from __future__ import annotations

from benchmarks.floors.floor import Floor
from benchmarks.floors.memory import MemoryFloor
from benchmarks.floors.sqlite import SqliteFloor
from benchmarks.places import Place

FLOORS: dict[str, type[Floor]] = {"memory": MemoryFloor, "sqlite": SqliteFloor}


def floor_of(place: Place) -> Floor:
    """Return the floor of a place's backend."""
    return FLOORS.get(place.scheme, Floor)(place)


__all__ = ["FLOORS", "Floor", "floor_of"]
