"""One life of a process's notifications: a connection that listens, and looks while nothing is heard from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from streamhub.errors import BackendUnavailableError, ConfigError, StreamHubError
from streamhub_postgres.ear import Ear
from streamhub_postgres.faults import convert
from streamhub_postgres.heads import PROBE
from streamhub_postgres.lane import Lane
from streamhub_postgres.options import PostgresOptions
from streamhub_postgres.target import Target

# How often a look is taken: at once after a change, then ever more rarely.
_SHORTEST_LOOK_SECONDS = 0.02
_LONGEST_LOOK_SECONDS = 0.25


class Watch:
    """Listens, if it may and there is any use in it, and looks as long as it does not hear."""

    def __init__(
        self,
        target: Target,
        options: PostgresOptions,
        *,
        lane: Lane,
        on_payload: Callable[[str], None],
        look: Callable[[], Awaitable[bool]],
        summarise: Callable[[], None],
        on_end: Callable[[Watch, StreamHubError], None],
    ) -> None:
        """Begin.

        Args:
            target: where to connect.
            options: of the URL.
            lane: carries looks, and probes.
            on_payload: called with each notification.
            look: finds out what has happened, and says whether anything has.
            summarise: called when anything may have happened.
            on_end: called with this and the error that ended it, unless it is closed.
        """
        self._target = target
        self._lane = lane
        self._on_payload = on_payload
        self._look = look
        self._summarise = summarise
        self._on_end = on_end
        self._opened = asyncio.Event()
        self._error: StreamHubError | None = None
        self._ear: Ear | None = None
        if options.notifies:
            self._ear = Ear(target, options, lane=lane, opened=self._opened, on_payload=self._received)
        self._task = asyncio.create_task(self._live(), name="postgresql notifications")

    @property
    def hearing(self) -> bool:
        """Whether notifications arrive."""
        return self._ear is not None and self._ear.hearing is True

    async def opened(self) -> None:
        """Wait until what happens from now on is heard, or looked for.

        Raises:
            BackendUnavailableError: the connection cannot be made, or has ended already.
            ConfigError: the server refuses the credentials.
        """
        await self._opened.wait()
        error = self._error
        if isinstance(error, ConfigError):
            raise ConfigError(*error.args) from error
        if error is not None:
            raise BackendUnavailableError(f"there is no connection for notifications: {error}") from error

    async def _live(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(), name="postgresql listening")
                group.create_task(self._look_on(), name="postgresql looking")
        except ExceptionGroup as group:
            self._error = convert(self._target.where, group.exceptions[0])
            self._on_end(self, self._error)
        finally:
            if self._error is None:
                self._error = BackendUnavailableError("it was closed")
            self._opened.set()

    async def _listen(self) -> None:
        if self._ear is not None:
            await self._ear.run()
            self._ear = None  # there is no use in listening
        self._opened.set()

    async def _look_on(self) -> None:
        pause, dialled = _SHORTEST_LOOK_SECONDS, self._lane.dialled
        while True:
            await asyncio.sleep(pause)
            if self.hearing or not self._opened.is_set():
                pause = _SHORTEST_LOOK_SECONDS
                continue
            try:
                moved = await self._look()
            except BackendUnavailableError:
                moved = False
            if self._lane.dialled != dialled:
                # Between two connections, it may have been another server's data, or another moment of it.
                dialled = self._lane.dialled
                self._summarise()
            pause = _SHORTEST_LOOK_SECONDS if moved else min(2 * pause, _LONGEST_LOOK_SECONDS)

    def _received(self, payload: str) -> None:
        if payload.startswith(PROBE):
            if self._ear is not None:
                self._ear.probed(payload)
            return
        self._on_payload(payload)

    async def aclose(self) -> None:
        """End; nobody is told."""
        self._task.cancel()
        if self._error is None:
            self._error = BackendUnavailableError("it was closed")
        self._opened.set()  # a task that is cancelled before its first step runs none of its lines
        await asyncio.wait([self._task])
