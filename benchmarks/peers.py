"""Other processes. Each runs one role, a function named ``module:function``, and talks by JSON lines.

``async with start(role, …) as peer`` runs it in a process of its own; ``start(…, here=True)`` in this event loop, for
data that processes do not share. A role is called with its ``Caller`` and the arguments.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parent.parent
MAX_LINE_BYTES = 256 * 1024 * 1024


class PeerGoneError(Exception):
    """The other side ended before it said what was awaited."""


class Caller(Protocol):
    """What a role sees of its starter, and the starter of the role."""

    async def say(self, word: str, fact: Any = None) -> None: ...
    async def hear(self, word: str) -> Any: ...


class Wire:
    """A ``Caller`` over a pair of pipes."""

    def __init__(self, reader: asyncio.StreamReader, writer: Any) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, word: str, fact: Any = None) -> None:
        self._writer.write(json.dumps([word, fact]).encode() + b"\n")
        if isinstance(self._writer, asyncio.StreamWriter):
            await self._writer.drain()
        else:
            self._writer.flush()

    async def hear(self, word: str) -> Any:
        line = await self._reader.readline()
        if not line:
            raise PeerGoneError(f"the other process ended before {word!r}; see its standard error")
        said, fact = json.loads(line)
        if said != word:
            raise PeerGoneError(f"heard {said!r} where {word!r} was due")
        return fact


class Peer(Wire):
    """The starter's side of a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        super().__init__(process.stdout, process.stdin)
        self._process = process

    def kill(self) -> None:
        """Kill it where it stands."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    async def aclose(self) -> None:
        """Let it end; kill it if it does not."""
        self._writer.close()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()


class _Local:
    """Both sides of a conversation inside one event loop."""

    def __init__(self, inbox: asyncio.Queue[tuple[str, Any]], outbox: asyncio.Queue[tuple[str, Any]]) -> None:
        self._inbox = inbox
        self._outbox = outbox

    async def say(self, word: str, fact: Any = None) -> None:
        await self._outbox.put((word, fact))

    async def hear(self, word: str) -> Any:
        said, fact = await self._inbox.get()
        if said != word:
            raise PeerGoneError(f"heard {said!r} where {word!r} was due")
        return fact


def start(role: str, *, here: bool = False, **args: Any) -> AbstractAsyncContextManager[Caller]:
    """Run a role in another process, or (``here``) in this event loop."""
    return _start_here(role, args) if here else start_process(role, **args)


@asynccontextmanager
async def start_process(role: str, **args: Any) -> AsyncGenerator[Peer]:
    """Run a role in another process; leaving the block ends it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.peers",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))},
        limit=MAX_LINE_BYTES,
    )
    peer = Peer(process)
    try:
        # By the pipe, because process lists show arguments and a URL may hold a password.
        await peer.say("role", [role, args])
        yield peer
    except BaseException:
        peer.kill()
        raise
    finally:
        await peer.aclose()


@asynccontextmanager
async def _start_here(role: str, args: dict[str, Any]) -> AsyncGenerator[Caller]:
    one: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    two: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        group.create_task(_find(role)(_Local(one, two), **args))
        yield _Local(two, one)


def _find(role: str) -> Any:
    module, _, function = role.partition(":")
    return getattr(importlib.import_module(module), function)


async def _play() -> None:
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    caller = Wire(reader, sys.stdout.buffer)
    role, args = await caller.hear("role")
    await _find(role)(caller, **args)


if __name__ == "__main__":
    asyncio.run(_play())
