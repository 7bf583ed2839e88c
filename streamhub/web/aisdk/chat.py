"""The routes that ``useChat`` calls: send a message, resume its answer, stop it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamhub.errors import BackendUnavailableError, HubClosedError, InvalidOffsetError, StreamHubError
from streamhub.hub import Hub
from streamhub.types import Offset, StreamInfo
from streamhub.web.aisdk.chat_format import ChatFormat, read_chunk
from streamhub.web.aisdk.message import ENDED_AT, as_message
from streamhub.web.aisdk.parts import OpenParts
from streamhub.web.answers import RETRY_AFTER, Answer, start_answer
from streamhub.web.authorization import Action, Authorization, Authorize
from streamhub.web.cursors import Cursor, cursor_of
from streamhub.web.event_stream import EventStream
from streamhub.web.requests import read_object, text_field
from streamhub.web.routes import cancel_run, named

BEGIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What ``useChat`` sends. The messages are the client's word: check what you let into a prompt.

    Attributes:
        id: the chat.
        key: its stream.
        messages: the chat's UI messages; the last one is the new one.
        trigger: ``submit-message`` or ``regenerate-message``.
        message_id: the message that is regenerated or replaced, if any.
        body: everything that was sent, with what the application added on its side.
    """

    request: Request
    id: str
    key: str
    messages: list[dict[str, Any]]
    trigger: str
    message_id: str | None
    body: dict[str, Any]

    @property
    def run(self) -> str | None:
        """The run that answers this request: the same if it is sent twice. None where the client gave no id."""
        last = self.messages[-1].get("id") if self.messages else None
        if not isinstance(last, str) or not last or self.trigger != "submit-message":
            return None
        return last


ChatAnswerer: TypeAlias = Callable[[ChatRequest], Answer | Awaitable[Answer]]
"""Answers a message. The answer's source yields UI message chunks, text, or both; without a run it gets the request's.
"""


def chat_routes(
    hub: Hub,
    answer: ChatAnswerer,
    *,
    authorize: Authorize | None,
    path: str = "/api/chat",
    key: Callable[[Request, str], str] | None = None,
    linger_seconds: float = 60.0,
    max_body_bytes: int = 4 * 1024 * 1024,
    ping_seconds: float = 15.0,
    send_timeout_seconds: float = 30.0,
) -> list[Route]:
    """Make the routes ``POST {path}``, ``GET {path}/{id}/stream`` and ``POST {path}/{id}/stop``.

    Args:
        hub: an open hub.
        answer: answers a message; called for every request, its source only once.
        authorize: who may do what with which key. ``None``, which lets everybody, must be written out.
        path: the transport's ``api``.
        key: the stream's key for a chat; default ``chat:{id}``. A place for the tenant.
        linger_seconds: how long a finished answer is replayed to a client that has nothing of it; a client that names
            its position gets the rest for as long as it is kept.
        max_body_bytes: how much a client may send.
        ping_seconds, send_timeout_seconds: see ``EventStream``.
    """
    events = partial(EventStream, hub, ping_seconds=ping_seconds, send_timeout_seconds=send_timeout_seconds)

    def read(key: str, run: str | None, parts: OpenParts | None) -> EventStream:
        # A run that was joined may be about to begin, elsewhere; what is resumed is there, or never will be.
        return events(key, run=run, wait=0 if run is None else BEGIN_SECONDS, format=ChatFormat(parts))

    routes = ChatRoutes(hub, answer, authorize, key or _default_key, linger_seconds, max_body_bytes, read)
    return [
        Route(path, routes.send, methods=["POST"]),
        Route(f"{path}/{{id}}/stream", routes.resume, methods=["GET"]),
        Route(f"{path}/{{id}}/stop", routes.stop, methods=["POST"]),
    ]


def _default_key(_: Request, chat: str) -> str:
    return f"chat:{chat}"


