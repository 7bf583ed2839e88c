"""The backend that the URL schemes of NATS name."""

from __future__ import annotations

from collections.abc import Mapping

from streamhub.errors import ConfigError
from streamhub.kit import Context
from streamhub_nats.about import describe_server
from streamhub_nats.cancels import NatsCancels
from streamhub_nats.dialling import Dialler
from streamhub_nats.layout import wanted
from streamhub_nats.leases import NatsLeases
from streamhub_nats.names import Names
from streamhub_nats.notifications import Notifications
from streamhub_nats.server import Server
from streamhub_nats.session import Session
from streamhub_nats.store import NatsStore
from streamhub_nats.target import parse_url

SMALLEST_PAYLOAD = 256 * 1024
"""What the server must take as one message: metadata and an end are stored whole."""


class NatsBackend:
    """One NATS server, or a cluster, with JetStream.

    Args:
        url: ``nats://``, ``tls://``, ``ws://`` or ``wss://``, with the options of ``NatsOptions``.

    Raises:
        ConfigError: the URL or an option is wrong.
    """

    def __init__(self, url: str) -> None:
        target, options = parse_url(url)
        self._options = options
        self._context = Context("nats")
        self._server = Server(Dialler(target, options), options)
        self._notifications = Notifications(self._server.listener, where=target.where, api=self._server.api)
        names = Names(options.namespace)
        self._session = Session(self._server, names, options, self._context, self._notifications)
        fields = wanted(names)
        for ledger in (self._session.streams, self._session.leases, self._session.cancels):
            self._server.keep(ledger, fields[ledger.name])
        self._store = NatsStore(self._session)
        self._leases = NatsLeases(self._session)
        self._leases.fit(options.replicas or 1)
        self._cancels = NatsCancels(self._session)

    @property
    def store(self) -> NatsStore:
        """The streams."""
        return self._store

    @property
    def leases(self) -> NatsLeases:
        """The leases."""
        return self._leases

    @property
    def cancels(self) -> NatsCancels:
        """The cancel requests."""
        return self._cancels

    async def connect(self) -> None:
        """Connect, see that the server is fit, and create what is missing.

        Raises:
            ConfigError: the server is too old, or refuses the credentials or what this backend does.
            BackendUnavailableError: it cannot be reached.
        """
        self._server.reopen()
        self._notifications.reopen()
        try:
            channel = await self._server.channel()
            if channel.client.max_payload < SMALLEST_PAYLOAD:
                raise ConfigError(
                    f"{channel.where} takes messages of {channel.client.max_payload} bytes at most: set max_payload to"
                    f" {SMALLEST_PAYLOAD} or more, better 1048576"
                )
        except BaseException:
            await self._server.aclose()
            raise
        self._leases.fit(self._session.leases.replicas)
        self._context.enter()

    async def ping(self) -> None:
        """Make one round trip to the leader of the streams."""
        self._context.check()
        await self._session.streams.information()

    async def about(self) -> Mapping[str, str]:
        """Say what this is, in words."""
        self._context.check()
        facts = await describe_server(await self._server.channel(), self._session.streams, self._options)
        return {"backend": "nats", "server": self._server.where, **facts}

    async def aclose(self) -> None:
        """Close the connections; feeds raise, calls that wait too. Harmless when repeated."""
        if self._context.entered:
            self._context.check()
            self._context.leave()
        await self._notifications.aclose()
        await self._server.aclose()
