"""What the benchmark of the Durable Streams server serves: ours, and the other one that is written in Python."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from streamhub import Hub
from streamhub.web.durable import DurableStreams


def ours() -> ASGIApp:
    """Streams of the hub that STREAMHUB_URL names."""
    hub = Hub.from_env()
    streams = DurableStreams(hub, authorize=None)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await streams(scope, receive, send)
        else:
            await _run(hub, receive, send)

    return app


async def _run(hub: Hub, receive: Receive, send: Send) -> None:
    await receive()
    async with hub:
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


def rakaia() -> ASGIApp:
    """Streams in the memory of rakaia."""
    from rakaia import create_app

    return create_app()
