"""The conformance suite on older versions of PostgreSQL."""

from __future__ import annotations

import servers
from postgres_support import PostgresHarness

from streamhub.conformance import ConformanceSuite

pytest_plugins = ["streamhub.conformance.plugin"]


class TestPostgres13(ConformanceSuite):
    def make_harness(self) -> PostgresHarness:
        return PostgresHarness(servers.postgres_server("13"))


class TestPostgres14(ConformanceSuite):
    def make_harness(self) -> PostgresHarness:
        return PostgresHarness(servers.postgres_server("14"))


class TestPostgres15(ConformanceSuite):
    def make_harness(self) -> PostgresHarness:
        return PostgresHarness(servers.postgres_server("15"))
