"""The gate itself: skips are counted, and refused where they must be; the targets exist and install what they need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SKIPPING = """
import pytest

def test_that_runs(): pass

@pytest.mark.skipif(True, reason={reason!r})
def test_that_is_skipped(): pass
"""


def run_skipping(folder: Path, reason: str, *, required: str) -> subprocess.CompletedProcess[str]:
    """Run a test that is skipped for this reason, with the repository's conftest."""
    for name in ("conftest.py", "servers.py"):
        shutil.copy(ROOT / "tests" / name, folder / name)
    (folder / "test_skipping.py").write_text(SKIPPING.format(reason=reason))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", ".", "."],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "STREAMHUB_REQUIRE_SERVERS": required},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("reason", "required", "code"),
    [
        ("no server", "", 0),
        ("no server", "0", 0),
        ("no server", "1", 1),
        ("memory does not declare restart", "1", 0),
    ],
)
def test_skip_fails_the_session_only_where_servers_are_required(
    tmp_path: Path, reason: str, required: str, code: int
) -> None:
    done = run_skipping(tmp_path, reason, required=required)

    assert done.returncode == code, done.stdout + done.stderr
    assert "1 skipped, " in done.stdout
    assert f"1 x {reason}" in done.stdout
    assert ("FAILED: with STREAMHUB_REQUIRE_SERVERS=1" in done.stdout) == (code == 1)


def test_ci_runs_the_gate_with_every_server_required() -> None:
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("needs the repository, not only the sdist")

    assert os.access(script, os.X_OK)
    text = script.read_text()
    for wanted in ("set -eu", "STREAMHUB_REQUIRE_SERVERS=1", "make check test"):
        assert wanted in text
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0


@pytest.mark.parametrize("target", ["check", "test", "test-matrix", "demo", "bench"])
def test_every_target_sets_itself_up(tmp_path: Path, target: str) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

    done = subprocess.run(
        ["make", "-n", target, f"PYTHON={sys.executable}"],
        cwd=tmp_path, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "-m venv .venv" in done.stdout
    assert re.search(r"pip install .* -e '\.\[all,test,dev\]'", done.stdout)
