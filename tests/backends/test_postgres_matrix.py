"""The conformance suite on an older PostgreSQL, through PgBouncer in transaction mode, and without notifications."""

from __future__ import annotations

import servers
from postgres_support import PostgresHarness

from streamhub.conformance import ConformanceSuite

pytest_plugins = ["streamhub.conformance.plugin"]

TIMES = "timeout_seconds=2&connect_seconds=2"


class TestPostgres15(ConformanceSuite):
    def make_harness(self) -> PostgresHarness:
        return PostgresHarness(servers.postgres_server("15"))


class TestPgBouncer(ConformanceSuite):
    def make_harness(self) -> PostgresHarness:
        server = servers.postgres_server("18")
        return PostgresHarness(server, pooler=servers.pgbouncer(server))


class TestPgBouncerListeningPastIt(ConformanceSuite):
    def make_harness(self) -> PostgresHarness:
        server = servers.postgres_server("18")
        options = f"{TIMES}&listen_host=127.0.0.1&listen_port={server.port}"
        return PostgresHarness(server, pooler=servers.pgbouncer(server), options=options)


class TestPostgresWithoutNotifications(ConformanceSuite):
    def make_harness(self) -> PostgresHarness:
        return PostgresHarness(servers.postgres_server("18"), options=f"{TIMES}&notify=off")
