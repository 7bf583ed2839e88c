"""One connection of the driver's, until its first error.

Nothing reconnects behind anybody's back: what was published meanwhile would be lost without a word, and the next server
may be another version. Whoever needs a connection opens the next one.

Answers come to one inbox of the connection's own, so that a call has any number of them, and ends at once when the
connection does or when the server refuses a subject.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.errors import Error

from streamhub.errors import BackendUnavailableError, StreamHubError
from streamhub_nats.faults import forbidden, unavailable

CLOSE_SECONDS = 2.0
AGAIN_SECONDS = 1.0

_DENIED = re.compile(r'permissions violation for (publish|subscription) to "(?P<subject>[^"]*)"', re.IGNORECASE)
_BROKEN = (Error, OSError, RuntimeError)  # uvloop's transports raise the last, once they are closed


class Call:
    """A question on its way."""

    __slots__ = ("answers", "deadline", "done", "is_last", "reply", "subject")

    def __init__(self, subject: str, reply: str, is_last: Callable[[Msg], bool], seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.subject = subject
        self.reply = reply
        self.is_last = is_last
        self.answers: list[Msg] = []
        self.done: asyncio.Future[None] = loop.create_future()
        self.deadline = loop.time() + seconds

    def expire(self) -> None:
        """End without the last answer: it has not come in time."""
        self.fail(TimeoutError())

    def fail(self, error: StreamHubError | TimeoutError) -> None:
        """End with an error, unless it has ended."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # whoever began it may have been cancelled before it waited


class _Receiver(asyncio.Future[Msg]):
    """Never done: hands each message on as the driver reads it. A callback would cost a turn of a task for each."""

    def __init__(self, receive: Callable[[Msg], None]) -> None:
        super().__init__()
        self._receive = receive

    def set_result(self, result: Msg, /) -> None:
        self._receive(result)


class _Client(Client):
    """The driver's, but it writes what is published before ``publish`` returns, and waits for nobody to take it."""

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        # The driver leaves it to a task, a turn of the loop later. Were that gone, it would write here, and then wait
        # for a peer that takes no more bytes: so would its pings, which have to find out that there is no peer.
        if not self.is_connected or not isinstance(self._transport, TcpTransport):
            return await super()._flush_pending(force_flush)  # to a websocket, one write can take several steps
        pending, self._pending, self._pending_data_size = self._pending, [], 0
        return self._transport.write(b"".join(pending))

    # The server adds five headers to each message, and the driver asks each letter.
    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in raw.decode("utf-8", "replace").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon:
                found[name] = value.strip()
        return found


