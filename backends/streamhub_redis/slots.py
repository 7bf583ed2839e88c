"""Which node of a cluster serves which slot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError

from streamhub_redis.wire import Reply, elements


class Address(NamedTuple):
    """Where a node is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Slots:
    """The map of all slots, as far as it is known.

    A slot that was seen to move keeps its new owner until a map agrees: nodes learn of a move one after another, and
    the map of one that has not would send calls back to the old owner.
    """

    def __init__(self) -> None:
        self._owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._moved: dict[int, Address] = {}

    def owner(self, key: bytes) -> Address | None:
        """Return the node that serves a key; None if nobody does."""
        return self._owners[key_slot(key)]

    def move(self, slot: int, owner: Address) -> None:
        """Note that a slot has another owner."""
        self._owners[slot] = self._moved[slot] = owner

    def forget(self, owner: Address) -> None:
        """Believe maps again, for what is said to have moved to a node."""
        self._moved = {slot: node for slot, node in self._moved.items() if node != owner}

    def replace(self, ranges: Iterable[tuple[int, int, Address]]) -> None:
        """Take a map: ranges of slots, both ends included."""
        self._owners = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, owner in ranges:
            self._owners[first : last + 1] = [owner] * (last + 1 - first)
        self._moved = {slot: owner for slot, owner in self._moved.items() if self._owners[slot] != owner}
        for slot, owner in self._moved.items():
            self._owners[slot] = owner

    def owners(self) -> list[Address]:
        """Return every node that serves a slot, once."""
        return list(dict.fromkeys(owner for owner in self._owners if owner is not None))


def read_ranges(reply: Reply, asked: Address) -> list[tuple[int, int, Address]] | None:
    """Read the reply to ``CLUSTER SLOTS``; None if it is something else.

    A node that does not know its own host is where it was asked.
    """
    ranges = elements(reply)
    if ranges is None:
        return None
    return [(first, last, Address(_host(master[0], asked), master[1])) for first, last, master, *_ in ranges]


def moved_to(refusal: AskError, asked: Address) -> Address:
    """Return where a ``MOVED`` or an ``ASK`` leads."""
    return Address(_host(str(refusal.host).encode(), asked), refusal.port)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def _host(host: bytes | None, asked: Address) -> str:
    text = (host or b"").decode()
    return asked.host if text in ("", "?") else text
