"""The conformance suite on the newest nats-server; test_nats_matrix.py has the others."""

from __future__ import annotations

import servers
from nats_support import NatsHarness

from streamhub.conformance import ConformanceSuite


class TestNats215(ConformanceSuite):
    def make_harness(self) -> NatsHarness:
        return NatsHarness(servers.any_nats_server("2.15"))
