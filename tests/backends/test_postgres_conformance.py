"""The conformance suite on the newest PostgreSQL; the matrix has the others, and PgBouncer."""

from __future__ import annotations

import servers
from postgres_support import PostgresHarness

from streamhub.conformance import ConformanceSuite

pytest_plugins = ["streamhub.conformance.plugin"]


class TestPostgres18(ConformanceSuite):
    def make_harness(self) -> PostgresHarness:
        return PostgresHarness(servers.any_postgres_server("18"))
