"""The HTTP servers that are measured, each in a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

HOST = "127.0.0.1"
START_SECONDS = 20


def uvicorn(app: str, port: int, *options: str) -> list[str]:
    """Return the command that serves an app's factory."""
    command = [sys.executable, "-m", "uvicorn", "--factory", app, "--port", str(port)]
    return [*command, "--log-level", "critical", *options]


@asynccontextmanager
async def running(command: Sequence[str], port: int, **variables: str) -> AsyncIterator[int]:
    """Run a server inside the block, which begins once it listens; yield its process id."""
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **variables}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await _listening(port):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
        yield process.pid
    finally:
        process.kill()
        await process.wait()


async def _listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True
