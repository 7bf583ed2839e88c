"""The conformance suite on the oldest Redis, on Valkey, on a cluster, through Sentinels, and in a container."""

from __future__ import annotations

import servers
from redis_support import RedisHarness

from streamhub.conformance import ConformanceSuite


class TestRedis62(ConformanceSuite):
    def make_harness(self) -> RedisHarness:
        return RedisHarness(servers.any_redis_server("6.2"))


class TestValkey(ConformanceSuite):
    def make_harness(self) -> RedisHarness:
        return RedisHarness(servers.any_redis_server("valkey"))


class TestCluster82(ConformanceSuite):
    def make_harness(self) -> RedisHarness:
        return RedisHarness(servers.redis_cluster("8.2"))


class TestSentinel82(ConformanceSuite):
    def make_harness(self) -> RedisHarness:
        return RedisHarness(servers.redis_sentinels("8.2"))


class TestContainer82(ConformanceSuite):
    def make_harness(self) -> RedisHarness:
        return RedisHarness(servers.contained_redis_server("8.2"))
