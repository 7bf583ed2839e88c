"""What is built, what it installs, and that it works there: with pip, with uv, as wheel, from sdist and editable."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = (
    "streamhub",
    "streamhub_memory",
    "streamhub_sqlite",
    "streamhub_redis",
    "streamhub_postgres",
    "streamhub_nats",
)
PIP = "pip==23.2.1"  # the oldest that must work

pytestmark = pytest.mark.timeout(90)

# Runs in the clean environment: a stream from one hub to another, on both embedded backends.
USE = """
import asyncio, sys
from streamhub import Hub

async def use(url):
    async with Hub.from_url(url) as writer, Hub.from_url(url) as reader:
        async with writer.produce("chat:1", run="one") as producer:
            for data in ("tell ", b"\\x00\\xff", " me"):
                await producer.send(data)
        got = [chunk.data async for chunk in reader.subscribe("chat:1", run="one", wait=5)]
    assert got == [b"tell ", b"\\x00\\xff", b" me"], got

asyncio.run(use("memory://packaging"))
asyncio.run(use("sqlite:///used.db"))
import streamhub
print(streamhub.__file__)
"""

# Prints every module that the core has loaded from outside the standard library, but for its own.
IMPORTS = """
import sys
before = set(sys.modules)
import streamhub
extra = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(extra - sys.stdlib_module_names - {"streamhub"}))
"""


@dataclass(frozen=True)
class Python:
    """A clean environment, and how to run things in it."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    def run(self, *args: str | Path, cwd: Path | None = None) -> str:
        return call(self.bin / "python", "-P", *args, cwd=cwd or self.folder)

    def pip(self, *args: str | Path) -> str:
        return self.run("-m", "pip", "--disable-pip-version-check", "--no-input", *args)

    def streamhub(self, *args: str) -> str:
        return call(self.bin / "streamhub", *args, cwd=self.folder)


def call(*command: str | Path, cwd: Path) -> str:
    # Nothing of this process's Python may reach the other one's.
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "STREAMHUB"))
    }
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that building leaves nothing in them."""
    target = tmp_path_factory.mktemp("tree") / "streamhub"
    ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "dist", "build", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, target, ignore=ignored)
    return target


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and with the wheel that was built from that sdist."""
    target = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", target, tree, cwd=tree)
    return target


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (found,) = built.glob("*.tar.gz")
    return found


def make_environment(folder: Path) -> Python:
    venv.create(folder, with_pip=True, symlinks=True)
    python = Python(folder)
    python.pip("install", "--quiet", PIP)
    return python


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """An environment with nothing but pip 23.2."""
    return make_environment(tmp_path_factory.mktemp("clean"))


@pytest.fixture(scope="module")
def with_wheel(clean: Python, wheel: Path) -> Python:
    clean.pip("install", "--quiet", "--no-index", wheel)
    return clean


def wheel_files(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def sources() -> list[str]:
    """Every file of the import packages, as it must appear in a wheel."""
    homes = {
        ROOT: ["streamhub"],
        ROOT / "backends": [path.name for path in (ROOT / "backends").iterdir() if path.is_dir()],
    }
    return [
        str(path.relative_to(home))
        for home, packages in homes.items()
        for package in packages
        for path in (home / package).rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".pyo")
    ]


def test_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    files = {name for name in wheel_files(wheel) if ".dist-info/" not in name}

    assert files == set(sources())
    assert {name.partition("/")[0] for name in files} >= set(PACKAGES)


def test_wheel_holds_types_statements_and_licence_but_no_tests(wheel: Path) -> None:
    files = wheel_files(wheel)

    for package in PACKAGES:
        assert f"{package}/py.typed" in files
    assert any(name.startswith("streamhub_sqlite/") and name.endswith(".sql") for name in files)
    assert any(name.startswith("streamhub_postgres/sql/migrations/") and name.endswith(".sql") for name in files)
    assert any(name.startswith("streamhub_redis/lua/") and name.endswith(".lua") for name in files)
    assert any(name.endswith("/licenses/LICENSE") for name in files)
    assert not [name for name in files if name.startswith(("tests", "test_", "backends", "docs", "benchmarks"))]


def test_wheel_metadata_is_what_the_project_says(wheel: Path) -> None:
    facts = metadata(wheel)

    assert facts["Name"] == "streamhub-py"
    assert facts["License-Expression"] == "MIT"
    assert facts["Requires-Python"] == ">=3.11"
    assert facts["Description-Content-Type"] == "text/markdown"
    assert not [needed for needed in facts.get_all("Requires-Dist", []) if "extra ==" not in needed]
    assert set(facts.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])


def test_extras_are_the_declared_ones() -> None:
    extras = PROJECT["optional-dependencies"]

    assert PROJECT["dependencies"] == []
    used = ("redis", "nats", "postgres", "web", "serve", "prometheus", "cli")
    assert {*used, "conformance", "all", "test", "dev"} == set(extras)
    assert sorted(extras["all"]) == sorted({needed for extra in used for needed in extras[extra]})
    assert {needed.partition(">")[0] for needed in extras["conformance"]} == {
        "pytest",
        "pytest-asyncio",
        "pytest-timeout",
    }


