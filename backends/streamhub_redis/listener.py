"""One connection for everything that is published to a process.

It lives until its first error. Nothing reconnects behind anybody's back: whatever was published meanwhile would be lost
without a word. Its feeds raise instead, and the core opens others, follows again and looks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from redis.exceptions import ResponseError

from streamhub.errors import BackendUnavailableError, ConfigError, StreamHubError
from streamhub_redis.faults import convert
from streamhub_redis.pair import end_task, first_failure
from streamhub_redis.resp import pack
from streamhub_redis.wire import Reply, Wire, elements

_PING = pack(b"PING")

_ENDED = "the connection for notifications has ended"


class _Channel:
    """One channel: how often it was asked for and confirmed, and who waits for that."""

    __slots__ = ("asked", "confirmed", "waiters")

    def __init__(self) -> None:
        self.asked = 0
        self.confirmed = 0
        self.waiters: list[tuple[int, asyncio.Future[None]]] = []


class Listener:
    """A connection in subscribed mode."""

    def __init__(
        self,
        dial: Callable[[], Awaitable[Wire]],
        *,
        where: str,
        ping_seconds: float,
        on_message: Callable[[bytes, bytes], None],
        on_end: Callable[[StreamHubError], None],
    ) -> None:
        """Begin to connect.

        Args:
            dial: opens the connection.
            where: what messages call the server.
            ping_seconds: silence after which the connection is tested.
            on_message: called with a channel and what was published there.
            on_end: called once, with the error that ended the connection, unless it is closed.
        """
        self._dial = dial
        self._where = where
        self._ping_seconds = ping_seconds
        self._on_message = on_message
        self._on_end = on_end
        self._channels: dict[bytes, _Channel] = {}
        self._unsent: list[bytes] = []
        self._asked: deque[float] = deque()  # when, of each command that is not answered yet
        self._arrived = asyncio.Event()
        self._error: StreamHubError | None = None
        self._opened = asyncio.Event()
        self._task = asyncio.create_task(self._live(), name="redis listener")

    async def opened(self) -> None:
        """Wait for the connection.

        Raises:
            BackendUnavailableError: it cannot be made, or has ended already.
            ConfigError: the server refused the credentials.
        """
        await self._opened.wait()
        self._check()

    async def subscribe(self, channel: bytes) -> None:
        """Receive what is published on a channel after this returns."""
        self._check()
        state = self._channels.setdefault(channel, _Channel())
        state.asked += 1
        waiter = asyncio.get_running_loop().create_future()
        state.waiters.append((state.asked, waiter))
        self._write(pack(b"SUBSCRIBE", channel))
        await waiter

    def unsubscribe(self, channel: bytes) -> None:
        """Receive nothing more of a channel, before long."""
        if self._error is None and channel in self._channels:
            self._write(pack(b"UNSUBSCRIBE", channel))

    def _check(self) -> None:
        error = self._error
        if isinstance(error, ConfigError):
            raise ConfigError(*error.args) from error
        if error is not None:
            raise BackendUnavailableError(f"{_ENDED}: {error}") from error

    def _write(self, command: bytes) -> None:
        self._unsent.append(command)
        self._asked.append(asyncio.get_running_loop().time())
        self._arrived.set()

    async def _live(self) -> None:
        error: StreamHubError = self._closing()
        try:
            await self._use(await self._dial())
        except Exception as exc:  # noqa: BLE001 - converted, for the feeds
            error = convert(self._where, exc)
            self._on_end(error)
        finally:
            self._end(error)

    def _end(self, error: StreamHubError) -> None:
        self._error = self._error or error
        self._opened.set()
        for state in self._channels.values():
            for _, waiter in state.waiters:
                if not waiter.done():
                    waiter.set_exception(BackendUnavailableError(str(error)))
        self._channels.clear()

    async def _use(self, wire: Wire) -> None:
        self._opened.set()
        try:
            await first_failure(self._send(wire), self._receive(wire))
        finally:
            await wire.drop()

    async def _send(self, wire: Wire) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            commands, self._unsent = self._unsent, []
            await wire.send(commands)

    async def _receive(self, wire: Wire) -> None:
        tested = False
        while True:
            message = await wire.listen(self._ping_seconds)
            if message is not None:
                tested = False
                self._dispatch(message)
                self._check_answers()
            elif tested:
                raise BackendUnavailableError(f"{self._where} has not answered for {self._ping_seconds:g} s")
            else:
                tested = True
                self._write(_PING)

    def _check_answers(self) -> None:
        # Messages may go on to arrive where commands do not.
        limit = 2 * self._ping_seconds
        if self._asked and asyncio.get_running_loop().time() - self._asked[0] > limit:
            raise BackendUnavailableError(f"{self._where} publishes, but has not answered for {limit:g} s")

    def _dispatch(self, message: Reply) -> None:
        if isinstance(message, ResponseError):
            raise message
        # Else it is a PONG: in RESP2 that of a connection with channels is an array of two, another's is plain.
        found = elements(message)
        if found is not None and len(found) == 3 and found[0] == b"message":
            self._on_message(found[1], found[2])
            return
        if self._asked:
            self._asked.popleft()
        if found is not None and len(found) == 3:
            kind, channel, _ = found
            if kind == b"subscribe":
                self._confirm(channel)
            elif kind == b"unsubscribe":
                self._left(channel)

    def _confirm(self, channel: bytes) -> None:
        state = self._channels.setdefault(channel, _Channel())
        state.confirmed += 1
        waiting = state.waiters
        state.waiters = [(asked, waiter) for asked, waiter in waiting if asked > state.confirmed]
        for asked, waiter in waiting:
            if asked <= state.confirmed and not waiter.done():
                waiter.set_result(None)

    def _left(self, channel: bytes) -> None:
        state = self._channels.get(channel)
        # Unless it has been asked for again since.
        if state is not None and state.confirmed == state.asked:
            del self._channels[channel]

    async def aclose(self) -> None:
        """Close the connection; feeds are not told, but who waits for it is."""
        await end_task(self._task)
        # A task that was cancelled before its first step has done nothing at all.
        self._end(self._closing())

    def _closing(self) -> StreamHubError:
        return BackendUnavailableError(f"{self._where}: it was closed")
