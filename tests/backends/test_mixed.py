"""Themes of the suite where the parts meet, on three systems at once; test_mixed_matrix.py has all of it."""

from __future__ import annotations

from mixed_support import MixedHarness

from streamhub.conformance.cancel import CancelTests
from streamhub.conformance.fencing import FencingTests
from streamhub.conformance.takeover import TakeoverTests


class TestMixed(FencingTests, TakeoverTests, CancelTests):
    def make_harness(self) -> MixedHarness:
        return MixedHarness()
