"""What the benchmark of the Durable Streams server serves with uvicorn: the other one that is written in Python."""

from __future__ import annotations

from starlette.types import ASGIApp


def rakaia() -> ASGIApp:
    """Streams in the memory of rakaia."""
    from rakaia import create_app

    return create_app()
