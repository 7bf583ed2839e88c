"""What the instances of the end-to-end tests run: chats and plain streams, whose text and pace the prompt says."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from streamhub import Hub, Producer, StreamHubError
from streamhub.web import Answer, Asked, sse_routes
from streamhub.web.aisdk import ChatRequest, as_message, chat_routes

CALLS = Path(os.environ["CALLS"])


def words_of(prompt: str) -> tuple[list[str], float]:
    """Read ``"40 words, 20 ms"``: how many words, and how long each takes."""
    count, milliseconds = (int(part.split()[0]) for part in prompt.split(","))
    return [f"word-{number} " for number in range(count)], milliseconds / 1000


def called(what: str) -> None:
    """Note that a model was called."""
    with CALLS.open("a") as file:
        file.write(f"{what}\n")


async def say(producer: Producer, prompt: str) -> AsyncIterator[str]:
    """Say the words that are not said yet."""
    said = "".join([json.loads(chunk.data).get("delta", "") async for chunk in producer.history()])
    called(f"{producer.key} {producer.run} {len(said)}")
    words, seconds = words_of(prompt)
    for word in words[said.count(" ") :]:
        yield word
        await asyncio.sleep(seconds)


async def say_in_ag_ui(producer: Producer, prompt: str) -> AsyncIterator[str]:
    """Say the words as AG-UI events."""
    ids = {"threadId": producer.key, "runId": producer.run}
    yield json.dumps({"type": "RUN_STARTED", **ids})
    yield json.dumps({"type": "TEXT_MESSAGE_START", "messageId": producer.run, "role": "assistant"})
    async for word in say(producer, prompt):
        yield json.dumps({"type": "TEXT_MESSAGE_CONTENT", "messageId": producer.run, "delta": word})
    yield json.dumps({"type": "TEXT_MESSAGE_END", "messageId": producer.run})
    yield json.dumps({"type": "RUN_FINISHED", **ids})


def answer_chat(chat: ChatRequest) -> Answer:
    """Answer what ``useChat`` asks."""
    prompt = chat.messages[-1]["parts"][0]["text"]
    return Answer(source=lambda producer: say(producer, prompt), metadata={"prompt": prompt})


def answer_plain(asked: Asked) -> Answer:
    """Answer a plain request, or one of AG-UI."""
    messages = asked.body.get("messages")
    if not messages:
        prompt = asked.body["prompt"]
        return Answer(source=lambda producer: say_plainly(producer, prompt), run=asked.run)
    content: Any = messages[-1].get("content") or messages[-1]["parts"][0]["content"]
    return Answer(source=lambda producer: say_in_ag_ui(producer, content), run=asked.run)


async def say_plainly(producer: Producer, prompt: str) -> AsyncIterator[str]:
    """Say the words as JSON texts."""
    called(f"{producer.key} {producer.run}")
    words, seconds = words_of(prompt)
    for word in words:
        yield json.dumps(word)
        await asyncio.sleep(seconds)


async def take_over(hub: Hub) -> None:
    """Go on with the chats of dead instances."""
    while True:
        await asyncio.sleep(0.2)
        try:
            async for key in hub.orphans("chat:"):
                info = await hub.info(key)
                if info is not None:
                    prompt = str(info.metadata["prompt"])
                    source = as_message(lambda producer, prompt=prompt: say(producer, prompt))
                    await hub.start(key, source, run=info.run, unfinished="resume")
        except StreamHubError:
            continue  # another instance was faster


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with hub.lifespan(app), asyncio.TaskGroup() as tasks:
        worker = tasks.create_task(take_over(hub))
        yield
        worker.cancel()


hub = Hub.from_env()
NODE = Path(__file__).parent / "node"
app = Starlette(
    routes=[
        *chat_routes(hub, answer_chat, authorize=None, linger_seconds=float(os.environ.get("LINGER", "60"))),
        *sse_routes(hub, answer=answer_plain, authorize=None, path="/s", wait=5),
        Route("/", lambda request: FileResponse(NODE / "page.html")),
        Mount("/node", StaticFiles(directory=NODE)),
    ],
    middleware=[Middleware(CORSMiddleware, allow_origins=["*"], allow_headers=["*"], allow_methods=["*"])],
    lifespan=lifespan,
)
