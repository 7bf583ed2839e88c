"""A server of Durable Streams that stops, or dies as if the kernel had killed it, at one point of its work.

``GET /arm/kill after append`` sets such a trap: what happens, and where, once. ``GET /subscribed`` tells how often
something was subscribed to here, so that a test knows that a reader waits.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from streamhub import Event, Hub
from streamhub.types import Append
from streamhub.web.durable import DurableStreams

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}

armed: list[str] = []


def spring(place: str) -> None:
    """Do what was asked for at this place."""
    for trap in armed:
        what, _, where = trap.partition(" ")
        if where == place:
            armed.remove(trap)
            signal.pthread_kill(threading.get_ident(), SIGNALS[what])  # this thread runs no further
            return


class Trapped:
    """A store, or a lease manager, with places for traps."""

    def __init__(self, part: Any) -> None:
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    async def open(self, *args: Any, **given: Any) -> Any:
        info = await self._part.open(*args, **given)
        spring("after open")
        return info

    async def append(self, batch: Sequence[Append]) -> Any:
        spring("before append")
        answers = await self._part.append(batch)
        spring("after append")
        return answers

    async def acquire(self, *args: Any, **given: Any) -> Any:
        spring("before acquire")
        return await self._part.acquire(*args, **given)


subscribed: list[str | None] = []


def observe(event: Event) -> None:
    if event.name == "subscribe":
        subscribed.append(event.key)


hub = Hub.from_env(observer=observe)
hub.store, hub.leases = Trapped(hub.store), Trapped(hub.leases)


def arm(request: Request) -> JSONResponse:
    """Set a trap."""
    armed.append(request.path_params["trap"])
    return JSONResponse(armed)


app = Starlette(
    routes=[
        Route("/arm/{trap}", arm),
        Route("/subscribed", lambda request: JSONResponse(subscribed)),
        Mount("/", app=DurableStreams(hub, authorize=None)),
    ],
    lifespan=hub.lifespan,
)
