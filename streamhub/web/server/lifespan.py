"""The lifespan of a hub, as an ASGI server asks for it."""

from __future__ import annotations

from starlette.types import Receive, Send

from streamhub.errors import StreamHubError
from streamhub.hub import Hub


async def live(hub: Hub, receive: Receive, send: Send) -> None:
    """Open the hub when the server starts; drain and close it when the server stops.

    A hub that cannot be opened is told to the server in one line.
    """
    started = False
    await receive()
    try:
        async with hub.lifespan():
            started = True
            await send({"type": "lifespan.startup.complete"})
            await receive()
    except StreamHubError as exc:
        await send({"type": f"lifespan.{'shutdown' if started else 'startup'}.failed", "message": str(exc)})
        return
    await send({"type": "lifespan.shutdown.complete"})
