"""What the benchmark of the web side serves: runs through ``EventStream``, and the same through sse-starlette.

Each event's data begins with the time at which it was made, in nanoseconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streamhub import Hub
from streamhub.web import sse_routes

STREAMS = int(os.environ.get("STREAMS", "0"))
RATE = float(os.environ.get("RATE", "1"))


def stamp() -> str:
    return f"{time.monotonic_ns():019d} and a few words"


async def paced(number: int) -> AsyncIterator[str]:
    """Yield stamps at the rate, on time and out of step with the other streams: a pause is not made up for."""
    loop = asyncio.get_running_loop()
    due = loop.time() + number / STREAMS / RATE
    while True:
        due = max(due + 1 / RATE, loop.time())
        await asyncio.sleep(due - loop.time())
        yield stamp()


def ours() -> Starlette:
    """Runs of a hub; with STREAMS it produces them itself."""
    hub = Hub.from_env()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with hub.lifespan(app):
            for number in range(STREAMS):
                await hub.start(f"k{number}", lambda producer, number=number: paced(number), run="r")
            yield
            await hub.drain(0)

    return Starlette(routes=sse_routes(hub, authorize=None), lifespan=lifespan)


def peer() -> Starlette:
    """The same events through sse-starlette, from a queue in memory for each client."""
    from sse_starlette import EventSourceResponse, ServerSentEvent

    queues: dict[str, set[asyncio.Queue[tuple[str, str]]]] = defaultdict(set)

    async def produce(stream: int) -> None:
        number = 0
        async for data in paced(stream):
            number += 1
            for queue in queues[f"k{stream}"]:
                queue.put_nowait((f"1-{number}", data))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(produce(number)) for number in range(STREAMS)]
            yield
            for task in tasks:
                task.cancel()

    async def events(request: Request) -> Response:
        queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        key = request.path_params["key"]

        async def body() -> AsyncIterator[ServerSentEvent]:
            queues[key].add(queue)
            try:
                while True:
                    event_id, data = await queue.get()
                    yield ServerSentEvent(data, id=event_id)
            finally:
                queues[key].discard(queue)

        return EventSourceResponse(body())

    return Starlette(routes=[Route("/{key}", events)], lifespan=lifespan)
