"""The little of HTTP that the wrappers around the streams need, without a request or response object."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Scope, Send

Headers = Iterable[tuple[bytes, bytes]]


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return a request's first header of this name, which is in lower case."""
    for found, value in scope["headers"]:
        if found == name:
            return value
    return None


async def answer(send: Send, status: int, body: bytes = b"", headers: Headers = ()) -> None:
    """Send a whole response: text, unless a content type is given, and never cached."""
    every = [*headers, (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
    if body and not any(name == b"content-type" for name, _ in every):
        every.append((b"content-type", b"text/plain; charset=utf-8"))
    if status != 204:
        every.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": every})
    await send({"type": "http.response.body", "body": body})