def test_wheel_declares_the_command_and_every_backend(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        declared = archive.read(name).decode()

    assert "streamhub = streamhub.cli:main" in declared
    for scheme in ("memory", "sqlite", "redis", "nats"):
        assert f"{scheme} = streamhub_{scheme}:" in declared
    for scheme in ("rediss", "unix", "redis+sentinel", "redis+cluster"):
        assert f"{scheme} = streamhub_redis:" in declared
    for scheme in ("postgresql", "postgres"):
        assert f"{scheme} = streamhub_postgres:" in declared
    for scheme in ("tls", "ws", "wss"):
        assert f"{scheme} = streamhub_nats:" in declared
    assert "pytest11" not in declared  # it would load streamhub into every user's test run


def test_sdist_holds_sources_tests_and_documents(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    for wanted in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "Makefile", "streamhub/py.typed",
                   "backends/streamhub_sqlite/py.typed", "tests/test_packaging.py"):  # fmt: skip
        assert wanted in names
    assert not [name for name in names if name.startswith((".venv", ".git/", ".ruff_cache")) or name.endswith(".pyc")]


def test_installed_wheel_streams_on_both_embedded_backends(with_wheel: Python) -> None:
    used = with_wheel.run("-c", USE)

    assert used.strip().startswith(str(with_wheel.folder.resolve()))


def test_installed_command_works_by_name_and_as_a_module(with_wheel: Python) -> None:
    version = f"streamhub {PROJECT['version']}"

    assert "publish" in with_wheel.streamhub("--help")
    assert with_wheel.streamhub("--version").strip() == version
    assert with_wheel.run("-m", "streamhub", "--version").strip() == version
    assert with_wheel.streamhub("--url", "sqlite:///used.db", "doctor").startswith("FACT")


def test_installed_wheel_names_what_a_backend_needs(with_wheel: Python) -> None:
    said = with_wheel.run("-c", "from streamhub import ConfigError, Hub\ntry:\n    Hub.from_url('redis://localhost')\n"
                          "except ConfigError as exc:\n    print(exc)")  # fmt: skip

    assert "pip install 'streamhub-py[redis]'" in said


def test_web_side_without_starlette_names_the_extra(with_wheel: Python) -> None:
    said = with_wheel.run("-c", "try:\n    import streamhub.web\nexcept ImportError as exc:\n    print(exc)")

    assert "pip install 'streamhub-py[web]'" in said


def test_import_needs_nothing_but_the_standard_library(with_wheel: Python) -> None:
    assert with_wheel.run("-c", IMPORTS).strip() == "[]"
    assert "streamhub-py" in with_wheel.pip("list")
    with_wheel.pip("check")


def test_conformance_without_pytest_names_the_extra(with_wheel: Python) -> None:
    command = [with_wheel.bin / "streamhub", "--url", "memory://", "conformance"]
    done = subprocess.run(command, cwd=with_wheel.folder, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "pip install 'streamhub-py[conformance]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_uv_installs_and_uses_the_wheel(wheel: Path, tmp_path: Path) -> None:
    uv = (sys.executable, "-m", "uv")
    python = Python(tmp_path / "env")
    call(*uv, "venv", "--quiet", "--offline", "--python", sys.executable, python.folder, cwd=tmp_path)
    call(*uv, "pip", "install", "--quiet", "--offline", "--python", python.bin / "python", wheel, cwd=tmp_path)

    assert python.run("-c", USE).strip().startswith(str(python.folder.resolve()))
    assert "publish" in python.streamhub("--help")


def test_sdist_builds_the_same_wheel_as_the_sources(sdist: Path, wheel: Path, tree: Path, tmp_path: Path) -> None:
    call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=tree)
    (direct,) = tmp_path.glob("*.whl")

    assert sorted(wheel_files(direct)) == sorted(wheel_files(wheel))


def test_pip_installs_the_sdist(sdist: Path, clean: Python, tmp_path: Path) -> None:
    """With build isolation: what [build-system] requires is enough, also for this pip."""
    clean.pip("wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, sdist)

    (found,) = tmp_path.glob("*.whl")
    assert set(sources()) <= set(wheel_files(found))


def test_editable_install_sees_the_sources_and_type_checkers_do_too(tree: Path, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "env")
    python.pip("install", "--quiet", "--no-deps", "-e", f"{tree}[test]")

    assert python.run("-c", USE).strip() == str(tree / "streamhub" / "__init__.py")
    assert python.run("-c", "import streamhub_sqlite; print(streamhub_sqlite.__path__[0])").strip() == str(
        tree / "backends" / "streamhub_sqlite"
    )
    # Plain paths, not import hooks: pyright and mypy follow only those.
    path_files = python.folder.glob("lib/python*/site-packages/*.pth")
    lines = [line for path_file in path_files for line in path_file.read_text().splitlines()]
    assert {str(tree), str(tree / "backends")} <= set(lines)
    assert "publish" in python.streamhub("--help")


def test_the_test_extra_can_be_resolved(tree: Path, clean: Python) -> None:
    """A dry run of this pip's resolver: what `pip install -e '.[test]'` begins with."""
    planned = clean.pip("install", "--dry-run", "--ignore-installed", "-e", f"{tree}[test]")

    assert "streamhub-py-" in planned.rpartition("Would install")[2]
