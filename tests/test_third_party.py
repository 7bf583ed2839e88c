"""A backend from outside: built, installed beside streamhub in a clean environment, and held to the whole contract."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from streamhub.conformance.harness import CAPABILITIES

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "docs" / "examples" / "streamhub_shelf"
EXAMPLE_PACKAGE = EXAMPLE / "streamhub_shelf"

# By URL a backend declares "processes" only; these cases ask for more.
UNDECLARED = 12
# Those of them that the example's own harness makes possible, and its own test.
OWN_CASES = (
    "nothing_is_left_ or idle_hub_removes or backend_is_emptied or server_stops_answering or unfinished_does_not"
)
OWN = 6

COUNT = "from streamhub.conformance.suite import EXPECTED_CASES; print(EXPECTED_CASES)"

# What a backend may import of streamhub: see tests/test_architecture.py.
PUBLIC = {"streamhub", "streamhub.types", "streamhub.errors", "streamhub.protocols", "streamhub.rules",
          "streamhub.records", "streamhub.options", "streamhub.inputs"}  # fmt: skip


def call(*command: str | Path, cwd: Path) -> str:
    # Nothing of this process's Python may reach the other one's.
    hidden = ("PYTHON", "VIRTUAL_ENV", "STREAMHUB", "PYTEST")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the two wheels and what the extra ``conformance`` brings."""
    folder = tmp_path_factory.mktemp("third-party")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "dist", "build")
    for name, source in {"core": ROOT, "example": EXAMPLE}.items():
        tree = shutil.copytree(source, folder / name, ignore=ignored)
        call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "wheels", cwd=tree)
    (core,) = (folder / "wheels").glob("streamhub_py-*.whl")
    (example,) = (folder / "wheels").glob("streamhub_shelf-*.whl")
    venv.create(folder / "env", with_pip=True, symlinks=True)
    programs = folder / "env" / "bin"
    options = ("--quiet", "--disable-pip-version-check", "--no-input")
    call(programs / "python", "-m", "pip", "install", *options, f"{core}[conformance]", example, cwd=folder)
    return programs


@pytest.mark.timeout(120)  # the environment is made here
def test_its_scheme_is_found_through_the_entry_point(environment: Path, tmp_path: Path) -> None:
    url = f"shelf:///{tmp_path}/streams"

    told = call(environment / "streamhub", "doctor", "--url", url, cwd=tmp_path)

    assert re.search(r"\bmemory, .*\bshelf, sqlite", told)
    assert "survives the death of a process" in told


@pytest.mark.timeout(600)
def test_it_passes_the_whole_suite_by_url(environment: Path, tmp_path: Path) -> None:
    url = f"shelf:///{tmp_path}/{{unique}}"

    told = call(environment / "streamhub", "conformance", "--url", url, "-q", cwd=tmp_path)

    counts = re.search(
        r"(\d+) cases, (\d+) ran, (\d+) passed, (\d+) skipped for missing capabilities$", told, re.MULTILINE
    )
    assert counts is not None, told
    cases, ran, passed, skipped = map(int, counts.groups())
    reasons = {
        name: int(count) for count, name in re.findall(r"^  skipped (\d+): (\w+) is not declared", told, re.MULTILINE)
    }
    assert cases == int(call(environment / "python", "-c", COUNT, cwd=tmp_path)), told
    assert ran == passed == cases - skipped, told
    assert sum(reasons.values()) == skipped < cases / 10, told
    assert set(reasons) <= set(CAPABILITIES) - {"processes"}, told


@pytest.mark.timeout(120)
def test_its_own_tests_pass(environment: Path, tmp_path: Path) -> None:
    tests = shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    shutil.copy(EXAMPLE / "pyproject.toml", tmp_path)

    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", tests, "-k", OWN_CASES)
    told = call(environment / "python", *command, cwd=tmp_path)

    assert re.search(rf"^{OWN} passed, \d+ deselected", told, re.MULTILINE), told


def test_it_sees_only_what_is_public() -> None:
    for path in EXAMPLE_PACKAGE.glob("*.py"):
        imported = re.findall(r"^\s*(?:from|import) (streamhub[.\w]*)", path.read_text(), re.MULTILINE)
        foreign = {name for name in imported if name.partition(".")[0] == "streamhub"} - PUBLIC
        assert foreign == set(), f"{path.name} imports {foreign}"
