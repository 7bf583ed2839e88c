"""A directory: its lock, its clock, and files that change as a whole."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from streamhub import BackendUnavailableError
from streamhub_shelf.options import ShelfOptions

T = TypeVar("T")


class Directory:
    """Runs steps: each has the directory for itself, among all processes, and is told the time."""

    def __init__(self, root: Path, options: ShelfOptions) -> None:
        self.root = root
        self.options = options
        self._is_open = False

    def open(self) -> None:
        """Make the directory, if need be."""
        with self._map_errors():
            self.root.mkdir(parents=True, exist_ok=True)
        self._is_open = True

    def close(self) -> None:
        """Refuse further steps."""
        self._is_open = False

    def check_open(self) -> None:
        """Raise ``BackendUnavailableError`` before ``open`` and after ``close``."""
        if not self._is_open:
            raise BackendUnavailableError(f"shelf {str(self.root)!r} is not connected")

    async def step(self, work: Callable[[float], T]) -> T:
        """Call ``work(now)`` with the lock held. It does not wait for anything but the disk."""
        self.check_open()
        with self._map_errors():
            lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                await self._lock(lock)
                os.utime(lock)  # the file system's time is the server's: no process's own clock counts
                return work(os.fstat(lock).st_mtime)
            finally:
                os.close(lock)  # unlocks, as does the death of the process

    async def _lock(self, lock: int) -> None:
        deadline = time.monotonic() + self.options.busy_seconds
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(0.001)

    @contextmanager
    def _map_errors(self) -> Generator[None]:
        try:
            yield
        except OSError as exc:
            if isinstance(exc, BackendUnavailableError):
                raise
            raise BackendUnavailableError(f"shelf {str(self.root)!r}: {exc.strerror or exc}") from exc

    def path(self, *names: str) -> Path:
        """Return where something is kept: names of any length and any characters have a file of their own."""
        return self.root / hashlib.sha256(json.dumps(names).encode()).hexdigest()

    async def files(self) -> list[Path]:
        """List what ``path`` has named."""
        return await self.step(lambda _: list(self.root.glob("?" * 64)))

    def write(self, path: Path, data: bytes) -> None:
        """Replace a file: afterwards it holds all of ``data``, or what it held before."""
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            self.sync(file.fileno())
        new.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            self.sync(folder)
        finally:
            os.close(folder)

    def sync(self, file: int) -> None:
        """Wait until a file is on the disk, where that is wanted."""
        if self.options.fsync:
            os.fsync(file)

    async def remove_expired(self) -> None:
        """Remove the small files whose time is over."""

        def remove(path: Path, now: float) -> None:
            facts = read_json(path)
            if facts is not None and facts["expires"] <= now:
                path.unlink()

        for path in await self.files():
            await self.step(lambda now, path=path: remove(path, now))


def read_json(path: Path) -> Any:
    """Read a small file; None if there is none."""
    with suppress(FileNotFoundError):
        return json.loads(path.read_bytes())
    return None
