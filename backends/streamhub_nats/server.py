"""The connection for calls: made when it is needed, looked at before it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from streamhub.errors import HubClosedError, StreamHubError
from streamhub_nats.channel import Channel
from streamhub_nats.concurrently import awaited
from streamhub_nats.dialling import Dialler
from streamhub_nats.layout import prepare
from streamhub_nats.ledger import Ledger
from streamhub_nats.options import NatsOptions


class Server:
    """One NATS system. Every connection is looked at: the next server may be of another version."""

    def __init__(self, dialler: Dialler, options: NatsOptions) -> None:
        self._dialler = dialler
        self._options = options
        self._ledgers: list[tuple[Ledger, Mapping[str, Any]]] = []
        self._channel: Channel | None = None
        self._doubtful = True
        self._making: asyncio.Task[Channel] | None = None
        self._closed = False

    @property
    def where(self) -> str:
        """What messages call it."""
        return self._dialler.where

    @property
    def api(self) -> str:
        """What subjects of the JetStream API begin with."""
        return f"$JS.{self._options.domain}.API" if self._options.domain else "$JS.API"

    @property
    def timeout_seconds(self) -> float:
        """How long a call may take."""
        return self._options.timeout_seconds

    def keep(self, ledger: Ledger, fields: Mapping[str, Any]) -> None:
        """See to a JetStream stream at every connection."""
        self._ledgers.append((ledger, fields))

    def reopen(self) -> None:
        """Take calls again after ``aclose``."""
        self._closed = False

    def doubt(self) -> None:
        """Look at the server again before the next call."""
        self._doubtful = True

    @property
    def ready(self) -> Channel | None:
        """The connection for calls, if it is there and fit."""
        channel = self._channel
        return channel if channel is not None and channel.usable and not self._doubtful else None

    async def channel(self) -> Channel:
        """Return the connection for calls, making it, or looking at it again, if necessary.

        Raises:
            BackendUnavailableError: it cannot be made.
            ConfigError: the server is not fit, or refused the credentials.
        """
        channel = self.ready
        if channel is not None:
            return channel
        if self._closed:
            raise HubClosedError("the nats backend is closed")
        if self._making is None:
            self._making = asyncio.create_task(self._make(), name="nats connect")
            self._making.add_done_callback(self._made)
        return await awaited(self._making)

    def _made(self, task: asyncio.Task[Channel]) -> None:
        self._making = None
        if not task.cancelled():
            task.exception()  # whoever waited has it

    async def _make(self) -> Channel:
        channel = self._channel
        if channel is None or not channel.usable:
            if channel is not None:
                self._channel = None
                await channel.aclose()
            channel = await self._dialler.dial("calls", on_end=self._ended)
        try:
            await self._look(channel)
        except BaseException:
            self._channel = None
            await channel.aclose()
            raise
        self._channel, self._doubtful = channel, False
        return channel

    async def _look(self, channel: Channel) -> None:
        for ledger, fields in self._ledgers:
            await prepare(ledger, fields, self._options, channel)

    def _ended(self, error: StreamHubError) -> None:
        self._doubtful = True

    async def listener(self, on_end: Callable[[StreamHubError], None]) -> Channel:
        """Open a connection for notifications. The caller closes it."""
        return await self._dialler.dial("notifications", on_end=on_end)

    async def aclose(self) -> None:
        """Close the connection; calls that wait raise."""
        self._closed = True
        making = self._making
        if making is not None:
            making.cancel()
            await asyncio.wait([making])
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.aclose()
