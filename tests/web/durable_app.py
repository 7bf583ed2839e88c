"""The Durable Streams server that the protocol's suite is run against."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Mount

from streamhub import Hub
from streamhub.web.durable import DurableStreams

hub = Hub.from_env()
app = Starlette(
    routes=[Mount("/", DurableStreams(hub, authorize=None, long_poll_seconds=0.5))],
    lifespan=hub.lifespan,
)
