"""A model's endpoint for tests: real sockets, one script for each connection."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

CERTIFICATE = Path(__file__).parent / "data" / "localhost.pem"

Script = Callable[[socket.socket], None]


def event(text: str | None, **choice: Any) -> bytes:
    """One event of a reply, as endpoints write it."""
    delta = {} if text is None else {"content": text}
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, **choice}]}).encode() + b"\n\n"


def reply(*texts: str) -> bytes:
    """The events of a whole reply."""
    first = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
    return first + b"".join(map(event, texts)) + event(None, finish_reason="stop") + b"data: [DONE]\n\n"


def head(status: str = "200 OK", kind: str = "text/event-stream", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunked(body: bytes, size: int = 7) -> bytes:
    """The body in chunked transfer coding, cut without regard to events."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;note=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\nTrailer: x\r\n\r\n"


def sends(*pieces: bytes) -> Script:
    """A script that sends each piece as its own segment and closes."""

    def script(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return script


def by_byte(data: bytes) -> Script:
    """A script that sends every byte by itself."""
    return sends(*(data[at : at + 1] for at in range(len(data))))


@dataclass
class Endpoint:
    """The listening side. ``requests`` holds what came: (head, body)."""

    script: Script
    tls: bool = False
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()[:2]
        return f"https://localhost:{port}/v1" if self.tls else f"http://{host}:{port}/v1"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # the listener was closed
                return
            try:
                self._answer(connection)
            except (OSError, ValueError):
                pass  # the client went away
            finally:
                connection.close()

    def _answer(self, plain: socket.socket) -> None:
        plain.settimeout(20)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection: socket.socket = plain
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            connection = context.wrap_socket(plain, server_side=True)
        with connection:
            self.requests.append(_request(connection))
            self.script(connection)


def _request(connection: socket.socket) -> tuple[str, dict[str, Any]]:
    with connection.makefile("rb") as file:
        lines = list(iter(file.readline, b"\r\n"))
        sizes = [int(line.partition(b":")[2]) for line in lines if line.lower().startswith(b"content-length:")]
        return b"".join(lines).decode(), json.loads(file.read(*sizes))
