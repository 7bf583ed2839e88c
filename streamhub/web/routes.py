"""Routes over a hub for any client of server-sent events: start, subscribe, cancel, info."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamhub.errors import BackendUnavailableError, ConfigError, HubClosedError, InvalidKeyError
from streamhub.hub import Hub
from streamhub.inputs import check_name
from streamhub.web.answers import RETRY_AFTER, Answer, start_answer
from streamhub.web.authorization import Action, Authorization, Authorize
from streamhub.web.event_stream import EventStream, takes_id_last
from streamhub.web.formats import Payload, PlainFormat, told
from streamhub.web.requests import read_object, text_field

CANCEL_WAIT_SECONDS = 5.0

KeyOf: TypeAlias = Callable[[Request], str]
"""Names the stream that a request is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for a new run. ``run`` is the name the client chose for it, in ``X-Run-Id`` or ``?run=``."""

    request: Request
    key: str
    run: str | None
    body: dict[str, Any]


Answerer: TypeAlias = Callable[[Asked], Answer | Awaitable[Answer]]
"""Makes the answer to a request; what is costly belongs into its source."""


def sse_routes(
    hub: Hub,
    *,
    authorize: Authorize | None,
    answer: Answerer | None = None,
    path: str = "",
    key: KeyOf | None = None,
    payload: Payload = "text",
    wait: float = 10.0,
    ping_seconds: float = 15.0,
    send_timeout_seconds: float = 30.0,
) -> list[Route]:
    """Make the routes ``GET {path}/{key}``, ``POST {path}/{key}``, ``POST …/cancel`` and ``GET …/info``.

    GET subscribes. POST starts a run, if ``answer`` is given, and streams it; with a ``Last-Event-ID`` it resumes, and
    never starts. ``?run=`` names a run. What is refused is an ``HTTPException``, for the application to show.

    Args:
        hub: an open hub.
        authorize: who may do what. ``None``, which lets everybody do everything, must be written out.
        answer: makes a new run's source; without it POST only resumes.
        path: what the routes' paths begin with.
        key: the stream's key for a request; default: the path's last part. A place for the tenant.
        payload: how chunks become data; see ``Payload``.
        wait: seconds that a subscriber waits for a stream that is about to start.
        ping_seconds, send_timeout_seconds: see ``EventStream``.
    """
    events = partial(
        EventStream,
        hub,
        wait=wait,
        ping_seconds=ping_seconds,
        send_timeout_seconds=send_timeout_seconds,
    )
    formats = PlainFormat(payload), PlainFormat(payload, id_last=True)
    routes = StreamRoutes(hub, authorize, answer, key, events, formats)
    return [
        Route(f"{path}/{{key}}", routes.subscribe, methods=["GET"]),
        Route(f"{path}/{{key}}", routes.start, methods=["POST"]),
        Route(f"{path}/{{key}}/cancel", routes.cancel, methods=["POST"]),
        Route(f"{path}/{{key}}/info", routes.info, methods=["GET"]),
    ]


class StreamRoutes:
    """The endpoints of ``sse_routes``."""

    def __init__(
        self,
        hub: Hub,
        authorize: Authorize | None,
        answer: Answerer | None,
        key: KeyOf | None,
        events: Callable[..., EventStream],
        formats: tuple[PlainFormat, PlainFormat],
    ) -> None:
        self._hub = hub
        self._authorization = Authorization(authorize)
        self._answer = answer
        self._key = key
        self._events = events
        self._formats = formats

    async def subscribe(self, request: Request) -> Response:
        """GET: read the stream."""
        key = await self._allowed(request, "subscribe")
        return self._stream(request, key, _run(request))

    async def start(self, request: Request) -> Response:
        """POST: start a run and read it, or go on reading."""
        if request.headers.get("last-event-id"):
            return await self.subscribe(request)
        key = await self._allowed(request, "start")
        if self._answer is None:
            raise HTTPException(405, "nothing is started here", headers={"allow": "GET"})
        answer = self._answer(Asked(request=request, key=key, run=_run(request), body=await read_object(request)))
        if inspect.isawaitable(answer):
            answer = await answer
        return self._stream(request, key, await start_answer(self._hub, key, answer))

    async def cancel(self, request: Request) -> Response:
        """POST: ask that the run stop; ``run`` and ``reason`` are in the body."""
        key = await self._allowed(request, "cancel")
        body = await read_object(request)
        run = text_field(body, "run")
        run = None if run is None else named(run, "run")
        return JSONResponse(await cancel_run(self._hub, key, run, text_field(body, "reason")))

    async def info(self, request: Request) -> Response:
        """GET: say what the stream is. Metadata stays inside."""
        key = await self._allowed(request, "info")
        try:
            found = await self._hub.info(key)
        except (BackendUnavailableError, HubClosedError):
            raise HTTPException(503, "try again", headers=RETRY_AFTER) from None
        if found is None:
            raise HTTPException(404, "there is no such stream")
        return JSONResponse(
            {"run": found.run, "state": found.state, "tail": found.tail, "end": found.end and told(found.end)}
        )

    def _stream(self, request: Request, key: str, run: str | None) -> Response:
        response = self._events(key, run=run, format=self._formats[takes_id_last(request.scope)])
        if run is not None and run.isascii() and run.isprintable():
            response.headers["x-run-id"] = run
        return response

    async def _allowed(self, request: Request, action: Action) -> str:
        key = named(request.path_params["key"] if self._key is None else self._key(request), "key")
        await self._authorization.check(request, key, action)
        return key


async def cancel_run(hub: Hub, key: str, run: str | None, reason: str | None) -> dict[str, Any]:
    """Cancel a run and tell what came of it.

    Raises:
        HTTPException: 409 the run that is named is not the stream's any more.
    """
    try:
        found = await hub.info(key)
        if found is not None and run is not None and found.run != run:
            raise HTTPException(409, "another run has taken its place")
        result = await hub.cancel(key, run=run, reason=reason, wait=CANCEL_WAIT_SECONDS)
    except ConfigError:
        raise HTTPException(400, "the reason is too long") from None
    except (BackendUnavailableError, HubClosedError):
        raise HTTPException(503, "try again", headers=RETRY_AFTER) from None
    return {"state": result.state, "run": result.run, "end": result.end and told(result.end)}


def named(value: str, what: str) -> str:
    """Accept a key or a run's name, or raise 400, which does not repeat it."""
    try:
        return check_name(value, what)
    except InvalidKeyError:
        raise HTTPException(400, f"invalid {what}") from None


def _run(request: Request) -> str | None:
    query = request.query_params
    run = request.headers.get("x-run-id") or query.get("run") or query.get("runId")
    return named(run, "run") if run else None
