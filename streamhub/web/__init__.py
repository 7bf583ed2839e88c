"""Streams for browsers: server-sent events over ASGI, for Starlette and whatever its responses and routes fit into.

Needs the extra ``web`` (Starlette). ``streamhub.web.aisdk`` speaks the protocol of the AI SDK's ``useChat``.
"""

from importlib.util import find_spec

if find_spec("starlette") is None:
    raise ModuleNotFoundError("streamhub.web needs Starlette: pip install 'streamhub-py[web]'", name="starlette")

from streamhub.web.answers import Answer
from streamhub.web.authorization import Action, Authorize
from streamhub.web.event_stream import EventStream
from streamhub.web.formats import EventFormat, Gone, Payload, PlainFormat, Reset, Unreadable
from streamhub.web.routes import Answerer, Asked, KeyOf, sse_routes

__all__ = [
    "Action",
    "Answer",
    "Answerer",
    "Asked",
    "Authorize",
    "EventFormat",
    "EventStream",
    "Gone",
    "KeyOf",
    "Payload",
    "PlainFormat",
    "Reset",
    "Unreadable",
    "sse_routes",
]
