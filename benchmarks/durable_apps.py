"""What the benchmark of the Durable Streams server serves: ours, and the other one that is written in Python."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from streamhub import Hub
from streamhub.web.durable import DurableStreams
from streamhub.web.server.lifespan import live


def ours() -> ASGIApp:
    """Streams of the hub that STREAMHUB_URL names."""
    hub = Hub.from_env()
    streams = DurableStreams(hub, authorize=None)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await streams(scope, receive, send)
        else:
            await live(hub, receive, send)

    return app


def rakaia() -> ASGIApp:
    """Streams in the memory of rakaia."""
    from rakaia import create_app

    return create_app()
