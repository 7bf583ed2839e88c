"""Hubs for the tests of the web side."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from streamhub import Hub, HubSettings

SETTINGS = HubSettings(lease_seconds=1, poll_seconds=0.2, outage_seconds=0.5)


@pytest.fixture
async def place() -> str:
    """A backend's URL that hubs of one test share."""
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
async def hub(place: str) -> AsyncIterator[Hub]:
    async with Hub.from_url(place, settings=SETTINGS) as hub:
        yield hub
