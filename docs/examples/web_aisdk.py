from starlette.applications import Starlette

from streamhub import Hub
from streamhub.web import Answer
from streamhub.web.aisdk import chat_routes

hub = Hub.from_env()


async def model(prompt):  # stands in for an LLM call; an adapter such as from_openai_chat goes around a real one
    for word in f"You said: {prompt}".split():
        yield word + " "


def answer(chat):
    prompt = chat.messages[-1]["parts"][0]["text"]
    return Answer(source=lambda producer: model(prompt))


async def authorize(request, key, action):
    return request.headers.get("authorization") == "Bearer secret"


app = Starlette(routes=chat_routes(hub, answer, authorize=authorize), lifespan=hub.lifespan)
