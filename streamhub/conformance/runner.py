"""Runs the suite on a backend by URL, in a pytest of its own: what ``streamhub conformance`` calls."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from streamhub.conformance.process import URL_VARIABLE
from streamhub.errors import BackendNotInstalledError
from streamhub.registry import open_url

NEEDED = ("pytest", "pytest_asyncio", "pytest_timeout")


def run(url: str, args: Sequence[str] = ()) -> int:
    """Run every case on the backend of ``url``; return pytest's exit status (0: all passed).

    Nothing of the current directory is read: no pytest configuration, no conftest. The URL travels in the
    environment, because process lists show arguments.

    Args:
        url: the backend. ``{unique}`` in it becomes a fresh name for each case.
        args: further arguments for pytest, such as ``-k fencing`` or ``-x``.

    Raises:
        ConfigError: the URL is wrong, or names a backend that is not installed.
        BackendNotInstalledError: pytest or a plugin of it is missing.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendNotInstalledError(
            f"the conformance suite needs {', '.join(missing)};"
            " install it with: pip install 'streamhub-py[conformance]'"
        )
    open_url(url)
    with tempfile.TemporaryDirectory(prefix="streamhub-conformance-") as empty:
        return subprocess.run(command(empty, args), env=os.environ | {URL_VARIABLE: url}, check=False).returncode


def command(root: str, args: Sequence[str]) -> list[str]:
    """Return the command line, with ``root`` as pytest's root directory."""
    return [
        *(sys.executable, "-m", "pytest"),
        *("-p", "streamhub.conformance.plugin"),
        *("-c", os.devnull),
        *("--rootdir", root),
        "--noconftest",
        "--strict-markers",
        *("-p", "no:cacheprovider"),
        *("-o", "asyncio_mode=strict"),
        *("-o", "asyncio_default_fixture_loop_scope=function"),
        *("-o", "xfail_strict=true"),
        *("-W", "error::pytest.PytestUnraisableExceptionWarning"),
        *("-W", "error::ResourceWarning"),
        *("-W", "error::RuntimeWarning"),
        *("--pyargs", "streamhub.conformance.run_by_url"),
        *args,
    ]
