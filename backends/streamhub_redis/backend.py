"""The backend that the URL schemes of Redis name."""

from __future__ import annotations

from collections.abc import Mapping

from redis.exceptions import ResponseError

from streamhub_redis.about import describe_server
from streamhub_redis.cancels import RedisCancels
from streamhub_redis.cluster import ClusterServer
from streamhub_redis.context import Context
from streamhub_redis.faults import refusal
from streamhub_redis.leases import RedisLeases
from streamhub_redis.names import Names
from streamhub_redis.notifications import Notifications
from streamhub_redis.server import Server
from streamhub_redis.session import Session
from streamhub_redis.single import SingleServer
from streamhub_redis.store import RedisStore
from streamhub_redis.target import parse_url


class RedisBackend:
    """One Redis or Valkey server, a master that Sentinels know, or a cluster.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://`` or ``redis+cluster://``, with the options
            of ``RedisOptions``.

    Raises:
        ConfigError: the URL or an option is wrong.
    """

    def __init__(self, url: str) -> None:
        target, options = parse_url(url)
        self._where = target.where
        cluster = target.kind == "cluster"
        self._server: Server = ClusterServer(target, options) if cluster else SingleServer(target, options)
        self._context = Context()
        self._notifications = Notifications(self._server, options, where=target.where)
        self._options = options
        session = Session(self._server, Names(options.prefix, target.db), options, self._context, self._notifications)
        self._store = RedisStore(session)
        self._leases = RedisLeases(session)
        self._cancels = RedisCancels(session)

    @property
    def store(self) -> RedisStore:
        """The streams."""
        return self._store

    @property
    def leases(self) -> RedisLeases:
        """The leases."""
        return self._leases

    @property
    def cancels(self) -> RedisCancels:
        """The cancel requests."""
        return self._cancels

    async def connect(self) -> None:
        """Connect, see that the server is fit, and load the scripts.

        Raises:
            ConfigError: a file of certificates cannot be read, or the server is too old, or refuses the credentials or
                what this backend does.
            BackendUnavailableError: it cannot be reached.
        """
        self._options.check_files()
        try:
            await self._server.connect()
        except BaseException:
            await self._server.aclose()
            raise
        self._notifications.reopen()
        self._context.enter()

    async def ping(self) -> None:
        """Make one round trip to every server that holds keys."""
        self._context.check()
        for node in await self._server.masters():
            reply = await node.command(b"PING")
            if isinstance(reply, ResponseError):
                raise refusal(node.where, reply)

    async def about(self) -> Mapping[str, str]:
        """Say what this is, in words; what the user may not ask is unknown."""
        self._context.check()
        facts = await describe_server(await self._server.masters(), self._options)
        return {"backend": "redis", "server": self._where, **facts}

    async def aclose(self) -> None:
        """Close the connections; feeds raise, calls that wait too. Harmless when repeated."""
        if self._context.entered:
            self._context.check()
            self._context.leave()
        await self._notifications.aclose()
        await self._server.aclose()
