"""Requests to an ASGI application in this process, without a server between: what was sent is what is seen."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        return self.headers.get(name)


@dataclass
class Client:
    """Sends requests to one application."""

    app: Any
    host: str = "test"
    base: dict[str, str] = field(default_factory=dict)

    async def __call__(
        self, method: str, path: str, body: bytes = b"", *, root: str = "", parts: int = 1, **headers: str
    ) -> Answer:
        """Send a request, its body in so many parts, and return the response."""
        path, _, query = path.partition("?")
        given = {**self.base, **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": root + path,
            "root_path": root, "query_string": query.encode(), "client": None, "server": ("test", 80),
            "headers": [(b"host", self.host.encode()), *((n.encode(), v.encode("latin-1")) for n, v in given.items())],
        }  # fmt: skip
        sent: list[dict[str, Any]] = []
        size = max(-(-len(body) // parts), 1)
        pieces = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
        left = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if not pieces:
                await left.wait()
                return {"type": "http.disconnect"}
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        names = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], names, b"".join(message.get("body", b"") for message in sent[1:]))
