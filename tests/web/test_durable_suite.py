"""The Durable Streams protocol's own suite, on every backend: how many of its tests ran is asserted too."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from node_clients import install, node
from places import KINDS, fresh_place
from ports import free_port
from web_server import answering

SUITE = Path(__file__).parent / "node_durable"
CORE, LEFT_OUT = 250, 88
SUITE_SECONDS = 150


@pytest.fixture(scope="module", autouse=True)
def _packages() -> None:
    install(SUITE)


@pytest.mark.timeout(SUITE_SECONDS + 60)
@pytest.mark.parametrize("kind", KINDS)
async def test_suite_of_the_protocol_passes(kind: str, tmp_path: Path) -> None:
    async with fresh_place(kind, tmp_path) as url, server(url) as port:
        report = await run_suite(f"http://127.0.0.1:{port}", tmp_path / "report.json")

    results = [result for file in report["testResults"] for result in file["assertionResults"]]
    wrong = [f"{each['fullName']}: {each['failureMessages']}" for each in results if each["status"] == "failed"]
    skipped = [each["ancestorTitles"][0] for each in results if each["status"] not in ("passed", "failed")]
    assert wrong == []
    assert sum(each["status"] == "passed" for each in results) == CORE
    assert len(skipped) == LEFT_OUT
    assert all(title.startswith(("Fork", "Reserved subscription APIs")) for title in skipped), skipped


@asynccontextmanager
async def server(url: str) -> AsyncIterator[int]:
    """Run ``streamhub serve`` inside the block; yield its port."""
    port = free_port()
    options = ["--port", str(port), "--prefix", "/", "--open", "--long-poll-seconds", "0.5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamhub", "serve", *options], env={**os.environ, "STREAMHUB_URL": url}
    )
    try:
        await answering(port, process)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


async def run_suite(url: str, report: Path) -> Any:
    """Run the suite against a server; return what vitest's JSON reporter says."""
    process = await asyncio.create_subprocess_exec(
        node(), SUITE / "node_modules" / "vitest" / "vitest.mjs", "run", "-t", "^(?!Fork)",
        "--reporter=json", f"--outputFile={report}",
        cwd=SUITE, env={**os.environ, "DURABLE_STREAMS_URL": url},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(SUITE_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert report.exists(), output.decode(errors="replace")
    return json.loads(report.read_text())
