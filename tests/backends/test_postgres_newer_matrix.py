"""The conformance suite on PostgreSQL before the newest, and without notifications."""

from __future__ import annotations

import servers
from postgres_support import PostgresHarness

from streamhub.conformance import ConformanceSuite

pytest_plugins = ["streamhub.conformance.plugin"]


class TestPostgres16(ConformanceSuite):
    def make_harness(self) -> PostgresHarness:
        return PostgresHarness(servers.postgres_server("16"))


class TestPostgres17(ConformanceSuite):
    def make_harness(self) -> PostgresHarness:
        return PostgresHarness(servers.postgres_server("17"))


class TestPostgresWithoutNotifications(ConformanceSuite):
    def make_harness(self) -> PostgresHarness:
        return PostgresHarness(servers.postgres_server("18"), options="timeout_seconds=2&connect_seconds=2&notify=off")