class Channel:
    """A connection. It is given its client by ``dialling``."""

    def __init__(
        self,
        where: str,
        *,
        inbox: str,
        timeout_seconds: float,
        on_end: Callable[[StreamHubError], None],
    ) -> None:
        """Begin without a client.

        Args:
            where: what messages call the servers.
            inbox: what the subjects of answers begin with.
            timeout_seconds: how long a call waits.
            on_end: called once, with the error that ended the connection, unless it is closed.
        """
        self.where = where
        self.client = _Client()
        self.error: StreamHubError | None = None
        self._timeout_seconds = timeout_seconds
        self._inbox = f"{inbox}.{secrets.token_hex(8)}"
        self._on_end = on_end
        self._numbers = itertools.count(1)
        self._calls: dict[str, Call] = {}  # the oldest first, and so by their deadlines
        self._timer: asyncio.TimerHandle | None = None
        self._denied: dict[str, StreamHubError] = {}
        self.reason: BaseException | None = None
        self._closing = False
        self._wanted: dict[str, Subscription] = {}

    @property
    def usable(self) -> bool:
        """Whether calls may be made."""
        return self.error is None and self.client.is_connected

    async def prepare(self) -> None:
        """Begin to receive answers; called once the client is connected."""
        # The driver tells of the end by a callback, but not if the peer resets the connection while it says goodbye.
        reading: asyncio.Task[None] = getattr(self.client, "_reading_task")  # noqa: B009 - private
        reading.add_done_callback(self._stopped)
        await self.client.subscribe(  # pyright: ignore[reportUnknownMemberType] - an untyped future
            f"{self._inbox}.*", future=_Receiver(self._answered)
        )

    async def ask(
        self,
        subject: str,
        payload: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        is_last: Callable[[Msg], bool] = lambda message: True,
        repeat: bool = False,
    ) -> list[Msg]:
        """Publish, and return the answers up to the last.

        With ``repeat`` the question is asked again each second: while a leader is elected, the first may be lost.

        Raises:
            BackendUnavailableError: the connection ended, or the last answer did not come in time.
            ConfigError: the user may not publish there.
        """
        call = self.begin(subject, payload, headers, is_last=is_last)
        try:
            while repeat and not (await asyncio.wait([call.done], timeout=AGAIN_SECONDS))[0]:
                self._publish(subject, payload, call.reply, headers)
            return await self.answers(call)
        finally:
            self._calls.pop(call.reply, None)

    def begin(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None,
        *,
        is_last: Callable[[Msg], bool] = lambda message: True,
    ) -> Call:
        """Publish at once; ``answers`` waits for what is answered.

        Raises:
            BackendUnavailableError: the connection has ended.
        """
        reply = f"{self._inbox}.{next(self._numbers)}"
        call = Call(subject, reply, is_last, self._timeout_seconds)
        self._publish(subject, payload, reply, headers)
        self._calls[reply] = call
        if self._timer is None:
            self._timer = call.done.get_loop().call_at(call.deadline, self._expire)
        return call

    async def answers(self, call: Call) -> list[Msg]:
        """Return the answers to what was begun, up to the last; raise as ``ask`` does."""
        try:
            await call.done
        except TimeoutError as exc:
            raise unavailable(self.where, exc) from exc
        finally:
            self._calls.pop(call.reply, None)
        return call.answers

    def _expire(self) -> None:
        """End the calls whose time is over. One timer serves them all: one for each would cost half of a publish."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for call in list(self._calls.values()):
            if call.deadline > loop.time():
                self._timer = loop.call_at(call.deadline, self._expire)
                return
            call.expire()
            del self._calls[call.reply]

    def _publish(self, subject: str, payload: bytes, reply: str, headers: dict[str, str] | None) -> None:
        if self.error is not None or not self.client.is_connected:
            raise BackendUnavailableError(f"{self.where} is not available: {self._said}")
        publishing = self.client.publish(subject, payload, reply=reply, headers=headers)
        try:
            # Its only step writes, or leaves it to the driver's task, whose queue has no bound.
            publishing.send(None)
        except StopIteration:
            return
        except _BROKEN as exc:
            raise unavailable(self.where, exc) from exc
        publishing.close()

    @property
    def _said(self) -> str:
        return str(self.error or self.reason or "the connection is closed")

    async def follow(self, subject: str, receive: Callable[[Msg], None]) -> None:
        """Receive what is published on a subject from now on; the server has it on return.

        Raises:
            BackendUnavailableError: the connection ended.
            ConfigError: the user may not subscribe to it.
        """

        try:
            subscription = await self.client.subscribe(  # pyright: ignore[reportUnknownMemberType]
                subject, future=_Receiver(receive)
            )
        except _BROKEN as exc:
            raise unavailable(self.where, exc) from exc
        self._wanted[subject] = subscription

    def follows(self, subject: str) -> bool:
        """Say whether a subject's messages are received."""
        return subject in self._wanted

    def check_allowed(self, subject: str) -> None:
        """Raise if the server has refused a subscription; it has said so before it answers what was asked later."""
        error = self._denied.pop(subject.lower(), None)
        if error is not None:
            raise error

    async def unfollow(self, subject: str) -> None:
        """Receive nothing more of a subject."""
        subscription = self._wanted.pop(subject, None)
        if subscription is not None and self.usable:
            try:
                await subscription.unsubscribe()
            except _BROKEN as exc:
                raise unavailable(self.where, exc) from exc

    # What the driver tells.

    def _answered(self, message: Msg) -> None:
        call = self._calls.get(message.subject)
        if call is None or call.done.done():
            return
        call.answers.append(message)
        if call.is_last(message):
            del self._calls[message.subject]
            call.done.set_result(None)

    async def told(self, exc: Exception) -> None:
        """Take in what the driver says went wrong."""
        denied = _DENIED.search(str(exc))
        if denied is None:
            self.reason = exc
            return
        subject = denied["subject"].lower()
        error = forbidden(self.where, denied[0])
        if denied[1].lower() == "subscription":
            self._denied[subject] = error
        for call in list(self._calls.values()):
            if call.subject.lower() == subject or subject.startswith(self._inbox.lower()):
                call.fail(error)

    async def ended(self) -> None:
        """Take in that the connection is closed."""
        self._end()

    def _stopped(self, reading: asyncio.Task[None]) -> None:
        if not reading.cancelled():
            self.reason = reading.exception() or self.reason
        self._end()
        _abort(self.client)

    def _end(self) -> None:
        if self.error is not None:
            return
        self.error = unavailable(self.where, self.reason or self.client.last_error)
        if self._timer is not None:
            self._timer.cancel()
        for call in list(self._calls.values()):
            call.fail(BackendUnavailableError(str(self.error)))
        if not self._closing:
            self._on_end(self.error)

    async def aclose(self) -> None:
        """Close the connection; nobody is told, calls that wait fail."""
        self._closing = True
        await discard(self.client)
        await self.ended()


async def discard(client: Client) -> None:
    """Close a client, in bounded time whatever state it is in."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close()
    except (TimeoutError, OSError, Error, AssertionError):
        pass  # it could not say goodbye, or has never been connected
    finally:
        _abort(client)


def _abort(client: Client) -> None:
    subscriptions: dict[int, Any] = getattr(client, "_subs", {})
    for subscription in list(subscriptions.values()):
        task: asyncio.Task[None] | None = getattr(subscription, "_wait_for_msgs_task", None)
        if task is not None:
            task.cancel()
    # The driver cannot drop a connection whose peer takes no more bytes: it waits for it. Nor one that is half made.
    holder: Any = getattr(client, "_transport", None)
    writer: Any = getattr(holder, "_io_writer", None) or getattr(holder, "_bare_io_writer", None)
    if writer is not None:
        writer.transport.abort()
