"""One streaming HTTP/1.1 request over asyncio: enough for a model's endpoint, with the standard library only.

Every way a response can break is an ``HttpError``; the end of a cut body is never taken for its real end.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Awaitable, Generator, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

CONNECT_SECONDS = 30.0
READ_BYTES = 64 * 1024
MAX_HEADERS = 256

T = TypeVar("T")


class HttpError(Exception):
    """The exchange broke. ``code`` is one word for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Response:
    """A response's status and headers (names in lower case), with its body still to come."""

    status: int
    reason: str
    headers: Mapping[str, str]
    reader: StreamReader
    idle_seconds: float

    async def body(self) -> AsyncGenerator[bytes]:
        """Yield the body as it comes, to its real end.

        Raises:
            HttpError: ``disconnected``, ``timeout`` or ``malformed``.
        """
        with _errors():
            async for data in _body(self.headers, self.reader, self.idle_seconds):
                yield data


@contextlib.asynccontextmanager
async def post(url: str, body: bytes, headers: Mapping[str, str], *, idle_seconds: float) -> AsyncGenerator[Response]:
    """Send a POST request; leaving the block closes the connection.

    Args:
        url: an ``http`` or ``https`` URL; a redirect is not followed.
        body: sent whole.
        headers: sent beside Host, Content-Length and Connection.
        idle_seconds: how long the server may be silent.
    """
    parts = urlsplit(url)
    with _errors():
        reader, writer = await _connect(parts)
    try:
        with _errors():
            writer.write(_head(parts, len(body), headers) + body)
            response = await _within(idle_seconds, _response(reader, idle_seconds))
        yield response
    finally:
        # Not waited for: a peer that does not answer the closing must not hold us.
        writer.transport.abort()


async def _connect(parts: SplitResult) -> tuple[StreamReader, StreamWriter]:
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise HttpError("connect_failed", "the URL must begin with http:// or https:// and name a host")
    context = ssl.create_default_context() if parts.scheme == "https" else None
    opening = asyncio.open_connection(parts.hostname, parts.port or (443 if context else 80), ssl=context)
    try:
        return await _within(CONNECT_SECONDS, opening)
    except TimeoutError as exc:
        raise HttpError("connect_failed", f"no connection within {CONNECT_SECONDS:g} s") from exc
    except OSError as exc:
        raise HttpError("connect_failed", "cannot connect to the endpoint") from exc  # subscribers read this


def _head(parts: SplitResult, size: int, headers: Mapping[str, str]) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    every = {"Host": host, "Content-Length": str(size), "Connection": "close", "User-Agent": "streamhub", **headers}
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in every.items())]
    if any(char in line for line in lines for char in "\r\n"):
        raise HttpError("malformed", "the URL or a header holds a line break")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


async def _response(reader: StreamReader, idle_seconds: float) -> Response:
    while True:
        version, _, rest = (await _line(reader)).partition(" ")
        code, _, reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or len(code) != 3 or not code.isdigit():
            raise HttpError("malformed", "the answer is not HTTP")
        headers = await _headers(reader)
        if not code.startswith("1"):  # 100 Continue and its like come before the answer
            return Response(int(code), reason, headers, reader, idle_seconds)


async def _headers(reader: StreamReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(MAX_HEADERS):
        line = await _line(reader)
        if not line:
            return headers
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    raise HttpError("malformed", f"more than {MAX_HEADERS} header lines")


async def _line(reader: StreamReader) -> str:
    return (await reader.readuntil(b"\n")).rstrip(b"\r\n").decode("latin-1")


async def _body(headers: Mapping[str, str], reader: StreamReader, idle_seconds: float) -> AsyncGenerator[bytes]:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        while size := _chunk_size(await _within(idle_seconds, _line(reader))):
            async for data in _sized(reader, size, idle_seconds):
                yield data
            await _within(idle_seconds, _line(reader))
    elif "content-length" in headers:
        async for data in _sized(reader, int(headers["content-length"]), idle_seconds):
            yield data
    else:
        while data := await _within(idle_seconds, reader.read(READ_BYTES)):
            yield data


def _chunk_size(line: str) -> int:
    size = int(line.partition(";")[0].strip(), 16)
    if size < 0:
        raise ValueError(line)
    return size


async def _within(seconds: float, awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(seconds):
        return await awaitable


async def _sized(reader: StreamReader, size: int, idle_seconds: float) -> AsyncGenerator[bytes]:
    while size > 0:
        data = await _within(idle_seconds, reader.read(min(size, READ_BYTES)))
        if not data:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(data)
        yield data


@contextlib.contextmanager
def _errors() -> Generator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise HttpError("timeout", "the endpoint was silent for too long") from exc
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError) as exc:
        raise HttpError("disconnected", "the endpoint closed the connection in the middle") from exc
    except (ValueError, asyncio.LimitOverrunError) as exc:
        raise HttpError("malformed", "the endpoint's answer is not HTTP") from exc
