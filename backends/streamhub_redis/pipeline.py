"""One connection that many tasks share: what they send together is written together, and answered in order.

A caller that is cancelled leaves its commands to themselves: they are sent, or not, and their replies are dropped. No
caller ever owns the connection, so none can leave it in the middle of a reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence

from streamhub.errors import HubClosedError
from streamhub_redis.dialling import Dial
from streamhub_redis.faults import convert
from streamhub_redis.pair import end_task
from streamhub_redis.wire import Reply, Wire


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


# What is sent at once, at least: a batch may be larger than a connection can take within the time of one command.
_PART_BYTES = 64 * 1024


def _parts(commands: Iterable[bytes]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for command in commands:
        part.append(command)
        size += len(command)
        if size >= _PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


class Pipeline:
    """Keeps one connection to where ``dial`` leads, opened when it is needed.

    One task serves what is sent; what is sent meanwhile goes out together, next.
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
            timeout_seconds: how long the server may take for each command.
            confirmation: the command that waits until what was written before it is confirmed.
            on_demoted: called when the server says that it is no master: connections to it are of no more use.
        """
        self._dial = dial
        self._timeout_seconds = timeout_seconds
        self._confirmation = confirmation
        self._on_demoted = on_demoted
        self._where = where
        self._waiting: list[_Batch] = []
        self._flying: list[_Batch] = []
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._rest: asyncio.Future[None] | None = None  # while the task has nothing to do
        self._limit: asyncio.Timeout | None = None  # of the task
        self._sent = False  # what is flying, before the task's turn
        self._leaving = False
        self._closed = False

    def leave(self) -> None:
        """Connect anew before the next commands."""
        self._leaving = True

    def reopen(self) -> None:
        """Take calls again after ``aclose``."""
        self._closed = False

    async def run(self, commands: Sequence[bytes], *, confirmed: bool = False) -> list[Reply]:
        """Send packed commands, together, and return their replies; a refusal is a reply, not raised.

        With ``confirmed``, one more reply is that of the confirmation.

        Raises:
            BackendUnavailableError: the connection broke, or could not be made; commands may have been executed.
            ConfigError: the server refused the credentials.
        """
        if self._closed:
            raise HubClosedError("the redis backend is closed")
        batch = _Batch(commands, confirmed=confirmed)
        self._waiting.append(batch)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve(), name="redis pipeline")
        elif self._rest is not None and not self._rest.done():
            self._send_at_once()
            self._rest.set_result(None)
        return await batch.future

    def _send_at_once(self) -> None:
        """Send what waits for the task, which has nothing to do, before its turn: the server begins so much earlier."""
        wire, limit = self._wire, self._limit
        if wire is not None and limit is not None and not self._leaving:
            self._extend(limit)
            if wire.send_at_once(self._commands(self._waiting)):
                self._flying, self._waiting, self._sent = self._waiting, [], True

    async def _serve(self) -> None:
        while True:
            try:
                # One limit for many exchanges, each of which puts it off: a timer of its own costs as much as it does.
                async with asyncio.timeout(None) as self._limit:
                    await self._serve_within(self._limit)
            except Exception as exc:  # noqa: BLE001 - converted, for each caller
                if self._flying:  # else the limit was reached in rest
                    self._fail(exc)
                    await self._drop()

    async def _serve_within(self, limit: asyncio.Timeout) -> None:
        while True:
            if not self._waiting:
                self._rest = asyncio.get_running_loop().create_future()
                await self._rest
            wire = self._wire
            if not self._sent or wire is None:
                wire = await self._send(limit)
            self._sent = False
            try:
                await self._receive(wire, self._flying, limit)
            finally:
                if wire.demoted:
                    self._on_demoted()
            self._flying = []

    async def _send(self, limit: asyncio.Timeout) -> Wire:
        self._flying, self._waiting = self._waiting, []
        wire = await self._connected(limit)
        self._flying = [batch for batch in self._flying if not batch.future.cancelled()]
        self._extend(limit)
        for part in _parts(self._commands(self._flying)):
            await wire.send(part)
            self._extend(limit)
        return wire

    async def _connected(self, limit: asyncio.Timeout) -> Wire:
        wire = self._wire
        if wire is not None and not self._leaving and not await wire.stale():
            return wire
        limit.reschedule(None)  # of the calls before; dialling has limits of its own
        await self._drop()  # nothing is awaited on it: nobody needs to know
        wire = self._wire = await self._dial()
        self._leaving = False
        return wire

    def _commands(self, batches: Sequence[_Batch]) -> list[bytes]:
        commands = [command for batch in batches for command in batch.commands]
        if any(batch.confirmed for batch in batches):
            # One for all of them, and nobody else waits for it.
            commands.append(self._confirmation)
        return commands

    async def _receive(self, wire: Wire, batches: Sequence[_Batch], limit: asyncio.Timeout) -> None:
        for batch in batches:
            for _ in batch.commands:
                batch.replies.append(await wire.receive())
                self._extend(limit)
            if not batch.confirmed:
                batch.resolve()
        confirmed = [batch for batch in batches if batch.confirmed]
        if confirmed:
            reply = await wire.receive()
            for batch in confirmed:
                batch.replies.append(reply)
                batch.resolve()

    def _extend(self, limit: asyncio.Timeout) -> None:
        until = asyncio.get_running_loop().time() + self._timeout_seconds
        # A timer for every reply would cost as much as the reply.
        if until - (limit.when() or 0.0) > self._timeout_seconds / 64:
            limit.reschedule(until)

    async def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.drop()

    def _fail(self, exc: Exception) -> None:
        for batch in self._flying:
            if not batch.future.done():
                # An error of its own for each: it is raised, and grows a traceback, in another task.
                batch.future.set_exception(convert(self._where, exc))

    async def aclose(self) -> None:
        """Close the connection; calls that wait raise ``HubClosedError``."""
        self._closed = True
        try:
            if self._task is not None:
                await end_task(self._task)
        finally:
            for batch in [*self._flying, *self._waiting]:
                if not batch.future.done():
                    batch.future.set_exception(HubClosedError("the redis backend was closed"))
            self._flying, self._waiting = [], []
            await self._drop()
