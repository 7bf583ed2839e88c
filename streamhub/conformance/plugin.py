"""Counts the cases: how many ran, how many were skipped for which capability; anything else skipped is a failure.

Load it with ``-p streamhub.conformance.plugin``, or with ``pytest_plugins`` in a conftest or test module.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from streamhub.conformance.contract import ContractTests
from streamhub.conformance.harness import CAPABILITIES

_DECLARED = re.compile(r"(?P<backend>.+) does not declare (?P<capability>\w+)")


@dataclass
class _Tally:
    """What happened to the cases of one test class."""

    expected: int = 0
    cases: int = 0
    deselected: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    skipped: Counter[str] = field(default_factory=Counter[str])


class CaseCounter:
    """The plugin's state during one session."""

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}
        self._homes: dict[str, _Tally] = {}
        self._problems: list[str] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
        """Count the cases before and after -k, -m and the like."""
        whole = not any("::" in argument for argument in config.args)
        for item in items:
            cls = getattr(item, "cls", None)
            if cls is not None and issubclass(cls, ContractTests):
                tally = self._tallies.setdefault(_class_id(item), _Tally(expected_cases(cls) if whole else 0))
                tally.cases += 1
                self._homes[item.nodeid] = tally
        for name, tally in self._tallies.items():
            if tally.cases < tally.expected:
                self._problems.append(f"{name}: {tally.cases} cases collected, {tally.expected} expected")
        yield
        kept = {item.nodeid for item in items}
        for nodeid, tally in self._homes.items():
            tally.deselected += nodeid not in kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one report of a case."""
        tally = self._homes.get(report.nodeid)
        if tally is None:
            return
        if report.skipped and not hasattr(report, "wasxfail"):
            self._count_skip(tally, report)
        elif report.when == "call" or report.failed:
            tally.outcomes["xfailed" if hasattr(report, "wasxfail") else report.outcome] += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the session if a case was lost or skipped for no declared reason."""
        if self._problems and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the counts."""
        if not self._tallies:
            return
        terminalreporter.section("streamhub conformance")
        for name, tally in self._tallies.items():
            terminalreporter.write_line(f"{name}: {_counts(tally)}")
            for capability, count in sorted(tally.skipped.items()):
                terminalreporter.write_line(
                    f"  skipped {count}: {capability} is not declared ({CAPABILITIES[capability]})"
                )
        for problem in self._problems:
            terminalreporter.write_line(f"FAILED: {problem}", red=True)

    def _count_skip(self, tally: _Tally, report: pytest.TestReport) -> None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        match = _DECLARED.fullmatch(reason.removeprefix("Skipped: "))
        if match is not None and match["capability"] in CAPABILITIES:
            tally.skipped[match["capability"]] += 1
        else:
            tally.outcomes["skipped otherwise"] += 1
            self._problems.append(f"{report.nodeid} was skipped, though no capability is missing: {reason}")


def pytest_configure(config: pytest.Config) -> None:
    """Start counting."""
    if not config.pluginmanager.has_plugin("streamhub-conformance-counter"):
        config.pluginmanager.register(CaseCounter(), "streamhub-conformance-counter")


def expected_cases(cls: type) -> int:
    """Return how many cases a class must have at least: those of the whole suite, if it has the whole suite."""
    # Looked up, not imported: a run of single themes does without the others.
    suite = sys.modules.get("streamhub.conformance.suite")
    return suite.EXPECTED_CASES if suite is not None and issubclass(cls, suite.ConformanceSuite) else 0


def _class_id(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0].rpartition("::")[0].removeprefix("::")


def _counts(tally: _Tally) -> str:
    ran = sum(tally.outcomes.values())
    parts = [f"{tally.cases} cases", f"{ran} ran"]
    parts += [f"{count} {outcome}" for outcome, count in sorted(tally.outcomes.items())]
    parts.append(f"{sum(tally.skipped.values())} skipped for missing capabilities")
    if tally.deselected:
        parts.append(f"{tally.deselected} deselected")
    return ", ".join(parts)
