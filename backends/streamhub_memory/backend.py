"""``memory://NAME``: the connection and what its URL says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

from streamhub.errors import ConfigError
from streamhub.options import parse_options, query_options, redact
from streamhub_memory.cancels import MemoryCancelBus
from streamhub_memory.leases import MemoryLeaseManager
from streamhub_memory.namespace import REGISTRY, Namespace
from streamhub_memory.session import Session
from streamhub_memory.store import MemoryStore


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOptions:
    """The options of ``memory://``: none yet."""


class MemoryBackend:
    """A ``Backend`` inside the process. ``memory://`` is the namespace named ``""``.

    Args:
        url: ``memory://NAME``.

    Raises:
        ConfigError: the URL has more than a name, or an option.
    """

    def __init__(self, url: str) -> None:
        name, self.options = _parse(url)
        self._session = Session(name)
        self._store = MemoryStore(self._session)
        self._leases = MemoryLeaseManager(self._session)
        self._cancels = MemoryCancelBus(self._session)

    @property
    def name(self) -> str:
        """The namespace's name."""
        return self._session.name

    @property
    def namespace(self) -> Namespace:
        """What the backends of this name share; for tests, which may replace its ``clock`` or ``clear`` it."""
        return self._session.namespace

    @property
    def store(self) -> MemoryStore:
        """The streams."""
        return self._store

    @property
    def leases(self) -> MemoryLeaseManager:
        """The leases."""
        return self._leases

    @property
    def cancels(self) -> MemoryCancelBus:
        """The cancel requests."""
        return self._cancels

    @staticmethod
    def forget(name: str = "") -> None:
        """Drop everything the process holds under a name; connected hubs find it empty."""
        REGISTRY.forget(name)

    async def connect(self) -> None:
        """Join the namespace, made on first use."""
        self._session.open()

    async def ping(self) -> None:
        """Check that the backend is connected."""
        _ = self._session.namespace

    async def about(self) -> Mapping[str, str]:
        """Say what this is."""
        _ = self._session.namespace
        return {
            "backend": f"memory, streamhub {_version()}",
            "namespace": repr(self.name),
            "durability": "none: lives and dies with the process",
            "sharing": "hubs of one name in one process",
            "limits": f"{self._store.max_append_bytes} bytes an append; otherwise the process's memory",
        }

    async def aclose(self) -> None:
        """Leave the namespace; what it holds stays."""
        self._session.close()


def _parse(url: str) -> tuple[str, MemoryOptions]:
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise ConfigError(f"memory URL is malformed ({exc}): use memory://NAME") from exc
    name = parts.netloc
    if not url.startswith("memory://") or parts.path or parts.fragment or "@" in name or ":" in name:
        raise ConfigError(f"{redact(url)!r} is not memory://NAME: leave out path, port, user and fragment")
    return name, parse_options(MemoryOptions, query_options(url), scheme="memory")


def _version() -> str:
    try:
        return version("streamhub-py")
    except PackageNotFoundError:
        return "(not installed)"
