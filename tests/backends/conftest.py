"""What every test of ``sqlite://`` is given: a file of its own, and connections to it that are closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlite_support import Connect, connections


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "streams.db"


@pytest.fixture
async def connect(path: Path) -> AsyncIterator[Connect]:
    async with connections(path) as connect:
        yield connect
