"""The image of ``streamhub serve``: what its file says, and, where containers can be started, that it works."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import sysconfig
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from serve_process import until

from streamhub.cli.serve_options import every_option

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "examples" / "Dockerfile"
BASE, IMAGE = "streamhub-tests-python:3", "streamhub-tests-serve:1"
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "streamhub", "backends")
SECRET = "s3cret"


def instructions() -> list[tuple[str, str]]:
    """The file's instructions, in order."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def test_file_names_only_what_exists() -> None:
    copied = [rest.split() for word, rest in instructions() if word == "COPY" and "--from" not in rest]

    assert {name for names in copied for name in names[:-1]} == set(SOURCES)
    assert all((ROOT / name).exists() for name in SOURCES)
    variables = {
        name for word, rest in instructions() if word == "ENV" for name in re.findall(r"(STREAMHUB_\w+)=", rest)
    }
    assert variables
    assert variables <= {option.variable for option in every_option()}
    (installed,) = (rest for word, rest in instructions() if word == "RUN" and "pip install" in rest)
    extras = set(re.findall(r"\[(.*)\]", installed)[0].split(","))
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)


def test_file_keeps_what_an_orchestrator_relies_on() -> None:
    found = instructions()
    last = found[max(number for number, (word, _) in enumerate(found) if word == "FROM") :]
    said = dict(last)

    assert said["USER"] == "10001:10001"
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(said["ENTRYPOINT"]) == ["/opt/streamhub/bin/streamhub", "serve"]  # no shell that keeps signals
    assert "/healthz" in json.loads(said["HEALTHCHECK"].partition("CMD ")[2])[-1]
    assert [word for word, _ in found[:2]] == ["ARG", "FROM"]
    assert {rest.split()[0] for word, rest in found if word == "FROM"} == {"${PYTHON}"}


# --- an image, of what is here: this interpreter, and wheels of what the project needs


def _libraries(path: Path) -> Iterator[Path]:
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    yield from (Path(found) for found in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE))


def _needed(tarinfo: tarfile.TarInfo) -> tarfile.TarInfo | None:
    left_out = ("site-packages", "__pycache__", "/test", "idlelib", "tkinter", "/config-", "turtledemo")
    return None if any(word in tarinfo.name for word in left_out) else tarinfo


def _base(wheels: Path) -> bytes:
    """Return the file system of an image like Python's own, but of this interpreter, with a folder of wheels."""
    interpreter = Path(sys.executable).resolve()
    library = Path(sysconfig.get_paths()["stdlib"])
    programs = [Path("/bin") / name for name in ("sh", "install")]
    binaries = [interpreter, *programs, *(library / "lib-dynload").glob("*.so")]
    libraries = {found for binary in binaries for found in _libraries(binary)}
    (libc,) = (path for path in libraries if path.name.startswith("libc.so"))
    for name in ("dl", "m", "pthread", "rt"):  # wheels made for older systems name its parts
        libraries.update(libc.parent.glob(f"lib{name}.so.*"))
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as archive:
        for name in ("python", "python3", interpreter.name):
            archive.add(interpreter, f"usr/local/bin/{name}")
        archive.add(library, f"usr/local/lib/{library.name}", filter=_needed)
        for path in programs:
            archive.add(path, f"bin/{path.name}")
        for path in libraries:
            own = str(path).startswith(str(interpreter.parents[1])) and not str(path).startswith("/usr/lib")
            archive.add(path, f"usr/lib/{path.name}" if own else str(path).lstrip("/"))
        archive.add(wheels, "wheels")
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(folder)
    return content.getvalue()


def _wheels(folder: Path) -> Path:
    """Collect the wheels that an installation in the image takes, for it may have no network."""
    (extras,) = re.findall(r"/source\[(.*)\]", FILE.read_text())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", folder, f"{ROOT}[{extras}]", "hatchling"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    for path in folder.glob("streamhub_py-*"):
        path.unlink()  # the image builds it from its sources
    return folder


