from contextlib import suppress

from fastapi import Body, FastAPI

from streamhub import Hub, StreamEndedError
from streamhub.web import EventStream

hub = Hub.from_env()
app = FastAPI(lifespan=hub.lifespan)


async def model(prompt):  # stands in for an LLM call
    for word in f"You said: {prompt}".split():
        yield word + " "


@app.post("/chats/{chat}/messages/{message}")
async def post(chat: str, message: str, prompt: str = Body(embed=True)):
    with suppress(StreamEndedError):  # sent twice, and answered: it is there to be read
        await hub.start(f"chat:{chat}", lambda producer: model(prompt), run=message, unfinished="replace")
    return {"run": message}


@app.get("/chats/{chat}/messages/{message}/events")
async def events(chat: str, message: str):
    return EventStream(hub, f"chat:{chat}", run=message)
