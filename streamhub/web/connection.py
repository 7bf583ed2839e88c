"""One response on its way to its client: pings in silence, and notices a client that left or does not read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from starlette.types import Receive, Scope, Send

from streamhub.errors import ResponseAbortedError, StreamHubError
from streamhub.interrupt import Interrupter
from streamhub.sse import encode_comment
from streamhub.tasks import consume
from streamhub.web.hangup import hang_up

HURRY_SECONDS = 1.0
_PING = encode_comment("ping")


class ClientLeftError(StreamHubError):
    """The client closed the connection: nothing is left to do."""


class ClientFrozenError(StreamHubError):
    """The client does not read, and is not waited for any longer."""


class _Unsendable:
    """In place of a body's bytes: whoever looks at it raises."""

    def __init__(self, error: ResponseAbortedError) -> None:
        self._error = error

    def _refuse(self) -> NoReturn:
        raise self._error

    __bool__ = __len__ = __bytes__ = __iter__ = _refuse


class Connection:
    """Sends one response; inside ``serve`` the body is interrupted when the client leaves, or stops reading."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, ping_seconds: float, send_timeout_seconds: float
    ) -> None:
        self.started: bool = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._ping_seconds = ping_seconds
        self._send_timeout_seconds = send_timeout_seconds
        self._stop = Interrupter()
        self._loop = asyncio.get_running_loop()
        self._sending_since: float | None = None
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._ping: asyncio.Task[None] | None = None
        self._hurried: asyncio.TimerHandle | None = None

    def hurry(self) -> None:
        """Give the response a last second, for the hub drains.

        A body that waits for chunks does not take it, for its subscription raises; one that waits for its client does.
        """
        if self._hurried is None:
            late = ClientFrozenError("the client did not read while the server shuts down")
            self._hurried = self._loop.call_later(HURRY_SECONDS, self._stop.interrupt, late)

    async def serve(self, body: Callable[[Connection], Awaitable[None]]) -> None:
        """Run the body, which starts and finishes the response.

        Raises:
            ResponseAbortedError: the client does not read; what the body raises leaves as it is.
        """
        watcher = self._loop.create_task(self._watch(), name="streamhub disconnect")
        # A task of its own: within this one, each event would resume the coroutines of the whole application around it.
        answer = self._loop.create_task(self._guarded(body), name="streamhub response")
        answer.add_done_callback(consume)
        self._timer = self._loop.call_later(self._patience(), self._tick)
        try:
            await answer
        except ClientLeftError:
            return
        except ResponseAbortedError as aborted:
            await self._cut(aborted)
            if self._hurried is not None:  # a server that stops waits for what it has sent to be read
                self._loop.call_later(HURRY_SECONDS, self._hang_up)
            raise
        except ClientFrozenError as frozen:
            self._hang_up()
            raise ResponseAbortedError(str(frozen)) from None
        finally:
            self._timer.cancel()
            if self._hurried is not None:
                self._hurried.cancel()
            await _cancelled(watcher, self._ping)

    async def _guarded(self, body: Callable[[Connection], Awaitable[None]]) -> None:
        self._stop.enter()
        try:
            await body(self)
        except BaseException as exc:
            if self._stop.leave(exc) and self._stop.cause is not None:
                raise self._stop.cause from None
            raise
        self._stop.leave(None)

    # --- sending

    async def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send the status and the headers."""
        self.started = True
        await self._sent({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def refuse(self) -> None:
        """Answer that there is nothing to read: 204, at which an ``EventSource`` does not come back."""
        await self.start(204, [(b"cache-control", b"no-store")])
        await self.finish()

    async def write(self, data: bytes) -> None:
        """Send a part of the body; returns when the server has taken it."""
        if self._ping is not None:
            await self._ping
            self._ping = None
        await self._sent({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        """Send the last part: the client sees that the body is whole."""
        if self._ping is not None:
            await self._ping
        await self._sent({"type": "http.response.body", "body": data, "more_body": False})

    async def _sent(self, message: dict[str, object]) -> None:
        self._sending_since = self._loop.time()
        try:
            await self._send(message)
        except OSError as exc:  # what servers raise on sending to a client that has left
            raise ClientLeftError("the client has left") from exc
        finally:
            self._sending_since = None
        self._sent_at = self._loop.time()

    async def _cut(self, aborted: ResponseAbortedError) -> None:
        """Make whoever forwards this response fail: some middleware ends the body cleanly when its app raises."""
        patience = asyncio.timeout(HURRY_SECONDS)
        with suppress(Exception):  # the server's own word on it; ours follows
            async with patience:
                await self._send({"type": "http.response.body", "body": _Unsendable(aborted), "more_body": True})
        if patience.expired():  # who forwards it waits for a client that does not read
            self._hang_up()

    def _hang_up(self) -> None:
        if str(self._scope.get("http_version", "1.1")).startswith("1"):  # others share one connection
            hang_up(self._scope.get("client"), self._scope.get("server"))

    # --- watching

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._stop.interrupt(ClientLeftError("the client has left"))

    def _patience(self) -> float:
        return min(self._ping_seconds, self._send_timeout_seconds / 2)

    def _tick(self) -> None:
        now, later = self._loop.time(), self._patience()
        if self._sending_since is not None:
            if now - self._sending_since >= self._send_timeout_seconds:
                seconds = self._send_timeout_seconds
                self._stop.interrupt(ClientFrozenError(f"the client has read nothing for {seconds:g} s"))
                return
        elif self.started:
            due = self._sent_at + self._ping_seconds - now
            if due <= 0:
                self._ping = self._loop.create_task(self._send_ping(), name="streamhub ping")
            else:
                later = min(later, due)
        self._timer = self._loop.call_later(later, self._tick)

    async def _send_ping(self) -> None:
        try:
            await self._sent({"type": "http.response.body", "body": _PING, "more_body": True})
        except ClientLeftError as left:
            self._stop.interrupt(left)


async def _cancelled(*tasks: asyncio.Task[None] | None) -> None:
    owned = [task for task in tasks if task is not None]
    for task in owned:
        task.cancel()
    await asyncio.gather(*owned, return_exceptions=True)
