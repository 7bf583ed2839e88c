"""The backend that the URL schemes of PostgreSQL name."""

from __future__ import annotations

from collections.abc import Mapping

from streamhub_postgres.about import describe_server
from streamhub_postgres.cancels import PostgresCancels
from streamhub_postgres.leases import PostgresLeases
from streamhub_postgres.options import PostgresOptions
from streamhub_postgres.schema import prepare, script_for
from streamhub_postgres.session import Session
from streamhub_postgres.store import PostgresStore
from streamhub_postgres.target import parse_url


class PostgresBackend:
    """One schema of a database.

    Args:
        url: ``postgresql://`` or ``postgres://``, with the options of ``PostgresOptions``.

    Raises:
        ConfigError: the URL or an option is wrong.
    """

    def __init__(self, url: str) -> None:
        target, options = parse_url(url)
        self._session = Session(target, options)
        self._store = PostgresStore(self._session)
        self._leases = PostgresLeases(self._session)
        self._cancels = PostgresCancels(self._session)

    @property
    def store(self) -> PostgresStore:
        """The streams."""
        return self._store

    @property
    def leases(self) -> PostgresLeases:
        """The leases."""
        return self._leases

    @property
    def cancels(self) -> PostgresCancels:
        """The cancel requests."""
        return self._cancels

    @staticmethod
    def setup_sql(schema: str, *, since: int = 0) -> str:
        """Return the SQL that makes a schema, or upgrades it from a version; ``streamhub sql`` prints it."""
        return script_for(PostgresOptions(schema=schema).schema, since=since)

    async def connect(self) -> None:
        """Connect, see that the server is fit, and make the schema unless it is there.

        Raises:
            ConfigError: the server is too old or refuses something, or there is no schema and ``setup=never``.
            UnsupportedFormatError: a later release made the schema.
            BackendUnavailableError: the server cannot be reached.
        """
        session, options = self._session, self._session.options
        for lane in session.lanes:
            lane.reopen()
        try:
            await session.changing.run(lambda wire: prepare(wire, options.schema, setup=options.setup))
        except BaseException:
            await self._close_lanes()
            raise
        session.notifications.reopen()
        session.context.enter()

    async def ping(self) -> None:
        """Make one round trip."""
        await self._session.fetch(self._session.reading, "SELECT 1")

    async def about(self) -> Mapping[str, str]:
        """Say what this is, in words."""
        session, options = self._session, self._session.options
        facts = await session.run(
            session.reading, lambda wire: describe_server(wire, relaxed=options.durability == "relaxed")
        )
        return {
            "backend": "postgresql",
            "server": session.target.where,
            "schema": options.schema,
            **facts,
            "notifications": session.notifications.state,
            "limits": f"one append of at most {self._store.max_append_bytes} bytes",
        }

    async def aclose(self) -> None:
        """Close the connections; feeds raise, calls that wait too. Harmless when repeated."""
        if self._session.context.entered:
            self._session.context.check()
            self._session.context.leave()
        await self._session.notifications.aclose()
        await self._close_lanes()

    async def _close_lanes(self) -> None:
        for lane in self._session.lanes:
            await lane.aclose()
