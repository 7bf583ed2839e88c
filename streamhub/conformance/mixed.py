"""A backend that takes its three parts from others, as ``STREAMHUB_LEASES_URL`` and ``STREAMHUB_CANCELS_URL`` do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

from streamhub.protocols import Backend, CancelBus, LeaseManager, StreamStore
from streamhub.registry import open_url


class MixedBackend:
    """Keeps streams, leases and cancel requests in up to three backends, which it connects and closes."""

    def __init__(self, store: Backend, leases: Backend, cancels: Backend) -> None:
        self._store = store
        self._leases = leases
        self._cancels = cancels

    @property
    def backends(self) -> list[Backend]:
        """Each backend once."""
        return list({id(each): each for each in (self._store, self._leases, self._cancels)}.values())

    @property
    def store(self) -> StreamStore:
        """The streams."""
        return self._store.store

    @property
    def leases(self) -> LeaseManager:
        """The leases."""
        return self._leases.leases

    @property
    def cancels(self) -> CancelBus:
        """The cancel requests."""
        return self._cancels.cancels

    async def connect(self) -> None:
        """Connect all, or none."""
        async with AsyncExitStack() as stack:
            for backend in self.backends:
                stack.push_async_callback(backend.aclose)
                await backend.connect()
            stack.pop_all()

    async def ping(self) -> None:
        """Make one round trip to each."""
        for backend in self.backends:
            await backend.ping()

    async def about(self) -> Mapping[str, str]:
        """Say what each is."""
        named = {"store": self._store, "leases": self._leases, "cancels": self._cancels}
        return {
            f"{part} {name}": text for part, backend in named.items() for name, text in (await backend.about()).items()
        }

    async def aclose(self) -> None:
        """Close all."""
        async with AsyncExitStack() as stack:
            for backend in self.backends:
                stack.push_async_callback(backend.aclose)


def open_parts(url: str, leases_url: str | None, cancels_url: str | None) -> Backend:
    """Make the backend of a URL, with those parts of others that are named; hub settings in the URLs are ignored."""
    store, _ = open_url(url)
    if leases_url is None and cancels_url is None:
        return store
    leases = store if leases_url is None else open_url(leases_url)[0]
    cancels = store if cancels_url is None else open_url(cancels_url)[0]
    return MixedBackend(store, leases, cancels)
