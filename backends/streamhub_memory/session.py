"""One connection to a namespace."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from streamhub.errors import HubClosedError
from streamhub_memory.mailbox import Mailbox
from streamhub_memory.namespace import REGISTRY, Namespace


class Session:
    """A namespace while the backend is connected; ``HubClosedError`` before and after."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._namespace: Namespace | None = None
        self._state = "not connected"
        self._boxes: set[Mailbox[Any]] = set()

    @property
    def namespace(self) -> Namespace:
        """The namespace, while connected."""
        if self._namespace is None:
            raise HubClosedError(f"the memory backend is {self._state}")
        return self._namespace

    def open(self) -> None:
        """Connect."""
        if self._namespace is None:
            self._namespace = REGISTRY.enter(self.name)

    def close(self) -> None:
        """Disconnect and end the feeds; harmless when repeated."""
        namespace, self._namespace = self._namespace, None
        self._state = "closed"
        if namespace is None:
            return
        with namespace.lock:
            for box in tuple(self._boxes):
                box.close()
        REGISTRY.leave(namespace)

    @contextmanager
    def tracked(self, namespace: Namespace, box: Mailbox[Any]) -> Generator[None, None, None]:
        """Close the mailbox on exit, or with the session."""
        self._boxes.add(box)
        try:
            yield
        finally:
            self._boxes.discard(box)
            with namespace.lock:
                box.close()
