"""The real ``streamhub`` command, run as processes over one SQLite file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

PATIENCE_SECONDS = 40


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def last_offset(self) -> str:
        """What the last line on standard error says."""
        words = self.err.splitlines()[-1].split()
        assert words[:2] == ["last", "offset"], self.err
        return words[2]

    @property
    def error(self) -> str:
        """The one error line."""
        (line,) = (line for line in self.err.splitlines() if line.startswith("streamhub: error: "))
        return line.removeprefix("streamhub: error: ")


class Running:
    """A command that runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    @property
    def stdin(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def say(self, data: bytes) -> None:
        self.stdin.write(data)
        self.stdin.flush()

    def hear(self, data: bytes) -> None:
        """Wait for exactly these bytes."""
        heard = b""
        while len(heard) < len(data) and (more := self.stdout.read(len(data) - len(heard))):
            heard += more
        assert heard == data

    def finish(self, *, sending: signal.Signals | None = None) -> Done:
        if sending is not None:
            self.process.send_signal(sending)
            self.process.wait(PATIENCE_SECONDS)  # before its standard input ends too
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return Done(self.process.returncode, out, err.decode())


class Commands:
    """Runs commands; ``close`` kills what still runs."""

    def __init__(self, folder: Path, **settings: float | str) -> None:
        options = {"lease_seconds": 3, "poll_seconds": 0.5, "abandon_after_seconds": 30} | settings
        query = "&".join(f"{name}={value}" for name, value in options.items())
        self.folder = folder
        self.url = f"sqlite:///{folder / 'streams.db'}?{query}"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *args: str, environ: Mapping[str, str] | None = None, **popen: Any) -> Running:
        every = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMHUB", "OPENAI"))}
        every |= {"STREAMHUB_URL": self.url} | dict(environ or {})
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | popen
        command = [sys.executable, "-m", "streamhub", *args]
        process = subprocess.Popen(command, env=every, cwd=self.folder, bufsize=0, **pipes)
        self._started.append(process)
        return Running(process)

    def run(self, *args: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None, **popen: Any) -> Done:
        running = self.start(*args, environ=environ, **popen)
        out, err = running.process.communicate(stdin or None, timeout=PATIENCE_SECONDS)
        return Done(running.process.returncode, out or b"", (err or b"").decode())

    def published(self, key: str, *lines: bytes, run: str | None = None) -> str:
        """Publish a whole run; return its last offset."""
        named = () if run is None else ("--run", run)
        done = self.run("publish", key, "--json", *named, stdin=b"".join(lines))
        assert done.code == 0, done.err
        return done.json["offset"]

    def publishing(self, key: str, *args: str, said: bytes = b"", environ: Mapping[str, str] | None = None) -> Running:
        """Start a producer that has stored ``said`` and waits for more."""
        producer = self.start("publish", key, *args, environ=environ)
        producer.say(said)
        reader = self.start("tail", key, "--wait", str(PATIENCE_SECONDS))
        reader.hear(said)
        reader.finish(sending=signal.SIGTERM)
        return producer

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    _close(pipe)


def _close(pipe: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):  # of what was not read any more
        pipe.close()
