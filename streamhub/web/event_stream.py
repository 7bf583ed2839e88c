"""``EventStream``: an ASGI response that gives a stream to one client, from where the client left off."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.background import BackgroundTask
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from streamhub.errors import InvalidOffsetError
from streamhub.hub import Hub
from streamhub.inputs import check_name, check_seconds
from streamhub.sse import CONTENT_TYPE
from streamhub.subscription import Subscription
from streamhub.types import Offset
from streamhub.web.connection import Connection
from streamhub.web.cursors import Cursor, cursor_of, parse_cursor
from streamhub.web.formats import EventFormat, PlainFormat
from streamhub.web.reading import Reading

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-type", CONTENT_TYPE.encode()),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
)


def takes_id_last(scope: Scope) -> bool:
    """Say whether an event's id should come after its data, for the client that asks.

    ``fetch-event-source`` needs that, and as an ``EventSource`` it asks for event streams by name. TanStack's client,
    which needs the id before the data, asks for anything.
    """
    return "text/event-stream" in Headers(scope=scope).get("accept", "")


class EventStream(Response):
    """Streams a run as server-sent events.

    The body ends cleanly only after the run's end. When the hub drains, the backend is lost or the client does not
    read, the connection is cut (``ResponseAbortedError`` reaches the server), and the client resumes by its last id.
    A client that has seen the end gets 204, at which an ``EventSource`` stops; so does one that has read nothing and
    finds no stream.
    """

    def __init__(
        self,
        hub: Hub,
        key: str,
        *,
        run: str | None = None,
        after: Offset | str | None = None,
        wait: float = 10.0,
        format: EventFormat | None = None,  # noqa: A002 - the field's word
        retry_seconds: float = 1.0,
        ping_seconds: float = 15.0,
        send_timeout_seconds: float = 30.0,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        """Prepare; nothing is read before the response is sent.

        Args:
            hub: an open hub.
            key: the stream.
            run: only this run.
            after: where to begin, if the request does not say it by ``Last-Event-ID`` or ``?after=``.
            wait: seconds to wait for a stream that is about to start, before anything is sent.
            format: how the run is written; default: ``PlainFormat`` with the id where this client needs it.
            retry_seconds: what the client is asked to wait before it reconnects, give or take a half of it.
            ping_seconds: after so much silence a comment is sent.
            send_timeout_seconds: a client that takes nothing for so long is cut off.
            headers: further headers.
            background: a task to run afterwards, as of every Starlette response.
        """
        self._hub = hub
        self._key = check_name(key)
        self._run = None if run is None else check_name(run, "run")
        self._after = Cursor(None) if after is None else parse_cursor(str(after))
        self._wait = check_seconds(wait, "wait", zero=True)
        self._format = format
        self._retry_seconds = check_seconds(retry_seconds, "retry_seconds")
        self._ping_seconds = check_seconds(ping_seconds, "ping_seconds")
        self._send_timeout_seconds = check_seconds(send_timeout_seconds, "send_timeout_seconds")
        self.status_code: int = 200
        self.background: BackgroundTask | None = background
        self.body: bytes = b""
        given = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        self.raw_headers: list[tuple[bytes, bytes]] = [*HEADERS, *(() if format is None else format.headers), *given]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            cursor = cursor_of(scope)
        except InvalidOffsetError:
            cursor = None
        answer = self._without_reading(scope, cursor)
        if answer is not None:
            await answer(scope, receive, send)
        elif cursor is not None:
            await self._read(cursor, scope, receive, send)
        if self.background is not None:
            await self.background()

    def _without_reading(self, scope: Scope, cursor: Cursor | None) -> Response | None:
        if cursor is None:
            return Response("invalid cursor", 400, media_type="text/plain")
        if scope["method"] == "HEAD":
            head = Response()
            head.raw_headers = self.raw_headers
            return head
        if cursor.ended and scope["method"] == "GET":
            return Response(status_code=204, headers={"cache-control": "no-store"})
        return None

    async def _read(self, cursor: Cursor, scope: Scope, receive: Receive, send: Send) -> None:
        connection = Connection(
            scope, receive, send, ping_seconds=self._ping_seconds, send_timeout_seconds=self._send_timeout_seconds
        )
        reading = Reading(
            connection,
            self._subscribe,
            self._format or PlainFormat(id_last=takes_id_last(scope)),
            cursor=cursor if cursor != Cursor(None) else self._after,
            headers=self.raw_headers,
            retry_seconds=self._retry_seconds,
            pinned=self._run is not None,
            # Only an EventSource knows 204, and it always sends GET; clients of fetch would try again for ever.
            may_refuse=scope["method"] == "GET" and not cursor.names_position,
        )
        with self._hub.on_drain(connection.hurry):
            await connection.serve(reading.run)

    def _subscribe(self, after: Offset | str | None) -> Subscription:
        return self._hub.subscribe(self._key, run=self._run, after=after, wait=self._wait, strict=False)
