"""A run that counts, resumable by whoever takes it over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from streamhub import Producer

COUNT = 200


async def count(producer: Producer) -> AsyncIterator[str]:
    """Say the numbers that are missing."""
    for number in range(producer.offset.index + 1, COUNT + 1):
        yield str(number)
        await asyncio.sleep(0.02)
