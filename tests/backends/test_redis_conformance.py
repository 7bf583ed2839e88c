"""The conformance suite on the newest Redis; test_redis_matrix.py has the others."""

from __future__ import annotations

import servers
from redis_support import RedisHarness

from streamhub.conformance import ConformanceSuite


class TestRedis82(ConformanceSuite):
    def make_harness(self) -> RedisHarness:
        return RedisHarness(servers.any_redis_server("8.2"))
