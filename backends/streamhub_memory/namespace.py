"""What the backends of one name share, and the process's registry of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from streamhub.types import CancelRequest, Change, Lease, RunRef
from streamhub_memory.agenda import Agenda
from streamhub_memory.mailbox import Exchange
from streamhub_memory.stream import StoredStream


class HeldLease(NamedTuple):
    """A lease and when it runs out."""

    lease: Lease
    expires: float


class StoredRequest(NamedTuple):
    """A cancel request and when it is forgotten."""

    request: CancelRequest
    expires: float


class Namespace:
    """Streams, leases and cancel requests of one name.

    Everything is read and changed with ``lock`` held, in short synchronous steps: each protocol call is atomic.

    Args:
        above: generations given before, in a namespace of this name that was forgotten, are not greater.

    Attributes:
        clock: the time, in seconds; tests may replace it.
        generation: the last one given.
    """

    def __init__(self, above: int = 0) -> None:
        # Reentrant: the garbage collector may close an abandoned feed in the middle of a call of the same thread.
        self.lock = threading.RLock()
        self.clock: Callable[[], float] = time.monotonic
        self.connections = 0
        self.streams: dict[str, StoredStream] = {}
        self.leases: dict[str, HeldLease] = {}
        self.requests: dict[RunRef, StoredRequest] = {}
        self.stream_agenda: Agenda[str] = Agenda()
        self.lease_agenda: Agenda[str] = Agenda()
        self.request_agenda: Agenda[RunRef] = Agenda()
        self.changes: Exchange[str, Change] = Exchange()
        self.notices: Exchange[RunRef, CancelRequest | None] = Exchange()
        # Generations begin at the clock, so that they go on growing after a restart.
        self.generation = max(time.time_ns() // 1_000_000, above)

    def next_generation(self, above: int) -> int:
        """Return a generation greater than ``above`` and all given before."""
        self.generation = max(self.generation, above) + 1
        return self.generation

    def live_stream(self, key: str, now: float) -> StoredStream | None:
        """Return what is stored, None once its fence has been outlived."""
        stream = self.streams.get(key)
        return None if stream is None or stream.outlived(now) else stream

    def live_lease(self, key: str, now: float) -> HeldLease | None:
        """Return the lease that somebody holds now."""
        held = self.leases.get(key)
        return held if held is not None and held.expires > now else None

    def live_request(self, ref: RunRef, now: float) -> CancelRequest | None:
        """Return the stored cancel request of a run."""
        stored = self.requests.get(ref)
        return stored.request if stored is not None and stored.expires > now else None

    def __len__(self) -> int:
        """Count the streams, fences, leases and cancel requests that take up memory."""
        return len(self.streams) + len(self.leases) + len(self.requests)

    def clear(self) -> None:
        """Lose everything, as a server that restarts empty does; feeds are told that anything may have changed."""
        with self.lock:
            self.streams.clear()
            self.leases.clear()
            self.requests.clear()
            self.stream_agenda, self.lease_agenda, self.request_agenda = Agenda(), Agenda(), Agenda()
            self.changes.broadcast(Change(None))
            self.notices.broadcast(None)


class Registry:
    """Namespaces by name. They stay when their last connection goes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._namespaces: dict[str, Namespace] = {}
        self._forgotten_generation = 0

    def enter(self, name: str) -> Namespace:
        """Return the namespace of a name, made on first use, with one more connection."""
        with self._lock:
            namespace = self._namespaces.get(name)
            if namespace is None:
                namespace = self._namespaces[name] = Namespace(self._forgotten_generation)
            namespace.connections += 1
            return namespace

    def leave(self, namespace: Namespace) -> None:
        """Count one connection less."""
        with self._lock:
            namespace.connections -= 1

    def forget(self, name: str) -> None:
        """Empty the namespace of a name; unless somebody is connected to it, drop it too."""
        with self._lock:
            namespace = self._namespaces.get(name)
            if namespace is None:
                return
            if not namespace.connections:
                del self._namespaces[name]
                self._forgotten_generation = max(self._forgotten_generation, namespace.generation)
        namespace.clear()


# The one state of this package: it is what memory:// stores streams in.
REGISTRY = Registry()
