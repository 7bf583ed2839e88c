"""SIGTERM under load, on each server: readers go elsewhere at once and lose nothing, producers get their time."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from counting import COUNT, count
from h2.connection import H2Connection
from http_client import Reply, request
from hyperframe.frame import SettingsFrame
from ports import free_port
from starlette.applications import Starlette
from web_server import answering, serving, until

from streamhub import Hub
from streamhub.web import sse_routes

DRAIN_SECONDS = 0.5
RUNS, READERS = 5, 100
SLACK = 5

# What runs, and the seconds after which readers are cut off: at once, where the process that serves gets the signal.
# hypercorn's own supervisor sends its workers none; they cut after --graceful-timeout.
COMMANDS: dict[str, tuple[list[str], float]] = {
    "uvicorn": (["uvicorn", "drain_app:app", "--port", "{port}", "--log-level", "warning"], 0.2),
    "uvicorn, 4 workers": (
        ["uvicorn", "drain_app:app", "--port", "{port}", "--workers", "4", "--log-level", "warning"],
        1.0,
    ),
    "hypercorn": (["hypercorn", "drain_app:app", "--bind", "127.0.0.1:{port}", "--workers", "0"], 0.2),
    "hypercorn, 1 worker": (
        ["hypercorn", "drain_app:app", "--bind", "127.0.0.1:{port}", "--workers", "1", "--graceful-timeout", "1"],
        1.2,
    ),
    "granian": (["granian", "--interface", "asgi", "--port", "{port}", "drain_app:app"], 0.5),
}


@dataclass
class Instance:
    """A server process."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def terminate(self) -> None:
        """Send what an orchestrator sends."""
        self.process.send_signal(signal.SIGTERM)

    async def gone(self) -> int:
        """Wait until the process has exited; return its status."""
        return await asyncio.get_running_loop().run_in_executor(None, self.process.wait, 30)


