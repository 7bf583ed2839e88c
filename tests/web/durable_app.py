"""What the instances of the Durable Streams tests run."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.routing import Mount

from streamhub import Hub
from streamhub.web.durable import DurableStreams

hub = Hub.from_env()
streams = DurableStreams(
    hub,
    authorize=None,
    long_poll_seconds=float(os.environ.get("LONG_POLL_SECONDS", "1")),
    sse_seconds=float(os.environ.get("SSE_SECONDS", "60")),
)
app = Starlette(routes=[Mount("/", app=streams)], lifespan=hub.lifespan)
