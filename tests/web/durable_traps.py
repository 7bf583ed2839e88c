"""A server of Durable Streams that a request's header stops, or kills as the kernel does, at one point of its work.

``X-Trap: kill after append`` is such a header: what happens, and where. ``GET /subscribed`` tells how often something
was subscribed to here, so that a test knows that a reader waits.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from streamhub import Event, Hub
from streamhub.types import Append
from streamhub.web.durable import DurableStreams

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}

_chosen: ContextVar[str] = ContextVar("chosen", default="")


def spring(place: str) -> None:
    """Do what the present request asked for at this place, once."""
    what, _, where = _chosen.get().partition(" ")
    if where == place:
        _chosen.set("")
        signal.pthread_kill(threading.get_ident(), SIGNALS[what])  # this thread runs no further


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
streams = DurableStreams(hub, authorize=None)


async def trapped(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a request; it may hold a trap."""
    _chosen.set(dict(scope["headers"]).get(b"x-trap", b"").decode())
    await streams(scope, receive, send)


app = Starlette(
    routes=[Route("/subscribed", lambda request: JSONResponse(subscribed)), Mount("/", app=trapped)],
    lifespan=hub.lifespan,
)
