"""The conformance suite on a hub whose chunks, leases and cancel requests live in three systems."""

from __future__ import annotations

from mixed_support import MixedHarness

from streamhub.conformance import ConformanceSuite


class TestMixed(ConformanceSuite):
    def make_harness(self) -> MixedHarness:
        return MixedHarness()
