"""``shelf:///path``: the connection, and what its URL says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from streamhub import ConfigError
from streamhub.options import parse_options, query_options
from streamhub_shelf.cancels import ShelfCancels
from streamhub_shelf.directory import Directory
from streamhub_shelf.leases import ShelfLeases
from streamhub_shelf.options import ShelfOptions
from streamhub_shelf.store import ShelfStore


class ShelfBackend:
    """A ``Backend`` in a directory."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.netloc or len(parts.path) < 2:
            raise ConfigError("a shelf URL names a directory: use shelf:///relative or shelf:////absolute")
        self._options = parse_options(ShelfOptions, query_options(url), scheme="shelf")
        self._root = Path.cwd() / unquote(parts.path[1:])
        # One each, as they are independent: no renewal waits for another process's long read.
        self._directories = [Directory(self._root / part, self._options) for part in ("streams", "leases", "cancels")]
        streams, leases, cancels = self._directories
        self.store = ShelfStore(streams, leases, cancels)
        self.leases = ShelfLeases(leases)
        self.cancels = ShelfCancels(cancels)

    async def connect(self) -> None:
        """Make the directories, if need be."""
        for directory in self._directories:
            directory.open()

    async def ping(self) -> None:
        """Take the locks once."""
        for directory in self._directories:
            await directory.step(lambda _: None)

    async def about(self) -> Mapping[str, str]:
        """Say what this is."""
        survives = "a power loss" if self._options.fsync else "the death of a process; a power loss may take the newest"
        return {
            "backend": "shelf: a directory of files",
            "directory": str(self._root),
            "durability": f"survives {survives}",
            "limits": "one host; one call of a kind at a time; the event loop waits for the disk",
        }

    async def aclose(self) -> None:
        """Refuse further calls; nothing is held between calls."""
        for directory in self._directories:
            directory.close()
