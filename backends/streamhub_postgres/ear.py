"""The connection that listens, for a whole process; and the proof, again and again, that it hears.

It lives until its first error. Nothing reconnects behind anybody's back: whatever was notified meanwhile would be lost
without a word. Its feeds raise instead, and the core opens others, follows again and looks.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable

from streamhub.errors import BackendUnavailableError
from streamhub_postgres.faults import map_errors
from streamhub_postgres.heads import write_probe
from streamhub_postgres.lane import Lane
from streamhub_postgres.options import PostgresOptions
from streamhub_postgres.queries import load
from streamhub_postgres.target import Target
from streamhub_postgres.wire import Wire, open_wire

logger: logging.Logger = logging.getLogger("streamhub.postgres")

# How long a notification of one's own may take.
_PROBE_SECONDS = 2.0


class Ear:
    """One listening connection.

    Attributes:
        hearing: whether the last probe was heard, None before the first. Until one was, somebody has to look.
    """

    def __init__(
        self,
        target: Target,
        options: PostgresOptions,
        *,
        lane: Lane,
        opened: asyncio.Event,
        on_payload: Callable[[str], None],
    ) -> None:
        """Prepare to listen.

        Args:
            target: where to connect.
            options: of the URL.
            lane: carries the probes, as it carries everything else: not the connection that is tested.
            opened: set once what is notified from now on will be heard, if anything is.
            on_payload: called with each notification.
        """
        self.hearing: bool | None = None
        self._target = target
        self._options = options
        self._queries = load("channel.sql", options.schema)
        self._lane = lane
        self._opened = opened
        self._on_payload = on_payload
        self._ended = asyncio.Event()
        self._probe: tuple[str, asyncio.Event] | None = None

    async def run(self) -> None:
        """Listen until the connection ends, or falls silent; return only if there is no use in listening at all.

        Raises:
            BackendUnavailableError: it cannot connect, has lost its connection or does not hear any more.
            ConfigError: the server refuses the credentials.
        """
        with map_errors(self._target.where):
            wire = await open_wire(self._target, self._options, listening=True)
            try:
                if wire.pooled and self._options.notify == "auto":
                    logger.info(
                        "%s: a pooler is in between, which carries no notifications: looking instead;"
                        " listen_host and listen_port may name a way past it",
                        self._target.where,
                    )
                    return
                await self._listen(wire)
            finally:
                await wire.aclose()

    async def _listen(self, wire: Wire) -> None:
        wire.driver.add_termination_listener(lambda *_: self._ended.set())
        with wire.limited(self._options.connect_limit_seconds):
            ((channel,),) = await wire.driver.fetch(self._queries["name"])
            await wire.driver.add_listener(channel, self._heard)
        self._opened.set()
        while not self._ended.is_set():
            await self._test()
            await _first(self._ended, self._options.probe_seconds * random.uniform(0.8, 1.0))
        raise BackendUnavailableError(f"{self._target.where}: the connection for notifications has ended")

    async def _test(self) -> None:
        probe, arrived = write_probe(secrets.token_hex(8)), asyncio.Event()
        self._probe = (probe, arrived)
        try:
            await self._lane.run(lambda wire: wire.fetch(self._queries["probe"], probe))
        except BackendUnavailableError:
            return  # it may not have been sent: nothing is known
        await _first(arrived, _PROBE_SECONDS, self._ended)
        if self.hearing and not arrived.is_set():
            raise BackendUnavailableError(f"{self._target.where}: the connection for notifications is deaf")
        if self.hearing is None and not arrived.is_set():
            logger.warning("%s: notifications do not arrive: looking instead", self._target.where)
        self.hearing = arrived.is_set()

    def _heard(self, _driver: object, _pid: int, _channel: str, payload: str) -> None:
        self._on_payload(payload)

    def probed(self, payload: str) -> None:
        """Take note of a probe, perhaps of another process's."""
        if self._probe is not None and self._probe[0] == payload:
            self._probe[1].set()


async def _first(event: asyncio.Event, seconds: float, other: asyncio.Event | None = None) -> None:
    """Return once an event is set, or the time is over."""
    waits = [asyncio.create_task(each.wait()) for each in (event, other) if each is not None]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
