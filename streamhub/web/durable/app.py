"""``DurableStreams``: the ASGI application, which says what each method does to the stream that a path names."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from streamhub.errors import ConfigError, HubClosedError, ResponseAbortedError, StreamHubError
from streamhub.hub import Hub
from streamhub.inputs import MAX_SECONDS, check_count, check_name, check_retention, check_seconds, encode_json
from streamhub.types import Retention
from streamhub.web.authorization import Action, Authorization, Authorize
from streamhub.web.connection import Connection
from streamhub.web.durable.bodies import BadBodyError, TooManyMessagesError, messages_in
from streamhub.web.durable.creation import Creation, Creator
from streamhub.web.durable.headers import (
    CLOSED,
    FORK_HEADERS,
    NO_STORE,
    REQUEST_HEADERS,
    BadHeaderError,
    Given,
    Header,
    closes,
    configuration_headers,
    configuration_in,
    given_in,
)
from streamhub.web.durable.intake import BodyTooLargeError, BodyTooSlowError, ClientGoneError, read_body
from streamhub.web.durable.live import EventBody, Patience, wait_for_more
from streamhub.web.durable.offsets import BadQueryError, write_offset
from streamhub.web.durable.reader import Piece, Reader
from streamhub.web.durable.reading import Wanted, reply_to_catch_up, reply_to_long_poll, wanted_in
from streamhub.web.durable.responses import Reply, end_headers, refusal, reply_to_error, send_guarded, send_reply
from streamhub.web.durable.stored import DEFAULT_TYPE, tail_of
from streamhub.web.durable.writer import Writers
from streamhub.web.durable.writing import reply_to_write, write_in
from streamhub.web.requests import read_object, text_field
from streamhub.web.routes import cancel_run, named

KEPT = Retention(unfinished_seconds=MAX_SECONDS, ended_seconds=MAX_SECONDS)
"""How long streams without a time-to-live are kept, if the application says nothing: until they are deleted."""

ACTIONS: Mapping[str, Action] = {
    "GET": "subscribe",
    "HEAD": "info",
    "POST": "append",
    "PUT": "start",
    "DELETE": "delete",
}
ALLOW: Header = (b"allow", b"GET, HEAD, POST, PUT, DELETE, OPTIONS")
CANCEL = "/cancel"
NOT_OPEN = "the hub is not open: give the application lifespan=hub.lifespan"
NOT_FOUND = refusal(404, "there is no such stream")
RESERVED = "__ds"
UNREADABLE = "\ufffd"
"""What servers put for bytes that are not UTF-8: different paths would name one stream."""

SMALL_BYTES = 64 * 1024
"""What a server buffers anyway: a larger answer is guarded against a client that does not read it."""

logger: logging.Logger = logging.getLogger("streamhub")


class DurableStreams:
    """A server of the Durable Streams protocol: an ASGI application over an open hub, mountable under any path.

    What is answered with success is stored, as durably as the hub's backend stores. What is answered 503 may be
    repeated; an append without a producer's headers may then be stored twice.

    It has no lifespan of its own: enter the hub in that of the application around it, as ``hub.lifespan`` does. Streams
    of the hub's own producers are read as any other; a run's metadata may name its ``content_type``. ``POST
    {stream}/cancel`` asks a run to stop, as that of ``sse_routes`` does.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        authorize: Authorize | None,
        key: Callable[[str], str] | None = None,
        retention: Retention | None = None,
        shared_caches: bool | None = None,
        default_content_type: str = DEFAULT_TYPE,
        max_body_bytes: int = 8 * 1024 * 1024,
        body_seconds: float = 20.0,
        long_poll_seconds: float = 20.0,
        sse_seconds: float = 60.0,
        ping_seconds: float = 15.0,
        send_timeout_seconds: float = 30.0,
        max_waiting_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        """Prepare; nothing is asked of the hub yet.

        Args:
            hub: an open hub, once requests come.
            authorize: who may do what. ``None``, which lets everybody do everything, must be written out.
            key: the stream's key for a path; default: the path without its leading slash. A place for the tenant.
            retention: of streams created here; a time-to-live that a stream was created with goes before its seconds.
                Default: until they are deleted, at most 64 MiB of each.
            shared_caches: whether caches on the way may give to one client what another has read; default: only if
                nobody is asked whether it may read.
            default_content_type: of streams of the hub's own producers that do not name theirs.
            max_body_bytes: size limit of a request's body, and of the backend's largest append.
            body_seconds: a body must be there in so much time.
            long_poll_seconds: how long a long-poll waits.
            sse_seconds: how long an event stream lasts before the client is let come again.
            ping_seconds, send_timeout_seconds: see ``EventStream``.
            max_waiting_bytes: how much may wait to be appended to one stream, while another append is in flight.
        """
        retention = KEPT if retention is None else check_retention(retention)
        self._hub = hub
        self._authorization = None if authorize is None else Authorization(authorize)
        self._shared = authorize is None if shared_caches is None else shared_caches
        self._key = key
        self._max_body_bytes = min(
            check_count(max_body_bytes, "max_body_bytes"), hub.store.max_append_bytes, retention.max_bytes
        )
        self._max_chunks = retention.max_chunks
        self._body_seconds = check_seconds(body_seconds, "body_seconds")
        self._long_poll = Patience(check_seconds(long_poll_seconds, "long_poll_seconds"))
        self._sse = Patience(check_seconds(sse_seconds, "sse_seconds"))
        self._ping_seconds = check_seconds(ping_seconds, "ping_seconds")
        self._send_timeout_seconds = check_seconds(send_timeout_seconds, "send_timeout_seconds")
        check_count(max_waiting_bytes, "max_waiting_bytes")
        self._writers = Writers(hub, default_type=default_content_type, max_waiting_bytes=max_waiting_bytes)
        self._creator = Creator(hub, default_type=default_content_type, retention=retention)
        self._reader = Reader(hub, default_type=default_content_type)
        self._told_unopened = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ConfigError(f"DurableStreams answers HTTP, not {scope['type']!r}: mount it beside what does")
        try:
            reply = await self._reply(scope, receive, send)
        except ClientGoneError:
            return
        except ResponseAbortedError:
            raise
        except StreamHubError as exc:
            never_open = isinstance(exc, HubClosedError) and not self._hub.draining
            reply = self._reply_unopened() if never_open else reply_to_error(exc)
        except (BadHeaderError, BadBodyError, BadQueryError) as exc:
            reply = refusal(400, str(exc))
        except (BodyTooLargeError, TooManyMessagesError) as exc:
            reply = refusal(413, str(exc))
        except BodyTooSlowError as exc:
            reply = refusal(408, str(exc))
        except HTTPException as exc:
            reply = _reply_to_http(exc)
        if reply is not None:
            await send_reply(send, reply, head=scope["method"] == "HEAD")

    async def _reply(self, scope: Scope, receive: Receive, send: Send) -> Reply | None:
        """Return the answer, or None if it was sent."""
        path, method = _path_in(scope), scope["method"]
        if RESERVED in path and RESERVED in path.split("/"):
            return refusal(501, "there are no subscriptions here")
        if method == "OPTIONS":
            return _options()
        if method not in ACTIONS:
            return refusal(405, "unknown method", ALLOW)
        given = given_in(scope["headers"])  # first: what the application is asked about is what is done
        cancels = method == "POST" and path.endswith(CANCEL)
        key = self._key_of(path.removesuffix(CANCEL) if cancels else path)
        if self._authorization is not None:
            action = "cancel" if cancels else ACTIONS[method]
            await self._authorization.check(Request(scope), key, action)
        if cancels:
            return await self._cancel(key, scope, given, receive)
        if method == "POST":
            write, chunks = write_in(given, await self._body(given, receive))
            return reply_to_write(await self._writers.write(key, write, chunks), write)
        if method == "GET":
            return await self._read(key, scope, given, receive, send)
        if method == "HEAD":
            return await self._head(key)
        if method == "DELETE":
            return await self._delete(key)
        if path.endswith(CANCEL):
            return refusal(400, f"a stream's name may not end in {CANCEL}")
        return await self._create(key, scope, given, receive)

    def _reply_unopened(self) -> Reply:
        if not self._told_unopened:
            self._told_unopened = True
            logger.error(NOT_OPEN)
        return refusal(500, NOT_OPEN)

    def _key_of(self, path: str) -> str:
        name = path.removeprefix("/")
        if not name:
            raise HTTPException(404, "a path must name a stream")
        if UNREADABLE in name:
            raise HTTPException(400, "the path is not UTF-8")
        return check_name(name if self._key is None else self._key(name))

    # --- writing

    def _body(self, given: Given, receive: Receive) -> Awaitable[bytes]:
        return read_body(given, receive, max_bytes=self._max_body_bytes, timeout_seconds=self._body_seconds)

    async def _create(self, key: str, scope: Scope, given: Given, receive: Receive) -> Reply:
        if any(name in given for name in FORK_HEADERS):
            return refusal(501, "there are no forks here")
        configuration = configuration_in(given)
        chunks = messages_in(await self._body(given, receive), is_json=configuration.is_json)
        if self._max_chunks is not None and len(chunks) > self._max_chunks:
            raise TooManyMessagesError(f"more than {self._max_chunks} messages")
        creation = Creation(key, configuration, chunks, closes(given))
        created = await self._creator.create(creation)
        headers: list[Header] = [
            *configuration_headers(configuration),
            NO_STORE,
            (b"stream-next-offset", write_offset(created.tail).encode()),
        ]
        if created.outcome == "differs":
            return refusal(409, f"the stream exists, and its {created.difference} is another")
        if creation.closed:
            headers.append(CLOSED)
        if created.outcome == "exists":
            return Reply(200, headers)
        self._writers.forget(key)
        return Reply(201, [*headers, (b"location", _url_of(scope, given))])

    async def _delete(self, key: str) -> Reply:
        if await self._reader.describe(key) is None:
            return NOT_FOUND  # and delete nothing: it may have been created since
        deleted = await self._hub.delete(key)
        self._writers.forget(key)
        return Reply(204) if deleted else NOT_FOUND

    async def _cancel(self, key: str, scope: Scope, given: Given, receive: Receive) -> Reply:
        request = Request(scope, receive)
        body = await read_object(request) if _has_body(given) else {}
        run = text_field(body, "run")
        run = None if run is None else named(run, "run")
        told = await cancel_run(self._hub, key, run, text_field(body, "reason"))
        if told["state"] == "nothing" and await self._hub.info(key) is None:
            return NOT_FOUND
        self._writers.forget(key)
        return Reply(200, [(b"content-type", b"application/json"), NO_STORE], encode_json(told))

    # --- reading

    async def _head(self, key: str) -> Reply:
        found = await self._reader.describe(key)
        if found is None:
            return NOT_FOUND
        info, configuration = found
        offset = (b"stream-next-offset", write_offset(tail_of(info)).encode())
        return Reply(200, [*configuration_headers(configuration), NO_STORE, offset, *end_headers(info.end)])

    async def _read(self, key: str, scope: Scope, given: Given, receive: Receive, send: Send) -> Reply | None:
        wanted = wanted_in(scope["query_string"])
        piece = await self._reader.read(key, wanted.place)
        if wanted.mode == "catch-up":
            reply = reply_to_catch_up(piece, wanted, given, shared=self._shared)
        elif wanted.mode == "long-poll" and (piece.chunks or piece.end is not None):
            reply = reply_to_long_poll(piece, wanted, shared=self._shared)
        else:
            reply = None
        if reply is not None and len(reply.body) <= SMALL_BYTES:
            return reply
        connection = Connection(
            scope, receive, send, ping_seconds=self._ping_seconds, send_timeout_seconds=self._send_timeout_seconds
        )
        with self._hub.on_drain(connection.hurry):
            if reply is not None:
                await connection.serve(partial(send_guarded, reply))
                return None
            if wanted.mode == "long-poll":
                return await self._wait(connection, key, piece, wanted)
            body = EventBody(self._hub, self._reader, key, piece, cursor=wanted.cursor, patience=self._sse)
            await connection.serve(body.run)
            return None

    async def _wait(self, connection: Connection, key: str, piece: Piece, wanted: Wanted) -> Reply | None:
        """Return the answer to a long-poll; None if it was sent, or the client did not wait for it."""
        answer: Reply | None = None

        async def body(own: Connection) -> None:
            nonlocal answer
            more = await wait_for_more(self._hub, key, piece, self._long_poll.until(piece.configuration))
            reply = reply_to_long_poll(more, wanted, shared=self._shared)
            if len(reply.body) > SMALL_BYTES:
                await send_guarded(reply, own)
            else:
                answer = reply

        await connection.serve(body)
        return answer


def _path_in(scope: Scope) -> str:
    """Return the path below where the application is mounted."""
    path, root = scope["path"], scope.get("root_path", "")
    return path[len(root) :] if root and (path == root or path.startswith(f"{root}/")) else path


def _url_of(scope: Scope, given: Given) -> bytes:
    host = given.get(b"host")
    if host is None:
        name, port = scope.get("server") or ("localhost", None)
        host = name.encode() if port is None else b"%b:%d" % (name.encode(), port)
    return b"%b://%b%b" % (scope.get("scheme", "http").encode(), host, quote(scope["path"]).encode())


def _has_body(given: Given) -> bool:
    return given.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in given


def _options() -> Reply:
    """Answer a preflight. Which origins may come is for CORS middleware around the application to say."""
    allowed = ", ".join(REQUEST_HEADERS).encode()
    return Reply(204, [ALLOW, (b"access-control-allow-methods", ALLOW[1]), (b"access-control-allow-headers", allowed)])


def _reply_to_http(exc: HTTPException) -> Reply:
    more = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (exc.headers or {}).items()]
    return refusal(exc.status_code, exc.detail, *more)
