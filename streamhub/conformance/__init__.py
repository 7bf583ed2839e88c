"""The contract as a pytest suite: every backend, shipped or not, passes it.

In one file::

    from streamhub.conformance import ConformanceSuite, UrlHarness

    class TestMine(ConformanceSuite):
        def make_harness(self):
            return UrlHarness("mine://localhost/{unique}")

or from the command line: ``streamhub conformance --url mine://localhost``. See docs/conformance.md.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamhub.conformance.harness import Harness, UrlHarness
    from streamhub.conformance.runner import run
    from streamhub.conformance.suite import ConformanceSuite

__all__ = ["ConformanceSuite", "Harness", "UrlHarness", "run"]

_HOMES = {"ConformanceSuite": "suite", "Harness": "harness", "UrlHarness": "harness", "run": "runner"}

# Whoever runs the cases has imported pytest before; the second process and the command line never need it.
if "pytest" in sys.modules:
    import pytest

    pytest.register_assert_rewrite(
        "streamhub.conformance.appends",
        "streamhub.conformance.cancel",
        "streamhub.conformance.concurrency",
        "streamhub.conformance.ends",
        "streamhub.conformance.faults",
        "streamhub.conformance.fencing",
        "streamhub.conformance.drive",
        "streamhub.conformance.handoff",
        "streamhub.conformance.hints",
        "streamhub.conformance.input",
        "streamhub.conformance.lease",
        "streamhub.conformance.limits",
        "streamhub.conformance.opens",
        "streamhub.conformance.pages",
        "streamhub.conformance.replay",
        "streamhub.conformance.retention",
        "streamhub.conformance.takeover",
        "streamhub.conformance.waiting",
        "streamhub.conformance.writer",
    )


def __getattr__(name: str) -> Any:
    # Importing the suite before pytest rewrites its assertions would lose their explanations.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
