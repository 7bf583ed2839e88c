"""One connection that many tasks share: what they send together is written together, and answered in order.

A caller that is cancelled leaves its commands to themselves: they are sent, or not, and their replies are dropped. No
caller ever owns the connection, so none can leave it in the middle of a reply.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import RedisError, ResponseError

from streamhub.errors import HubClosedError
from streamhub_redis.dialling import Dial
from streamhub_redis.faults import code_of, convert
from streamhub_redis.line import Line
from streamhub_redis.pair import consume, end_task
from streamhub_redis.wire import Reply


class _Batch:
    """The commands of one call."""

    __slots__ = ("commands", "confirmed", "future", "replies")

    def __init__(self, commands: Sequence[bytes], *, confirmed: bool) -> None:
        self.commands = commands
        self.confirmed = confirmed
        self.future: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        self.replies: list[Reply] = []

    def resolve(self) -> None:
        """Give the caller its replies, if it still waits."""
        if not self.future.done():
            self.future.set_result(self.replies)

    def fail(self, error: Exception) -> None:
        """Give the caller an error, if it still waits."""
        if not self.future.done():
            self.future.set_exception(error)


class Pipeline:
    """Keeps one connection to where ``dial`` leads, opened when it is needed.

    What is sent while replies are awaited goes out together, when the last of them is there.
    """

    def __init__(
        self,
        dial: Dial,
        *,
        where: str,
        timeout_seconds: float,
        confirmation: bytes,
        on_demoted: Callable[[], None],
    ) -> None:
        """Begin without a connection.

        Args:
            dial: opens one.
            where: what messages call the server.
            timeout_seconds: how long the server may be silent while replies are awaited, and takes nothing either.
            confirmation: the command that waits until what was written before it is confirmed.
            on_demoted: called when the server says that it is no master: connections to it are of no more use.
        """
        self._dial = dial
        self._timeout_seconds = timeout_seconds
        self._confirmation = confirmation
        self._on_demoted = on_demoted
        self._where = where
        self._waiting: list[_Batch] = []
        self._flying: deque[_Batch] = deque()  # of which replies are awaited
        self._confirming: list[_Batch] = []  # which wait for the confirmation alone
        self._line: Line | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._dropping: set[asyncio.Task[None]] = set()
        self._until = 0.0  # when the server has been silent for too long
        self._unsent_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._leaving = False
        self._closed = False

    def leave(self) -> None:
        """Connect anew before the next commands."""
        self._leaving = True

    def reopen(self) -> None:
        """Take calls again after ``aclose``."""
        self._closed = False

    def run(self, commands: Sequence[bytes], *, confirmed: bool = False) -> asyncio.Future[list[Reply]]:
        """Send packed commands, together; their replies will be the result. A refusal is a reply, not raised.

        With ``confirmed``, one more reply is that of the confirmation.

        Raises:
            HubClosedError: it is closed; raised at once, the others are of the future.
            BackendUnavailableError: the connection broke, or could not be made; commands may have been executed.
            ConfigError: the server refused the credentials.
        """
        if self._closed:
            raise HubClosedError("the redis backend is closed")
        batch = _Batch(commands, confirmed=confirmed)
        self._waiting.append(batch)
        self._send()
        return batch.future

    def _send(self) -> None:
        """Send what waits, unless replies are awaited; if there is no connection, make one, and then."""
        connecting = self._connecting is not None and not self._connecting.done()
        if self._flying or self._confirming or connecting:
            return
        batches = [batch for batch in self._waiting if not batch.future.cancelled()]
        line = self._line
        if batches and (line is None or line.ended or self._leaving):
            self._waiting = batches
            self._connecting = asyncio.create_task(self._connect(), name="redis connect")
            return
        self._waiting = []
        if line is None or not batches:
            return
        commands: list[bytes] = []
        confirmed = False
        for batch in batches:
            commands += batch.commands
            confirmed = confirmed or batch.confirmed
        if confirmed:
            # One for all of them, and nobody else waits for it.
            commands.append(self._confirmation)
        self._flying.extend(batches)
        line.write(b"".join(commands))
        self._unsent_bytes = line.unsent_bytes
        self._put_off()

    async def _connect(self) -> None:
        try:
            self._drop()  # nothing is awaited on it: nobody needs to know
            self._line = await self._opened()
            self._leaving = False
        except Exception as exc:  # noqa: BLE001 - converted, for each caller
            waiting, self._waiting = self._waiting, []
            self._fail(waiting, exc)
        self._connecting = None
        self._send()

    async def _opened(self) -> Line:
        wire = await self._dial()
        try:
            return Line(wire, self._take, self._lost)
        except BaseException:
            await wire.drop()
            raise

    # --- replies

    def _take(self, replies: Sequence[Reply]) -> None:
        """Take what arrived; what is sent then is answered by what arrives later."""
        for reply in replies:
            if isinstance(reply, RedisError) and not isinstance(reply, ResponseError):
                self._lost(reply)
                return
            if isinstance(reply, ResponseError) and code_of(reply) == "READONLY":
                self._on_demoted()
            if not self._give(reply):
                self._lost(DriverConnectionError("the server says something that nobody asked for"))
                return
        if self._flying or self._confirming:
            self._put_off()
        elif self._waiting:
            self._send()

    def _give(self, reply: Reply) -> bool:
        """Give a reply to the oldest call that has not all of its own; the last is the confirmation."""
        if self._flying:
            batch = self._flying[0]
            batch.replies.append(reply)
            if len(batch.replies) == len(batch.commands):
                self._flying.popleft()
                if batch.confirmed:
                    self._confirming.append(batch)
                else:
                    batch.resolve()
            return True
        confirming, self._confirming = self._confirming, []
        for batch in confirming:
            batch.replies.append(reply)
            batch.resolve()
        return bool(confirming)

    def _lost(self, exc: Exception) -> None:
        """End the connection; calls that wait for replies fail, if there are any."""
        failed = [*self._flying, *self._confirming]
        self._flying.clear()
        self._confirming = []
        self._drop()
        self._fail(failed, exc)
        self._send()

    def _fail(self, batches: Sequence[_Batch], exc: Exception) -> None:
        for batch in batches:
            # An error of its own for each: it is raised, and grows a traceback, in another task.
            batch.fail(convert(self._where, exc))

    def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            task = asyncio.create_task(line.drop(), name="redis disconnect")
            self._dropping.add(task)
            task.add_done_callback(self._dropping.discard)
            task.add_done_callback(consume)

    # --- time

    def _put_off(self) -> None:
        """Let the server be silent anew. One timer for many replies: one for each would cost as much as they do."""
        loop = asyncio.get_running_loop()
        self._until = loop.time() + self._timeout_seconds
        if self._timer is None:
            self._timer = loop.call_at(self._until, self._look)

    def _look(self) -> None:
        self._timer = None
        line = self._line
        if line is None or not (self._flying or self._confirming):
            return
        unsent_bytes = line.unsent_bytes
        if unsent_bytes < self._unsent_bytes:  # a large batch takes longer than one command
            self._put_off()
        elif asyncio.get_running_loop().time() < self._until:
            self._timer = asyncio.get_running_loop().call_at(self._until, self._look)
        else:
            self._lost(TimeoutError())
        self._unsent_bytes = unsent_bytes

    async def aclose(self) -> None:
        """Close the connection; calls that wait raise ``HubClosedError``."""
        self._closed = True
        connecting, self._connecting = self._connecting, None
        try:
            if connecting is not None:
                await end_task(connecting)
        finally:
            for batch in [*self._flying, *self._confirming, *self._waiting]:
                batch.fail(HubClosedError("the redis backend was closed"))
            self._flying.clear()
            self._confirming, self._waiting = [], []
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._drop()
            if self._dropping:
                await asyncio.wait(self._dropping)
