"""The conformance suite through PgBouncer in transaction mode: looking, and listening past it."""

from __future__ import annotations

import servers
from postgres_support import PostgresHarness

from streamhub.conformance import ConformanceSuite

pytest_plugins = ["streamhub.conformance.plugin"]


class TestPgBouncer(ConformanceSuite):
    def make_harness(self) -> PostgresHarness:
        server = servers.postgres_server("18")
        return PostgresHarness(server, pooler=servers.pgbouncer(server))


class TestPgBouncerListeningPastIt(ConformanceSuite):
    def make_harness(self) -> PostgresHarness:
        server = servers.postgres_server("18")
        options = f"timeout_seconds=2&connect_seconds=2&listen_host=127.0.0.1&listen_port={server.port}"
        return PostgresHarness(server, pooler=servers.pgbouncer(server), options=options)
