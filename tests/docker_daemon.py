"""A Docker daemon for tests: one that runs, or one of the session's own; and images of binaries that are here."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import docker
from redis_servers import SHARED

START_SECONDS = 30.0

SOCKET = Path("/var/run/docker.sock")


class DockerDaemon:
    """A daemon, named by ``DOCKER_HOST`` while it is in use."""

    def __init__(
        self, host: str, *, directory: Path | None = None, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        """Take a daemon at an address; ``directory`` and ``process`` are what was made for it."""
        self.host = host
        self._directory = directory
        self._process = process

    def client(self) -> docker.DockerClient:
        """Return a client."""
        return docker.DockerClient(base_url=self.host)

    def import_binary(self, path: Path, name: str, *arguments: str) -> None:
        """Make an image that runs a binary, of it and the libraries it needs."""
        command = ", ".join(f'"{word}"' for word in (path, *arguments))
        with contextlib.closing(self.client()) as client:
            repository, _, tag = name.partition(":")
            client.api.import_image_from_data(
                _archive([path, *_libraries(path)]), repository=repository, tag=tag, changes=[f"CMD [{command}]"]
            )

    def close(self) -> None:
        """Stop it, if it was started here."""
        if self._process is not None:
            os.environ.pop("DOCKER_HOST", None)
            self._process.terminate()
            self._process.wait(30)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


def _libraries(path: Path) -> list[Path]:
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    return [Path(found) for found in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE)]


def _archive(paths: list[Path]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as archive:
        for path in paths:
            archive.add(path)
        for name in ("tmp", "data"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o777
            archive.addfile(folder)
    return content.getvalue()


def daemon() -> DockerDaemon | None:
    """Return the session's daemon: one that runs, else one that is started, if there is ``dockerd`` and it may be."""
    return SHARED.get(DockerDaemon, "", _find)


def _find() -> DockerDaemon | None:
    host = os.environ.get("DOCKER_HOST") or (f"unix://{SOCKET}" if SOCKET.exists() else "")
    if host:
        return DockerDaemon(host)
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        return None
    return _start()


def _start() -> DockerDaemon:
    directory = Path(tempfile.mkdtemp(prefix="streamhub-docker-"))
    host = f"unix://{directory}/docker.sock"
    command = ["dockerd", "-H", host, "--data-root", directory / "data", "--exec-root", directory / "exec"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--pidfile", directory / "pid"], stdout=log, stderr=log)
    started = DockerDaemon(host, directory=directory, process=process)
    deadline = time.monotonic() + START_SECONDS
    while not _listens(directory / "docker.sock"):
        if process.poll() is not None or time.monotonic() > deadline:
            text = (directory / "log").read_text()[-2000:]
            started.close()
            raise RuntimeError(f"dockerd did not start: {text}")
        time.sleep(0.1)
    os.environ["DOCKER_HOST"] = host
    return started


def _listens(path: Path) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        return probe.connect_ex(str(path)) == 0