@asynccontextmanager
async def instance(command: list[str], url: str, folder: Path) -> AsyncIterator[Instance]:
    """Run a server inside the block."""
    port, log = free_port(), folder / "server.log"
    environ = {**os.environ, "STREAMHUB_URL": url, "PYTHONPATH": str(Path(__file__).parent)}
    words = [word.format(port=port) for word in command]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], env=environ, stdout=file, stderr=file, start_new_session=True
        )
    try:
        await answering(port, process)
        yield Instance(port, process, log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def read(reply: Reply) -> list[str]:
    return [event.data.decode() for event in await reply.events() if event.name == b"message"]


@pytest.mark.parametrize("server", COMMANDS)
async def test_sigterm_with_open_streams_loses_nothing(server: str, tmp_path: Path) -> None:
    command, cut_seconds = COMMANDS[server]
    url = f"sqlite:///{tmp_path}/streams.db?drain_seconds={DRAIN_SECONDS}&lease_seconds=60&poll_seconds=0.5"
    loop = asyncio.get_running_loop()
    async with instance(command, url, tmp_path) as running, AsyncExitStack() as stack, Hub.from_url(url) as hub:
        replies = []
        for number in range(RUNS):
            headers = {"Content-Type": "application/json", "X-Run-Id": "r"}
            started = request(running.port, f"/k{number}", method="POST", headers=headers, body=b"{}")
            replies.append((number, await stack.enter_async_context(started)))
        for number in range(RUNS, READERS):
            reading = request(running.port, f"/k{number % RUNS}")
            replies.append((number % RUNS, await stack.enter_async_context(reading)))
        for _, reply in replies:
            assert await reply.event()

        running.terminate()
        begun = loop.time()
        heads = await asyncio.gather(*(read(reply) for _, reply in replies))
        cut_after = loop.time() - begun
        status = await running.gone()
        gone_after = loop.time() - begun

        assert {reply.ending for _, reply in replies} == {"cut"}
        assert cut_after < cut_seconds * SLACK
        assert gone_after < (cut_seconds + DRAIN_SECONDS) * SLACK
        assert status in (0, -signal.SIGTERM), running.log.read_text()
        assert "ResponseAbortedError" not in running.log.read_text()  # no traceback for each reader
        # Not one of them waits for a lease of a minute to run out.
        assert await hub.leases.holders([f"k{number}" for number in range(RUNS)]) == [None] * RUNS
        for number in range(RUNS):
            await hub.start(f"k{number}", count, run="r", unfinished="resume")

        async with serving(Starlette(routes=sse_routes(hub, authorize=None))) as port:

            async def resume(number: int, reply: Reply, head: list[str]) -> None:
                async with request(port, f"/k{number}", headers={"Last-Event-ID": reply.last_id}) as further:
                    tail = await read(further)
                    assert further.ending == "clean"
                    assert head + tail == [str(each) for each in range(COUNT - len(head + tail) + 1, COUNT + 1)]
                    assert len(head + tail) >= COUNT - 1 - 50  # all that came after what was read before the signal

            await asyncio.gather(
                *(resume(number, reply, head) for (number, reply), head in zip(replies, heads, strict=True))
            )


DATA_FRAME, RESET_FRAME, END_STREAM = 0, 3, 1


async def test_stream_of_http2_is_reset_not_ended(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/streams.db?drain_seconds={DRAIN_SECONDS}"
    command = ["granian", "--interface", "asgi", "--http", "auto", "--port", "{port}", "drain_app:app"]
    async with instance(command, url, tmp_path) as running:
        headers = {"Content-Type": "application/json", "X-Run-Id": "r"}
        async with request(running.port, "/k", method="POST", headers=headers, body=b"{}") as reply:
            assert await reply.event()
            async with asyncio.timeout(20):
                assert await _ending_by_http2(running) == "reset"


async def _ending_by_http2(running: Instance) -> str:
    """Read a stream, and end the server once something has come; tell how the stream ended."""
    loop, connection = asyncio.get_running_loop(), H2Connection()
    connection.initiate_connection()
    head = [(":method", "GET"), (":path", "/k"), (":scheme", "http"), (":authority", "test")]
    connection.send_headers(1, head, end_stream=True)
    with socket.create_connection(("127.0.0.1", running.port)) as sock:
        sock.setblocking(False)
        await loop.sock_sendall(sock, connection.data_to_send() + SettingsFrame(flags=["ACK"]).serialize())
        received, terminated = b"", False
        while piece := await loop.sock_recv(sock, 65536):
            received += piece
            while len(received) >= 9 + (size := int.from_bytes(received[:3], "big")):
                kind, flags, stream = received[3], received[4], int.from_bytes(received[5:9], "big")
                received = received[9 + size :]
                if stream == 1 and kind == RESET_FRAME:
                    return "reset"
                if kind == DATA_FRAME and flags & END_STREAM:
                    return "clean"
                if kind == DATA_FRAME and not terminated:
                    terminated = True
                    running.terminate()
    return "with the connection"


async def test_producers_get_their_drain_time_and_one_signal_is_enough(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/streams.db?drain_seconds=20"
    command, _ = COMMANDS["uvicorn"]
    async with instance(command, url, tmp_path) as running, Hub.from_url(url) as hub:
        headers = {"Content-Type": "application/json", "X-Run-Id": "r"}
        async with request(running.port, "/k", method="POST", headers=headers, body=b"{}") as reply:
            assert await reply.event()
            running.terminate()
            await read(reply)
            assert reply.ending == "cut"
        assert await running.gone() in (0, -signal.SIGTERM)
        info = await hub.info("k")
        assert info is not None
        assert (info.end and info.end.state, info.tail) == ("completed", COUNT)


async def test_producers_that_do_not_finish_end_as_interrupted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/streams.db?drain_seconds=0.1"
    command, _ = COMMANDS["uvicorn"]
    async with instance(command, url, tmp_path) as running, Hub.from_url(url) as hub:
        headers = {"Content-Type": "application/json", "X-Run-Id": "r"}
        async with request(running.port, "/k", method="POST", headers=headers, body=b'{"fail": true}') as reply:
            assert await reply.event()
            running.terminate()
            running.terminate()  # an impatient orchestrator
            await read(reply)
        await running.gone()
        async with hub.subscribe("k", strict=False) as subscription:
            texts = [chunk.text async for chunk in subscription]
        assert subscription.end is not None
        assert (subscription.end.code, texts) == ("interrupted", [str(n) for n in range(1, len(texts) + 1)])


async def test_handlers_are_chained_and_put_back(place: str) -> None:
    heard: list[int] = []
    original = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        servers_own = signal.getsignal(signal.SIGTERM)
        interrupt = signal.getsignal(signal.SIGINT)
        hub = Hub.from_url(place)
        async with hub.lifespan():
            assert signal.getsignal(signal.SIGTERM) is not servers_own
            for _ in range(2):
                signal.raise_signal(signal.SIGTERM)
            await until(lambda: hub._draining)
        assert heard == [signal.SIGTERM] * 2
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == (servers_own, interrupt)
    finally:
        signal.signal(signal.SIGTERM, original)


async def test_handler_that_another_chained_to_stays_harmless(place: str) -> None:
    heard: list[int] = []
    original = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        async with Hub.from_url(place).lifespan():
            ours = signal.getsignal(signal.SIGTERM)
            assert callable(ours)
            signal.signal(signal.SIGTERM, lambda number, frame: ours(number, frame))
            theirs = signal.getsignal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is theirs
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, original)


def test_ignored_signal_stays_ignored_and_an_unhandled_one_kills_after_the_drain() -> None:
    code = """
import asyncio, os, signal
from streamhub import Hub
signal.signal(signal.SIGINT, signal.SIG_IGN)
async def main():
    hub = Hub.from_url("memory://?drain_seconds=0")
    async with hub.lifespan():
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0)
        print("here", flush=True)
        async def source(producer):
            try:
                await asyncio.Event().wait()
            finally:
                print("interrupted", flush=True)
        await hub.start("k", source, run="r")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert done.stdout.split() == ["here", "interrupted"]
