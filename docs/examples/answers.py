"""Answers that outlive who asked for them. STREAMHUB_URL says where they are kept; nothing else here depends on it.

python answers.py ask 1 "Why is the sky blue?"   answers, and goes on if nobody reads
python answers.py follow 1 [OFFSET]              reads from the start, or from an offset on; from any process
python answers.py cancel 1                       stops it; from any process
python answers.py tour                           does all of it in one process, as a web application would
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from streamhub import Chunk, Hub, StreamEndedError


async def model(question: str) -> AsyncIterator[str]:
    """Stand in for a language model; a story has no end."""
    for word in f"{question} Nobody knows, but everybody asks.".split():
        yield f"{word} "
    while "story" in question:
        await asyncio.sleep(0.01)
        yield "And then? "


async def answer(hub: Hub, message: str, question: str) -> str:
    """Begin to answer in the background; a question that is sent twice is answered once."""
    try:
        outcome = await hub.start(f"answer:{message}", lambda producer: model(question), run=message)
    except StreamEndedError:
        return "ended"
    return type(outcome).__name__.lower()


async def follow(hub: Hub, message: str, after: str | None = None) -> AsyncGenerator[Chunk | str]:
    """Yield an answer's chunks, and how it ended."""
    async with hub.subscribe(f"answer:{message}", run=message, after=after, wait=10) as subscription:
        async for chunk in subscription:
            yield chunk
    yield subscription.end.state if subscription.end else "?"


async def cancel(hub: Hub, message: str) -> str:
    """Stop an answer, whoever gives it."""
    return (await hub.cancel(f"answer:{message}", run=message, reason="stop button", wait=10)).state


async def say(hub: Hub, message: str, after: str | None = None, most: int = sys.maxsize) -> str | None:
    """Print an answer, or the first words of it, and return the last offset."""
    async with aclosing(follow(hub, message, after)) as parts:
        async for part in parts:
            if isinstance(part, str):
                print(f"[{part}]", flush=True)
                return after
            print(part.text, end="", flush=True)
            after, most = str(part.offset), most - 1
            if not most:
                print("[and so on]", flush=True)
                return after
    return after


async def tour(hub: Hub) -> None:
    """Ask, leave, come back where one left, ask again, stop a story, read it once more."""
    print(await answer(hub, "1", "Why is the sky blue?"))
    left = await say(hub, "1", most=4)
    await say(hub, "1", after=left)
    print(await answer(hub, "1", "Why is the sky blue?"))
    print(await answer(hub, "2", "Tell a story."))
    await say(hub, "2", most=5)
    print(await cancel(hub, "2"))
    await say(hub, "2", most=5)


async def main(command: str, *arguments: str) -> None:
    """Run a command."""
    async with Hub.from_env() as hub:
        if command == "ask":
            message, question = arguments
            print(await answer(hub, message, question))
            await say(hub, message)
        elif command == "follow":
            await say(hub, *arguments)
        elif command == "cancel":
            print(await cancel(hub, *arguments))
        else:
            await tour(hub)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
