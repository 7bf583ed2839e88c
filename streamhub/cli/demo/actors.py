"""The demo's processes as the conductor sees them: started, listened to, killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from typing import Any, Self

from streamhub.cli.demo.checks import Received


class ActorFailedError(Exception):
    """A process of the demo ended in a way it should not."""


class Actor:
    """One process, which reports in lines of JSON."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.received: list[Received] = []
        self.facts: dict[str, Any] = {}
        self._process = process
        self._news = asyncio.Condition()
        self._closed = False
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, name: str, environ: dict[str, str], *command: str) -> Actor:
        """Start ``python -m COMMAND``."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *command, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, env=environ
        )
        return cls(name, process)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def offset(self) -> str:
        """The cursor of a subscriber: the offset of the last chunk that reached us."""
        return self.received[-1].offset if self.received else "start"

    @property
    def words(self) -> int:
        """How many chunks a subscriber has reported."""
        return len(self.received)

    async def until_words(self, count: int) -> None:
        """Wait until a subscriber has reported this many chunks."""
        await self._until(lambda: self.words >= count, f"{count} words")

    async def until_fact(self, name: str) -> Any:
        """Wait for a fact and return it."""
        await self._until(lambda: name in self.facts, f"{name!r}")
        return self.facts[name]

    async def finish(self) -> int:
        """Wait for the process to end by itself, and return its status."""
        await self._listening
        return await self._process.wait()

    async def kill(self) -> None:
        """Kill -9, if it still runs; what it has reported is kept."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self.finish()

    async def _until(self, true: Callable[[], bool], what: str) -> None:
        async with self._news:
            await self._news.wait_for(lambda: true() or self._closed)
        if not true():
            raise ActorFailedError(f"{self.name} (process {self.pid}) ended before {what}")

    async def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe; for the type checker
        async for line in self._process.stdout:
            # A killed process may leave half a line: that chunk did not reach us.
            if line.endswith(b"\n"):
                await self._hear(json.loads(line))
        async with self._news:
            self._closed = True
            self._news.notify_all()

    async def _hear(self, facts: dict[str, Any]) -> None:
        async with self._news:
            if "offset" in facts and "text" in facts:
                self.received.append(Received(facts["offset"], facts["text"]))
            else:
                self.facts.update(facts)
            self._news.notify_all()


class Cast:
    """Every process of one demo; leaving the block kills what is left of them."""

    def __init__(self, url: str) -> None:
        self._environ = {**os.environ, "STREAMHUB_URL": url}
        self._actors: list[Actor] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for actor in self._actors:
            await actor.kill()

    async def role(self, name: str, role: str, *args: str) -> Actor:
        """Start one of ``roles``."""
        return await self._start(name, "streamhub.cli.demo.roles", role, *args)

    async def command(self, name: str, args: Sequence[str]) -> Actor:
        """Start a ``streamhub`` command."""
        return await self._start(name, "streamhub", *args)

    async def _start(self, name: str, *command: str) -> Actor:
        actor = await Actor.start(name, self._environ, *command)
        self._actors.append(actor)
        return actor