class ChatRoutes:
    """The endpoints of ``chat_routes``."""

    def __init__(
        self,
        hub: Hub,
        answer: ChatAnswerer,
        authorize: Authorize | None,
        key: Callable[[Request, str], str],
        linger_seconds: float,
        max_body_bytes: int,
        read: Callable[[str, str | None, OpenParts | None], EventStream],
    ) -> None:
        self._hub = hub
        self._answer = answer
        self._authorization = Authorization(authorize)
        self._key = key
        self._linger_seconds = linger_seconds
        self._max_body_bytes = max_body_bytes
        self._read = read

    async def send(self, request: Request) -> Response:
        """POST: start the answer, or join it, and stream it from its start; with a ``Last-Event-ID`` only resume."""
        body = await read_object(request, max_bytes=self._max_body_bytes)
        chat = text_field(body, "id")
        if chat is None:
            raise HTTPException(400, "id is missing")
        cursor = _cursor(request)
        key = await self._allowed(request, chat, "subscribe" if cursor.names_position or cursor.ended else "start")
        if cursor.names_position or cursor.ended:
            return await self._stream(key, None, cursor)
        asked = _chat_request(request, chat, key, body)
        answer = self._answer(asked)
        if inspect.isawaitable(answer):
            answer = await answer
        return await self._stream(key, await self._started(asked, answer), Cursor(None))

    async def _started(self, asked: ChatRequest, answer: Answer) -> str:
        if answer.run is None and asked.run is not None:
            answer = replace(answer, run=named(asked.run, "message id"))
        return await start_answer(self._hub, asked.key, replace(answer, source=as_message(answer.source)))

    async def resume(self, request: Request) -> Response:
        """GET: stream the current answer from its start, or from the position the client names; else 204."""
        key = await self._allowed(request, request.path_params["id"], "subscribe")
        cursor = _cursor(request)
        if not cursor.names_position and not self._is_fresh(await self._info(key)):
            return Response(status_code=204, headers={"cache-control": "no-store"})
        return await self._stream(key, None, cursor)

    async def stop(self, request: Request) -> Response:
        """POST: end the answer for everybody; one that is not the current one any more is refused (409)."""
        key = await self._allowed(request, request.path_params["id"], "cancel")
        body = await read_object(request)
        run = text_field(body, "activeStreamId")
        run = None if run is None else named(run.removeprefix(f"{key}:"), "activeStreamId")
        return JSONResponse(await cancel_run(self._hub, key, run, "stopped"))

    # --- parts of these

    async def _allowed(self, request: Request, chat: str, action: Action) -> str:
        key = named(self._key(request, named(chat, "id")), "id")
        await self._authorization.check(request, key, action)
        return key

    async def _info(self, key: str) -> StreamInfo | None:
        try:
            return await self._hub.info(key)
        except (BackendUnavailableError, HubClosedError):
            raise HTTPException(503, "try again", headers=RETRY_AFTER) from None

    def _is_fresh(self, info: StreamInfo | None) -> bool:
        """Whether there is something to resume for a client that has nothing."""
        if info is None or info.end is None:
            return info is not None
        ended_at = info.metadata.get(ENDED_AT)
        # An answer that another process brought to its end has no time: it is shown for as long as it is kept.
        return not isinstance(ended_at, (int, float)) or time.time() - ended_at < self._linger_seconds

    async def _stream(self, key: str, run: str | None, cursor: Cursor) -> EventStream:
        parts = await self._parts_before(key, cursor.after) if isinstance(cursor.after, Offset) else None
        response = self._read(key, run, parts)
        if run is not None and run.isascii() and run.isprintable():
            response.headers["x-run-id"] = run
        return response

    async def _parts_before(self, key: str, position: Offset) -> OpenParts:
        """Return the parts that are open at a position; what is wrong with it is told when it is subscribed to."""
        parts = OpenParts()
        info = await self._info(key)
        if info is None or not 0 < position.index <= info.tail:
            return parts
        with suppress(StreamHubError):
            async with self._hub.subscribe(key, run=info.run, strict=False) as subscription:
                async for chunk in subscription:
                    parts.follow(read_chunk(chunk))
                    if chunk.offset.index >= position.index:
                        break
        return parts


def _cursor(request: Request) -> Cursor:
    try:
        return cursor_of(request.scope)
    except InvalidOffsetError:
        raise HTTPException(400, "invalid cursor") from None


def _chat_request(request: Request, chat: str, key: str, body: dict[str, Any]) -> ChatRequest:
    messages: Any = body.get("messages", [])
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):  # pyright: ignore[reportUnknownVariableType]
        raise HTTPException(400, "messages must be a list of objects")
    return ChatRequest(
        request=request,
        id=chat,
        key=key,
        messages=messages,  # pyright: ignore[reportUnknownArgumentType]
        trigger=text_field(body, "trigger") or "submit-message",
        message_id=text_field(body, "messageId"),
        body=body,
    )
