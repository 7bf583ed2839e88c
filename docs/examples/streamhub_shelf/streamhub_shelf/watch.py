"""Notifications without a server: look at files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

from streamhub_shelf.directory import Directory

Topic = TypeVar("Topic", bound=Hashable)


class Watch(Generic[Topic]):
    """Looks at the files of some topics now and then, and yields the topics whose file is another than before."""

    def __init__(self, directory: Directory, path_of: Callable[[Topic], Path]) -> None:
        self._directory = directory
        self._path_of = path_of
        self._seen: dict[Topic, tuple[int, ...] | None] = {}

    def add(self, topic: Topic) -> None:
        """Begin: a change after this call is seen."""
        self._seen[topic] = self._look(topic)

    def remove(self, topic: Topic) -> None:
        """Stop."""
        self._seen.pop(topic, None)

    def _look(self, topic: Topic) -> tuple[int, ...] | None:
        try:
            found = self._path_of(topic).stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    async def changes(self) -> AsyncIterator[Topic]:
        """Yield topics until the directory is closed."""
        while True:
            await asyncio.sleep(self._directory.options.look_seconds)
            self._directory.check_open()
            for topic, before in list(self._seen.items()):
                now = self._look(topic)
                if now != before and topic in self._seen:
                    self._seen[topic] = now
                    yield topic
