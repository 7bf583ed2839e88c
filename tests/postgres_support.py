"""What tests of the postgresql backend share: a harness over a server of the tests' own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Self

import asyncpg
from postgres_servers import ForeignServer, PgBouncer, PostgresServer, least_privilege
from streamhub_postgres import PostgresBackend

from streamhub.conformance import Harness
from streamhub.conformance.waiting import eventually
from streamhub.errors import StreamHubError

FEW_ABILITIES = frozenset({"processes", "leftovers", "wipe"})
ABILITIES = FEW_ABILITIES | {"pause", "restart", "kill_connections", "kill_notifications", "flush_caches"}

TABLES = ("stream", "record", "garbage", "lease", "request")


class PostgresHarness(Harness):
    """A schema for each case, on a server that the tests may do anything to.

    Its owner makes it, with what ``streamhub sql`` prints; the backend's role has no more rights than
    ``docs/backends/postgresql.md`` lists, and would not be allowed to make it.
    """

    def __init__(
        self,
        server: PostgresServer | ForeignServer,
        *,
        pooler: PgBouncer | None = None,
        options: str = "timeout_seconds=2&connect_seconds=2",
    ) -> None:
        super().__init__()
        self.server = server
        self.pooler = pooler
        # Each acquisition, open and release is a commit, and a busy machine's disk may hold it up.
        self.short_seconds = 0.6
        self.lease_seconds = 3.0
        self.capabilities = FEW_ABILITIES if isinstance(server, ForeignServer) else ABILITIES
        self.name = "postgresql"
        self.schema = f"test_{self.token}"
        self.backends: list[PostgresBackend] = []
        self._made = False
        base = server.least_url if pooler is None else pooler.least_url
        self.url = f"{base}{'&' if '?' in base else '?'}schema={self.schema}&{options}"

    @asynccontextmanager
    async def admin(self) -> AsyncGenerator[Any]:
        """Connect as a superuser, beside the backend."""
        connection = await asyncpg.connect(self.server.url, timeout=10)
        try:
            yield connection
        finally:
            await connection.close()

    async def __aenter__(self) -> Self:
        async with self.admin() as admin:
            await admin.execute(PostgresBackend.setup_sql(self.schema))
            if isinstance(self.server, PostgresServer):
                await admin.execute(least_privilege(self.schema))
        self._made = True
        return self

    async def aclose(self) -> None:
        await super().aclose()
        if self._made:
            async with self.admin() as admin:
                await admin.execute(f'SET client_min_messages = error; DROP SCHEMA "{self.schema}" CASCADE')

    async def connect(self) -> PostgresBackend:
        backend = PostgresBackend(self.url or "")
        await backend.connect()
        self.backends.append(backend)
        return backend

    async def connect_kept(self) -> PostgresBackend:
        """Connect, as ``make`` does, and say what it is."""
        backend = await self.make()
        assert isinstance(backend, PostgresBackend)
        return backend

    async def count(self, table: str) -> int:
        """Count the rows of a table."""
        async with self.admin() as admin:
            return await admin.fetchval(f'SELECT count(*) FROM "{self.schema}".{table}')

    async def leftovers(self) -> int:
        return sum([await self.count(table) for table in TABLES])

    async def wipe(self) -> None:
        async with self.admin() as admin:
            for table in TABLES:
                await admin.execute(f'DELETE FROM "{self.schema}".{table}')
            await admin.execute(f'UPDATE "{self.schema}".counter SET generation = 0')

    @asynccontextmanager
    async def paused(self) -> AsyncGenerator[None]:
        assert isinstance(self.server, PostgresServer)
        self.server.freeze()
        try:
            yield
        finally:
            self.server.thaw()

    @asynccontextmanager
    async def down(self) -> AsyncGenerator[None]:
        assert isinstance(self.server, PostgresServer)
        self.server.stop()
        try:
            yield
        finally:
            self.server.start()
            if self.pooler is not None:
                # It waits a while before it tries again, and says so to everybody meanwhile.
                await eventually(self._answers)

    async def _answers(self) -> bool:
        with contextlib.suppress(StreamHubError):
            async with connected(self.url or ""):
                return True
        return False

    async def kill(self, which: str = "streamhub%") -> int:
        """End the connections whose application_name is like ``which``; return how many."""
        async with self.admin() as admin:
            return await admin.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name LIKE $1 AND pid <> pg_backend_pid()",
                which,
            )

    async def kill_connections(self) -> None:
        await self.kill()

    async def kill_notifications(self) -> None:
        await self.kill("streamhub listening")

    async def flush_caches(self) -> None:
        for backend in self.backends:
            for lane in backend._session.lanes:
                with contextlib.suppress(StreamHubError):
                    await lane.run(lambda wire: wire.execute("DEALLOCATE ALL"))


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[PostgresBackend]:
    """Connect to a URL inside the block."""
    backend = PostgresBackend(url)
    await backend.connect()
    try:
        yield backend
    finally:
        await backend.aclose()
