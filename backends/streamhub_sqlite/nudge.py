"""Datagrams on the loopback interface that say "look at the file", from a process that committed to the others.

A datagram is empty and carries no meaning: one that is lost is made up for by the poll, and one that somebody forged
costs a query.
"""

from __future__ import annotations

import select
import socket
import threading
from abc import ABC, abstractmethod
from contextlib import suppress

from streamhub_sqlite.queries import load
from streamhub_sqlite.transaction import Writing

_HOST = "127.0.0.1"
_SQL = load("listener.sql")

BEAT_SECONDS = 20.0
"""How often a process says that it still listens."""

_STALE_MS = 60_000


class Ear(ABC):
    """What a watching thread waits at."""

    port: int | None = None

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Return when nudged, or after ``seconds``; nudges until now count as one."""

    @abstractmethod
    def wake(self) -> None:
        """End a wait. From any thread."""

    @abstractmethod
    def close(self) -> None:
        """Give up what waiting needs."""


class PollingEar(Ear):
    """Waits for its time to pass."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def wait(self, seconds: float) -> None:
        """See ``Ear.wait``."""
        self._event.wait(seconds)

    def wake(self) -> None:
        """See ``Ear.wake``."""
        self._event.set()

    def close(self) -> None:
        """See ``Ear.close``."""


class DatagramEar(Ear):
    """Waits for datagrams at a port of its own. ``OSError`` if it cannot have one."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.bind((_HOST, 0))
        except OSError:
            self._socket.close()
            raise
        self.port = int(self._socket.getsockname()[1])
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def wait(self, seconds: float) -> None:
        """See ``Ear.wait``."""
        self._poll.poll(seconds * 1000)
        with suppress(OSError):
            while True:
                self._socket.recv(1)

    def wake(self) -> None:
        """See ``Ear.wake``."""
        with suppress(OSError):
            self._socket.sendto(b"", (_HOST, self.port))

    def close(self) -> None:
        """Close the port."""
        self._socket.close()


def open_ear(*, nudge: bool) -> Ear:
    """Return an ear at a port, or where that is impossible or unwanted one that polls."""
    if nudge:
        with suppress(OSError):
            return DatagramEar()
    return PollingEar()


class Nudger:
    """Sends nudges to the listeners that the file names. Used by the writing thread only."""

    def __init__(self, token: str, *, nudge: bool) -> None:
        self._token = token
        self._nudge = nudge
        self._known = -1
        self._ports: list[int] = []
        self._socket: socket.socket | None = None

    def load(self, writing: Writing) -> None:
        """Read who listens, if that has changed; in the transaction that the nudges will tell of."""
        if not self._nudge or writing.file.listeners == self._known:
            return
        rows = writing.rows(_SQL["others"], (self._token, writing.now_ms - _STALE_MS))
        self._ports = [row[0] for row in rows]
        self._known = writing.file.listeners

    def forget(self) -> None:
        """Read who listens anew: the transaction of the last ``load`` was undone."""
        self._known = -1

    def send(self) -> None:
        """Nudge everybody else; whoever is not reached finds out by its poll."""
        for port in self._ports:
            with suppress(OSError):
                self._open().sendto(b"", (_HOST, port))

    def _open(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        return self._socket

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()


def register(writing: Writing, token: str, port: int) -> None:
    """Say in the file that a process listens at ``port``, or still does."""
    known = writing.row(_SQL["port"], (token,))
    writing.write(_SQL["register"], (token, port, writing.now_ms))
    if known != (port,):
        writing.file.listeners = writing.change()


def unregister(writing: Writing, token: str) -> None:
    """Say that a process listens no more."""
    if writing.write(_SQL["unregister"], (token,)):
        writing.file.listeners = writing.change()


def sweep_listeners(writing: Writing) -> None:
    """Remove the rows of processes that died."""
    if writing.write(_SQL["sweep"], (writing.now_ms - _STALE_MS,)):
        writing.file.listeners = writing.change()
