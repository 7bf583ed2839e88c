"""HTTP/1.1 as ``serve`` speaks it: uvicorn's, with bounds on what it keeps for one connection.

With httptools uvicorn itself has none for a request's head, nor for requests sent ahead: both may grow until the
process has no memory left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized

MAX_HEAD_BYTES = 64 * 1024


def protocol() -> type[asyncio.Protocol] | str:
    """Return uvicorn's setting ``http``."""
    try:
        return _bounded()
    except ImportError:  # no httptools, or none for this system
        return "h11"


def _bounded() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class InTurn(FlowControl):
        """Reads nothing more while requests wait for one before them."""

        def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
            super().__init__(transport)
            self._waiting = waiting

        def resume_reading(self) -> None:
            if not self._waiting:
                super().resume_reading()

    class Bounded(HttpToolsProtocol):
        """Closes a connection that sends so much without a head's end or a piece of a body; trailers are no headers."""

        pending_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            self.flow = InTurn(transport, self.pipeline)

        def data_received(self, data: bytes) -> None:
            self.pending_bytes += len(data)
            super().data_received(data)
            if self.pending_bytes > MAX_HEAD_BYTES:
                self.transport.abort()

        def on_headers_complete(self) -> None:
            self.pending_bytes = 0
            super().on_headers_complete()
            self.headers = []  # what comes after the body must not join what the application was given, and checks

        def on_body(self, body: bytes) -> None:
            self.pending_bytes = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self.pending_bytes = 0
            super().on_message_complete()

    return Bounded
