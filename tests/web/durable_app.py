"""The Durable Streams application that the official clients are run against; the protocol's suite has serve."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.routing import Mount

from streamhub import Hub
from streamhub.web.durable import DurableStreams

hub = Hub.from_env()
streams = DurableStreams(
    hub, authorize=None, long_poll_seconds=0.5, sse_seconds=float(os.environ.get("SSE_SECONDS", "60"))
)
app = Starlette(routes=[Mount("/", streams)], lifespan=hub.lifespan)