def _context() -> io.BytesIO:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in SOURCES:
            archive.add(ROOT / name, name, filter=lambda info: None if "__pycache__" in info.name else info)
        archive.add(FILE, "Dockerfile")
    content.seek(0)
    return content


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of the session's daemon, which has the image."""
    from docker_daemon import daemon

    found = daemon()
    if found is None:
        servers.lacking("a Docker daemon, or dockerd and root")
    with contextlib.closing(found.client()) as client:
        repository, _, tag = BASE.partition(":")
        offline = ["ENV PIP_NO_INDEX=1", "ENV PIP_FIND_LINKS=/wheels", "ENV PIP_DISABLE_PIP_VERSION_CHECK=1"]
        path = "ENV PATH=/usr/local/bin:/usr/bin:/bin"
        client.api.import_image_from_data(
            _base(_wheels(tmp_path_factory.mktemp("wheels"))), repository=repository, tag=tag, changes=[*offline, path]
        )
        client.images.build(
            fileobj=_context(), custom_context=True, tag=IMAGE, buildargs={"PYTHON": BASE}, rm=True, forcerm=True
        )
        yield client


@contextlib.contextmanager
def running(docker: Any, *options: str, **environ: str) -> Iterator[tuple[Any, str]]:
    """Run a container inside the block; yield it, and where it serves."""
    container = docker.containers.run(
        IMAGE, list(options), environment=environ, ports={"4437/tcp": ("127.0.0.1", 0)}, detach=True
    )
    try:
        until(lambda: _serves(container))
        container.reload()
        (bound,) = container.attrs["NetworkSettings"]["Ports"]["4437/tcp"]
        yield container, f"http://127.0.0.1:{bound['HostPort']}"
    finally:
        container.remove(force=True)


def _serves(container: Any) -> bool:
    container.reload()
    assert container.status in ("created", "running"), container.logs().decode()
    return b"serving http" in container.logs()


def ask(method: str, url: str, body: bytes | None = None, token: str | None = SECRET) -> tuple[int, bytes]:
    headers = {"Content-Type": "text/plain"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=20) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


@pytest.mark.timeout(400)
def test_image_serves_as_nobody_is_healthy_and_stops_in_order(docker: Any) -> None:
    environ = {"STREAMHUB_URL": "sqlite:////data/streams.db", "STREAMHUB_TOKEN": SECRET}
    with running(docker, "--access-log", **environ) as (container, url):
        assert ask("PUT", f"{url}/v1/stream/k", token=None)[0] == 401
        assert ask("PUT", f"{url}/v1/stream/k")[0] == 201
        assert ask("POST", f"{url}/v1/stream/k", b"from outside")[0] == 204
        assert ask("GET", f"{url}/v1/stream/k") == (200, b"from outside")
        check = docker.images.get(IMAGE).attrs["Config"]["Healthcheck"]["Test"]
        assert container.exec_run(check[1:]).exit_code == 0
        who = ["/opt/streamhub/bin/python", "-c", "import os; print(os.getuid(), os.access('/opt/streamhub', os.W_OK))"]
        assert container.exec_run(who).output == b"10001 False\n"

        begun = time.monotonic()
        container.stop(timeout=30)
        assert time.monotonic() - begun < 10
        assert container.wait()["StatusCode"] == 0
        logs = container.logs().decode()
        assert '"method":"POST"' in logs
        assert SECRET not in logs


@pytest.mark.timeout(400)
def test_image_does_not_start_open_by_mistake(docker: Any) -> None:
    container = docker.containers.run(IMAGE, environment={"STREAMHUB_URL": "memory://"}, detach=True)
    try:
        assert container.wait(timeout=60)["StatusCode"] == 2
        assert b"who may use the streams?" in container.logs()
    finally:
        container.remove(force=True)
