"""A second process on the same data, driven by calls and answers, so that cases coordinate by messages, not sleeps."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import pickle  # the two ends are the same program: nothing foreign is read
import signal
import sys
from typing import Any

URL_VARIABLE = "STREAMHUB_CONFORMANCE_URL"
"""Names the data; an environment variable, because process lists show arguments and URLs hold passwords."""

LEASES_URL_VARIABLE = "STREAMHUB_CONFORMANCE_LEASES_URL"
CANCELS_URL_VARIABLE = "STREAMHUB_CONFORMANCE_CANCELS_URL"

SKEW_VARIABLE = "STREAMHUB_CONFORMANCE_SKEW_SECONDS"

START_SECONDS = 30.0
MAX_LINE_BYTES = 256 * 1024 * 1024


class PeerGoneError(Exception):
    """The second process ended before it answered."""


def pack(message: object) -> bytes:
    """Write a message as one line."""
    return base64.b64encode(pickle.dumps(message)) + b"\n"


def unpack(line: bytes) -> Any:
    """Read what ``pack`` wrote."""
    return pickle.loads(base64.b64decode(line))  # noqa: S301


class Peer:
    """A second process. ``call`` runs something there; see ``worker.Worker`` for what there is.

    Calls run concurrently there, and answer in any order. The values and errors are the real ones, pickled.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())

    async def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call ``name`` there, and return what it returns or raise what it raises.

        ``name`` is a worker's command (``produce``), or a method of a part (``store.append``, ``leases.acquire``,
        ``cancels.request``, ``hub.cancel``).

        Raises:
            PeerGoneError: the process ended meanwhile.
        """
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            if self._reader.done():
                raise PeerGoneError("the second process has ended")
            self._stdin.write(pack((number, name, args, kwargs)))
            await self._stdin.drain()
            return await answer
        except ConnectionError as exc:
            raise PeerGoneError("the second process has ended") from exc
        finally:
            self._waiting.pop(number, None)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def kill(self) -> None:
        """Kill it where it stands (SIGKILL)."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Pause it where it stands (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Let it run on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    async def gone(self) -> int:
        """Wait until the process has ended; return its exit status."""
        return await self._process.wait()

    async def aclose(self) -> None:
        """Kill the process and wait until it is gone."""
        self.kill()
        await self._process.wait()
        await self._reader
        self._stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _read(self) -> None:
        try:
            while line := await self._stdout.readline():
                number, value, error = unpack(line)
                answer = self._waiting.get(number)
                if answer is None or answer.done():
                    continue
                if error is None:
                    answer.set_result(value)
                else:
                    answer.set_exception(error)
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(PeerGoneError("the second process has ended"))


async def start_peer(
    url: str, *, leases_url: str | None = None, cancels_url: str | None = None, clock_skew_seconds: float = 0.0
) -> Peer:
    """Start a second process on ``url`` and wait until it is connected; leases and cancels may live elsewhere."""
    parts = {LEASES_URL_VARIABLE: leases_url, CANCELS_URL_VARIABLE: cancels_url}
    environment = os.environ | {name: part for name, part in parts.items() if part is not None}
    environment |= {
        URL_VARIABLE: url,
        SKEW_VARIABLE: repr(clock_skew_seconds),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "streamhub.conformance.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        limit=MAX_LINE_BYTES,
    )
    peer = Peer(process)
    try:
        async with asyncio.timeout(START_SECONDS):
            await peer.call("ready")
    except BaseException:
        await peer.aclose()
        raise
    return peer
