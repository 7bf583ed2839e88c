"""Standard input as chunks: by line, or as it is read."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from streamhub.cli.running import read_some
from streamhub.errors import StreamFailure

STDIN = 0


async def reads(fd: int = STDIN, *, max_bytes: int) -> AsyncGenerator[bytes]:
    """Yield what each read gives, in pieces of at most ``max_bytes``."""
    while True:
        try:
            data = await read_some(fd)
        except OSError as exc:
            raise StreamFailure(f"standard input: {exc.strerror}", code="read_failed") from exc
        if not data:
            return
        for start in range(0, len(data), max_bytes):
            yield data[start : start + max_bytes]


async def lines(fd: int = STDIN, *, max_bytes: int) -> AsyncGenerator[bytes]:
    """Yield lines with their line feed, the last one perhaps without; one beyond ``max_bytes`` comes in pieces."""
    held = bytearray()
    async with aclosing(reads(fd, max_bytes=max_bytes)) as pieces:
        async for data in pieces:
            # Not splitlines: it would also split at a carriage return.
            *ended, rest = data.split(b"\n")
            for part in (*(line + b"\n" for line in ended), rest):
                if held and len(held) + len(part) > max_bytes:
                    yield bytes(held)
                    held.clear()
                held += part
                if part.endswith(b"\n"):
                    yield bytes(held)
                    held.clear()
    if held:
        yield bytes(held)
