"""What producers and readers of Durable Streams ask of instances; messages are JSON, so that each can be told apart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from http_client import PATIENCE_SECONDS, Reply, request

JSON = {"Content-Type": "application/json"}

Live = Literal["sse", "long-poll"]
MODES: tuple[Live, ...] = ("sse", "long-poll")


@dataclass(frozen=True)
class Answer:
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def messages(self) -> list[Any]:
        """What a read gave."""
        return json.loads(self.body) if self.body else []

    @property
    def offset(self) -> str:
        """Where the stream, or a reader of it, is."""
        return self.headers["stream-next-offset"]

    @property
    def closed(self) -> bool:
        """Whether it says that nothing more comes."""
        return self.headers.get("stream-closed") == "true"


class LostError(Exception):
    """The instance did not answer: nobody knows what became of the request."""


async def ask(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
    """Send a request over a connection of its own; ``LostError`` if no whole answer comes."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    sized = {} if method in ("GET", "HEAD") else {"Content-Length": str(len(body))}
    try:
        async with request(port, path, method=method, headers={**JSON, **sized, **given}, body=body) as reply:
            answer = Answer(reply.status, reply.headers, await reply.body())
            lost = reply.ending != "clean"
    except (ConnectionError, asyncio.IncompleteReadError) as exc:
        raise LostError from exc
    if lost:
        raise LostError
    return answer


def claim(producer: str, epoch: int, seq: int) -> dict[str, str]:
    """Return the headers of an idempotent producer's write."""
    return {"Producer_Id": producer, "Producer_Epoch": str(epoch), "Producer_Seq": str(seq)}


async def create(port: int, path: str, *messages: Any, **headers: str) -> Answer:
    """Create a stream."""
    return await ask(port, "PUT", path, json.dumps(messages).encode() if messages else b"", **headers)


async def append(port: int, path: str, *messages: Any, **headers: str) -> Answer:
    """Append messages."""
    return await ask(port, "POST", path, json.dumps(messages).encode(), **headers)


async def close(port: int, path: str, **headers: str) -> Answer:
    """Close a stream."""
    return await ask(port, "POST", path, Stream_Closed="true", **headers)


async def read(port: int, path: str, offset: str = "-1", **query: str) -> Answer:
    """Read once."""
    fields = "".join(f"&{name}={value}" for name, value in query.items())
    return await ask(port, "GET", f"{path}?offset={offset}{fields}")


async def stored(port: int, path: str) -> list[Any]:
    """Return all messages of a stream."""
    found: list[Any] = []
    offset = "-1"
    while True:
        answer = await read(port, path, offset)
        assert answer.status == 200, answer
        found += answer.messages
        offset = answer.offset
        if "stream-up-to-date" in answer.headers:
            return found


async def persist(ports: Sequence[int], path: str, *messages: Any, **headers: str) -> Answer:
    """Append as a producer does that does not give up: at one instance after the other until one answers."""
    async with asyncio.timeout(2 * PATIENCE_SECONDS):
        while True:
            for port in ports:
                try:
                    answer = await append(port, path, *messages, **headers)
                except LostError:
                    continue
                if answer.status != 503:
                    return answer
            await asyncio.sleep(0.05)


class Reader:
    """Reads a stream live, and comes again where it was, at the next instance, whenever an answer ends."""

    def __init__(self, ports: Sequence[int], path: str, live: Live, offset: str) -> None:
        self.seen: list[Any] = []
        self.offset = offset
        self.end: str | None = None  # "closed", or the status that says that the stream cannot be read on
        self.ending: str | None = None  # how the stream ended, when it was not completed
        self._ports = ports
        self._path = path
        self._live: Live = live
        self._news = asyncio.Condition()

    async def run(self) -> None:
        """Read to the end."""
        turn = 0
        while self.end is None:
            port = self._ports[turn % len(self._ports)]
            turn += 1
            try:
                async with request(port, f"{self._path}?offset={self.offset}&live={self._live}") as reply:
                    await self._take(reply)
            except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                await asyncio.sleep(0.05)
        async with self._news:
            self._news.notify_all()

    async def _take(self, reply: Reply) -> None:
        if reply.status == 503:
            await asyncio.sleep(0.05)
        elif reply.status not in (200, 204):
            self.end = str(reply.status)
        elif self._live == "sse":
            await self._events(reply)
        else:
            body = await reply.body()
            if reply.ending == "clean":
                closed = reply.headers.get("stream-closed") == "true"
                messages = json.loads(body) if body else []
                await self._got(
                    messages, reply.headers["stream-next-offset"], closed, reply.headers.get("streamhub-end")
                )

    async def _events(self, reply: Reply) -> None:
        messages: list[Any] = []
        while (event := await reply.event()) is not None:
            if event.name == b"data":
                messages += json.loads(event.data)
            elif event.name == b"control":
                said = json.loads(event.data)
                closed = said.get("streamClosed", False)
                await self._got(messages, said["streamNextOffset"], closed, said.get("streamhubEnd"))
                messages = []

    async def _got(self, messages: list[Any], offset: str, closed: bool, ending: str | None) -> None:
        async with self._news:
            self.seen += messages
            self.offset = offset
            if closed:
                self.end, self.ending = "closed", ending
            self._news.notify_all()

    async def has(self, count: int) -> list[Any]:
        """Wait until so many messages came; return all."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            await self._news.wait_for(lambda: len(self.seen) >= count or self.end is not None)
        return self.seen

    async def ended(self, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait until the reader was told that nothing more comes; return what it was told."""
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: self.end is not None)
        assert self.end is not None
        return self.end


@asynccontextmanager
async def reading(*ports: int, path: str, live: Live, offset: str = "-1") -> AsyncIterator[Reader]:
    """Read a stream live inside the block."""
    reader = Reader(ports, path, live, offset)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(reader.run())
        try:
            yield reader
        finally:
            task.cancel()
