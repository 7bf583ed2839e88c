"""How a command runs: its event loop, its signals, its hub, and file descriptors that never block the loop."""

from __future__ import annotations

import asyncio
import os
import signal
from argparse import Namespace
from collections.abc import Callable, Coroutine
from typing import Any

from streamhub import Hub
from streamhub.cli import status

# A pipe that polls writable takes this much without blocking.
PIPE_BYTES = 4096
READ_BYTES = 64 * 1024


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a command to its status. SIGINT and SIGTERM cancel it, so that it closes what it holds."""
    with asyncio.Runner() as runner:
        return runner.run(_until_sigterm(main))


async def _until_sigterm(main: Coroutine[Any, Any, int]) -> int:
    terminated = False
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task; for the type checker

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await main
    except asyncio.CancelledError:
        if not terminated:
            raise
        return status.TERMINATED
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def environment(args: Namespace) -> dict[str, str]:
    """Return the environment with ``--url`` in the place of ``STREAMHUB_URL``."""
    environ = dict(os.environ)
    if args.url is not None:
        environ["STREAMHUB_URL"] = args.url
    return environ


def hub_of(args: Namespace) -> Hub:
    """Make the hub that the command line or the environment names, not entered yet."""
    return Hub.from_env(environment(args))


async def read_some(fd: int) -> bytes:
    """Read what is there, or wait for it; empty at the end."""
    loop = asyncio.get_running_loop()
    while True:
        await _ready(fd, loop.add_reader, loop.remove_reader)
        try:
            return os.read(fd, READ_BYTES)
        except BlockingIOError:
            continue


async def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``. Up to ``PIPE_BYTES`` it is all or nothing, also when cancelled."""
    loop = asyncio.get_running_loop()
    rest = memoryview(data)
    while rest:
        await _ready(fd, loop.add_writer, loop.remove_writer)
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            continue


async def _ready(fd: int, add: Callable[..., Any], remove: Callable[[int], bool]) -> None:
    ready = asyncio.Event()
    try:
        add(fd, ready.set)
    except PermissionError:  # a regular file cannot be polled, and need not be
        await asyncio.sleep(0)
        return
    try:
        await ready.wait()
    finally:
        remove(fd)
