"""Servers of a test: uvicorn in its own event loop, on a free port of the loopback interface; waiting for others."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from http_client import request

PATIENCE_SECONDS = 20.0


@asynccontextmanager
async def serving(app: Any, *, send_buffer: int | None = None, **config: Any) -> AsyncIterator[int]:
    """Serve the app inside the block; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    if send_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # connections inherit it
    settings = {
        "lifespan": "off",
        "log_level": "critical",
        "timeout_graceful_shutdown": 1,
        "ws": "none",
        "log_config": None,
        **config,
    }
    server = uvicorn.Server(uvicorn.Config(app, **settings))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started or task.done())
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


async def until(fact: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until it is so, with a bound."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found = fact()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.005)


async def answering(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server in a process of its own answers; fail if it ends before."""

    async def answers() -> bool:
        assert process.poll() is None, "the server did not start"
        try:
            async with request(port, "/"):
                return True
        except OSError:
            return False

    await until(answers)
