"""``streamhub serve`` as a process of its own, on a free port."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 30.0
TEXT = {"Content-Type": "text/plain"}


@dataclass(frozen=True)
class Reply:
    """A response that is over."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Serving:
    """The process, and requests to it."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, trusted: ssl.SSLContext | None) -> None:
        self.process = process
        self._folder = folder
        self._trusted = trusted
        self.port = 0

    @property
    def err(self) -> str:
        return (self._folder / "err").read_text()

    @property
    def out(self) -> str:
        return (self._folder / "out").read_text()

    @property
    def access(self) -> list[dict[str, Any]]:
        """The lines of the access log."""
        return [json.loads(line) for line in self.out.splitlines()]

    def wait_until_started(self) -> None:
        """Find the port in what it says when it serves."""
        until(lambda: self.process.poll() is not None or "serving" in self.err)
        found = re.search(r"serving https?://[^/]+:(\d+)/", self.err)
        assert found, self.err
        self.port = int(found[1])

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection, which is opened by the first request."""
        if self._trusted is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        return http.client.HTTPSConnection("localhost", self.port, timeout=PATIENCE_SECONDS, context=self._trusted)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Make a request on a connection of its own."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, http_headers(response), response.read())

    def stream(self, key: str) -> str:
        return f"/v1/stream/{key}"

    def create(self, key: str, **headers: str) -> Reply:
        return self.ask("PUT", self.stream(key), headers=TEXT | headers)

    def append(self, key: str, body: bytes, **headers: str) -> Reply:
        return self.ask("POST", self.stream(key), body, TEXT | headers)

    def read(self, key: str, query: str = "", **headers: str) -> Reply:
        return self.ask("GET", self.stream(key) + query, headers=headers)

    def peak_mib(self) -> float:
        """Return the most memory that the process had."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmHWM:")[2].split()[0]) / 1024

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


def http_headers(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def until(fact: Any) -> None:
    """Wait until it is so, with a bound."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not fact():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.01)


def environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STREAMHUB")}
    return clean | dict(environ or {})


@contextlib.contextmanager
def serve(
    folder: Path,
    url: str,
    *options: str,
    environ: Mapping[str, str] | None = None,
    trusted: ssl.SSLContext | None = None,
) -> Iterator[Serving]:
    """Run the server inside the block; ``folder`` keeps what it prints, and is its working directory."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "streamhub", "serve", "--port", "0", *options]
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(
            command, cwd=folder, env=environment({"STREAMHUB_URL": url, **(environ or {})}), stdout=out, stderr=err
        )
    try:
        serving = Serving(process, folder, trusted)
        serving.wait_until_started()
        yield serving
    finally:
        process.kill()
        process.wait()


def refused(folder: Path, *options: str, environ: Mapping[str, str] | None = None, url: str = "memory://") -> str:
    """Start a server with options that do not fit; return what it says, its status being that of a usage error."""
    code, err = failed(folder, *options, environ=environ, url=url)
    assert code == 2, err
    return err


def failed(
    folder: Path, *options: str, environ: Mapping[str, str] | None = None, url: str = "memory://"
) -> tuple[int, str]:
    """Start a server that does not start; return its status, and its last line."""
    command = [sys.executable, "-m", "streamhub", "serve", "--port", "0", *options]
    env = environment({"STREAMHUB_URL": url, **(environ or {})})
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr
