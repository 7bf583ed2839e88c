"""One connection that many tasks share: what they send together is written together, and answered in order.

A caller that is cancelled leaves its commands to themselves: they are sent, or not, and their replies are dropped. No
caller ever owns the connection, so none can leave it in the middle of a reply.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from streamhub.errors import HubClosedError, StreamHubError
from streamhub_redis.dialling import Dial
from streamhub_redis.faults import convert
from streamhub_redis.pair import end_task, first_failure
from streamhub_redis.wire import Reply, Wire


class _Batch:
    """The commands of one call."""

    __slots__ = ("commands", "future", "replies")

    def __init__(self, commands: Sequence[bytes], future: asyncio.Future[list[Reply]]) -> None:
        self.commands = commands
        self.future = future
        self.replies: list[Reply] = []


class _Reconnect(Exception):  # noqa: N818 - a turn of the loop, not an error
    """Nothing is awaited on the connection, and it is of no more use."""


class Channel:
    """Keeps one connection to where ``dial`` leads, opened when it is needed."""

    def __init__(self, dial: Dial, *, where: str) -> None:
        self._dial = dial
        self._where = where
        self._unsent: list[_Batch] = []
        self._awaited: deque[_Batch] = deque()
        self._arrived = asyncio.Event()
        self._sent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def run(self, commands: Sequence[bytes]) -> list[Reply]:
        """Send packed commands, together, and return their replies; a refusal is a reply, not raised.

        Raises:
            BackendUnavailableError: the connection broke, or could not be made; commands may have been executed.
            ConfigError: the server refused the credentials.
        """
        if self._closed:
            raise HubClosedError("the redis backend is closed")
        batch = _Batch(commands, asyncio.get_running_loop().create_future())
        self._unsent.append(batch)
        self._arrived.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._live(), name="redis channel")
        return await batch.future

    async def _live(self) -> None:
        """Use one connection after another, while there is anything to send."""
        while not self._closed:
            try:
                wire = await self._dial()
            except Exception as exc:
                self._fail(self._unsent, exc)
                self._unsent = []
                return
            try:
                await first_failure(self._send(wire), self._receive(wire))
            except _Reconnect:
                pass
            except Exception as exc:
                self._fail(self._awaited, exc)
                self._awaited.clear()
            finally:
                await wire.drop()
            # What was not sent yet goes over the next connection.
            if not self._unsent:
                return

    async def _send(self, wire: Wire) -> None:
        while True:
            while not self._unsent:
                self._arrived.clear()
                await self._arrived.wait()
            if wire.demoted:
                await _ended()
            if not self._awaited and await wire.stale():
                raise _Reconnect
            batches, self._unsent = [batch for batch in self._unsent if not batch.future.cancelled()], []
            if batches:
                self._awaited.extend(batches)
                self._sent.set()
                await wire.send([command for batch in batches for command in batch.commands])

    async def _receive(self, wire: Wire) -> None:
        awaited = self._awaited
        while True:
            while not awaited:
                self._sent.clear()
                await self._sent.wait()
            batch = awaited[0]
            replies = batch.replies
            for _ in range(len(batch.commands) - len(replies)):
                replies.append(await wire.receive())
            awaited.popleft()
            if not batch.future.done():
                batch.future.set_result(replies)
            if wire.demoted and not awaited:
                raise _Reconnect

    def _fail(self, batches: Sequence[_Batch] | deque[_Batch], exc: Exception) -> None:
        for batch in batches:
            if not batch.future.done():
                # An error of its own for each: it is raised, and grows a traceback, in another task.
                batch.future.set_exception(_error(self._where, exc))

    async def aclose(self) -> None:
        """Close the connection; calls that wait raise ``HubClosedError``."""
        self._closed = True
        if self._task is not None:
            await end_task(self._task)
        closed = HubClosedError("the redis backend was closed")
        self._fail([*self._awaited, *self._unsent], closed)
        self._awaited.clear()
        self._unsent = []


async def _ended() -> None:
    """Send nothing more: the other half ends the connection once everything is answered."""
    await asyncio.get_running_loop().create_future()


def _error(where: str, exc: Exception) -> StreamHubError:
    return type(exc)(*exc.args) if isinstance(exc, HubClosedError) else convert(where, exc)
