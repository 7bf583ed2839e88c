"""The examples of docs/web.md: each in a uvicorn of its own, over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from http_client import Reply, request
from ports import free_port
from web_server import answering

from streamhub import Hub

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
JSON = {"Content-Type": "application/json"}
BEARER = {"Authorization": "Bearer secret"}


@asynccontextmanager
async def example(name: str, url: str) -> AsyncIterator[int]:
    """Run an example inside the block; yield its port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", name, "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, env={**os.environ, "STREAMHUB_URL": url, "PYTHONPATH": str(EXAMPLES)})
    try:
        await answering(port, process)
        yield port
    finally:
        process.kill()
        process.wait()


async def texts(reply: Reply) -> list[str]:
    return [event.data.decode() for event in await reply.events() if event.name == b"message"]


async def test_fastapi(tmp_path: Path) -> None:
    async with example("web_fastapi:app", f"sqlite:///{tmp_path}/s.db") as port:
        for _ in range(2):
            async with request(
                port, "/chats/1/messages/m", method="POST", headers=JSON, body=b'{"prompt": "hi"}'
            ) as reply:
                assert json.loads(await reply.body()) == {"run": "m"}
        async with request(port, "/chats/1/messages/m/events") as reply:
            assert "".join(await texts(reply)) == "You said: hi "
            assert reply.ending == "clean"
        async with request(port, "/chats/1/messages/m/events", headers={"Last-Event-ID": reply.last_id}) as reply:
            assert reply.status == 204


async def test_ai_sdk(tmp_path: Path) -> None:
    message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    body = json.dumps({"id": "c", "messages": [message], "trigger": "submit-message"}).encode()
    async with example("web_aisdk:app", f"sqlite:///{tmp_path}/s.db") as port:
        async with request(port, "/api/chat", method="POST", headers=JSON, body=body) as reply:
            assert reply.status == 403
        async with request(port, "/api/chat", method="POST", headers={**JSON, **BEARER}, body=body) as reply:
            assert reply.headers["x-vercel-ai-ui-message-stream"] == "v1"
            *chunks, done = await texts(reply)
        assert done == "[DONE]"
        assert "".join(json.loads(chunk).get("delta", "") for chunk in chunks) == "You said: hi "
        assert json.loads(chunks[0]) == {"type": "start", "messageId": "chat:c:m"}
        assert json.loads(chunks[-1]) == {"type": "finish"}


async def test_litestar(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    async with example("web_litestar:app", url) as port, Hub.from_url(url) as hub:
        async with hub.produce("k") as producer:
            await producer.send("one")
        async with request(port, "/streams/k") as reply:
            assert reply.status == 403
        async with request(port, "/streams/k", headers=BEARER) as reply:
            assert await texts(reply) == ["one"]
            assert reply.ending == "clean"


async def test_django(tmp_path: Path) -> None:
    async with example("web_django:application", f"sqlite:///{tmp_path}/s.db") as port:
        async with request(port, "/") as reply:
            assert await reply.body() == b"sent"
        async with request(port, "/streams/greeting") as reply:
            assert await texts(reply) == ["hello from a view"]
        async with request(port, "/streams/greeting/cancel", method="POST", headers=JSON) as reply:
            assert reply.status == 403
