"""What a forked child must not do: use, or close, a connection that its parent opened."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from typing import Protocol
from weakref import WeakSet


class Holder(Protocol):
    """Holds connections, in threads that a child does not have."""

    def connections(self) -> Iterable[sqlite3.Connection]:
        """Return those that are open."""
        ...


# The holders of this process, only for the child to find them.
_holders: WeakSet[Holder] = WeakSet()


def remember(holder: Holder) -> None:
    """Keep the connections of ``holder`` out of the way in every child that is forked from now on."""
    _holders.add(holder)


def _forget() -> None:
    # Closing a connection here would end the parent's file locks or even remove its log. An object that is never
    # freed is never closed, so each gets a reference that nobody gives back.
    connections = [connection for holder in _holders for connection in holder.connections()]
    if connections:
        import ctypes

        for connection in connections:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    _holders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
