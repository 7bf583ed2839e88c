"""The conformance suite on the oldest nats-server, and on clusters of three that keep three copies."""

from __future__ import annotations

import servers
from nats_support import NatsHarness

from streamhub.conformance import ConformanceSuite

REPLICATED = "replicas=3&min_lease_seconds=0.5&timeout_seconds=5&connect_seconds=2"
"""Short leases: nobody stops a leader here, but for the cases that stop all servers."""


class TestNats211(ConformanceSuite):
    def make_harness(self) -> NatsHarness:
        return NatsHarness(servers.any_nats_server("2.11"))


class TestCluster215(ConformanceSuite):
    def make_harness(self) -> NatsHarness:
        return NatsHarness(servers.nats_cluster("2.15"), options=REPLICATED)


class TestCluster211(ConformanceSuite):
    def make_harness(self) -> NatsHarness:
        return NatsHarness(servers.nats_cluster("2.11"), options=REPLICATED)
