"""One application on every backend: only STREAMHUB_URL changes."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import servers

from streamhub.conformance.drive import soon

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "answers.py"
PATIENCE = 30.0

TOUR = """\
started
Why is the sky [and so on]
blue? Nobody knows, but everybody asks. [completed]
ended
started
Tell a story. Nobody knows, [and so on]
cancelled
Tell a story. Nobody knows, [and so on]
"""

SHARED = ("sqlite", "redis", "postgresql", "nats")


@pytest.fixture
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """A URL with nothing stored under it."""
    name = f"swap{secrets.token_hex(4)}"
    if request.param == "memory":
        yield "memory://"
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'answers.db'}"
    elif request.param == "redis":
        yield f"{servers.redis_server('8.2').url}?prefix={name}"
    elif request.param == "postgresql":
        yield f"{servers.postgres_server('18').url}?schema={name}"
    else:
        server = servers.nats_server("2.15")
        yield f"{server.url}?namespace={name}"
        for stream in ("SH", "SHL", "SHC"):
            await server.api(f"STREAM.DELETE.{stream}_{name}")


async def start(url: str, *command: str) -> asyncio.subprocess.Process:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("STREAMHUB")}
    return await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLE, *command, env=environ | {"STREAMHUB_URL": url}, stdout=asyncio.subprocess.PIPE
    )


async def printed(process: asyncio.subprocess.Process) -> str:
    out, _ = await soon(process.communicate(), PATIENCE)
    assert process.returncode == 0
    return out.decode()


@pytest.mark.parametrize("url", ["memory", *SHARED], indirect=True)
async def test_an_application_does_the_same_on_every_backend(url: str) -> None:
    assert await printed(await start(url, "tour")) == TOUR


@pytest.mark.parametrize("url", SHARED, indirect=True)
async def test_processes_of_an_application_share_every_backend_of_several_processes(url: str) -> None:
    asking = await start(url, "ask", "7", "Tell a story.")
    following = await start(url, "follow", "7")
    assert following.stdout is not None
    first = await soon(following.stdout.readuntil(b"And then? "), PATIENCE)
    cancelling = await start(url, "cancel", "7")

    assert await printed(cancelling) == "cancelled\n"
    begun, whole = (await printed(asking)).split("\n", 1)
    assert begun == "started"
    assert first.decode() + await printed(following) == whole
    assert whole.endswith("And then? [cancelled]\n")
    assert await printed(await start(url, "follow", "7")) == whole
