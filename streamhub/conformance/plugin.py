"""Counts the cases: how many ran, how many were skipped for which capability; anything else skipped is a failure.

Load it with ``-p streamhub.conformance.plugin``, or with ``pytest_plugins`` in a conftest or test module. With
pytest-xdist, whose workers collect and whose controller hears of what ran, it must be loaded in both: with ``-p``.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from streamhub.conformance.contract import ContractTests
from streamhub.conformance.harness import CAPABILITIES

_OUTPUT = "streamhub_conformance"
_DECLARED = re.compile(r"(?P<backend>.+) does not declare (?P<capability>\w+)")


@dataclass
class _Tally:
    """What was collected of one test class, and what happened to it; ``skipped`` is by reason."""

    expected: int = 0
    cases: int = 0
    deselected: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    skipped: Counter[str] = field(default_factory=Counter[str])


class CaseCounter:
    """The plugin's state during one session."""

    def __init__(self) -> None:
        self._collected: set[str] = set()  # those classes of ``_tallies`` that hold cases of the suite
        self._tallies: dict[str, _Tally] = {}
        self._problems: list[str] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
        """Count the cases before and after -k, -m and the like."""
        whole = not any("::" in argument for argument in config.args)
        homes: dict[str, str] = {}
        for item in items:
            cls = getattr(item, "cls", None)
            if cls is not None and issubclass(cls, ContractTests):
                name = homes[item.nodeid] = _class_id(item.nodeid)
                self._collected.add(name)
                tally = self._tally(name)
                tally.expected = expected_cases(cls) if whole else 0
                tally.cases += 1
        yield
        for nodeid in homes.keys() - {item.nodeid for item in items}:
            self._tally(homes[nodeid]).deselected += 1

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one report, of a case or of another test: which it is, a controller learns at the end."""
        tally = self._tally(_class_id(report.nodeid))
        if report.skipped and not hasattr(report, "wasxfail"):
            tally.skipped[_reason(report)] += 1
        elif report.when == "call" or report.failed:
            tally.outcomes["xfailed" if hasattr(report, "wasxfail") else report.outcome] += 1

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Learn what a worker of pytest-xdist's has collected; each collects everything."""
        for name, counts in getattr(node, "workeroutput", {}).get(_OUTPUT, {}).items():
            self._collected.add(name)
            tally = self._tally(name)
            tally.expected, tally.cases, tally.deselected = counts

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the session if a case was lost or skipped for no declared reason."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[_OUTPUT] = {
                name: (tally.expected, tally.cases, tally.deselected) for name, tally in self._tallies_of_cases()
            }
            return
        for name, tally in self._tallies_of_cases():
            self._judge(name, tally)
        if self._problems and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _judge(self, name: str, tally: _Tally) -> None:
        if tally.cases < tally.expected:
            self._problems.append(f"{name}: {tally.cases} cases collected, {tally.expected} expected")
        for reason in [reason for reason in tally.skipped if _capability(reason) is None]:
            count = tally.skipped.pop(reason)
            tally.outcomes["skipped otherwise"] += count
            self._problems.append(f"{name}: {count} skipped, though no capability is missing: {reason}")

    def _tally(self, name: str) -> _Tally:
        return self._tallies.setdefault(name, _Tally())

    def _tallies_of_cases(self) -> list[tuple[str, _Tally]]:
        return [(name, self._tallies[name]) for name in sorted(self._collected)]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the counts."""
        if not self._collected:
            return
        terminalreporter.section("streamhub conformance")
        for name, tally in self._tallies_of_cases():
            terminalreporter.write_line(f"{name}: {_counts(tally)}")
            skipped = Counter[str]()
            for reason, count in tally.skipped.items():
                skipped[_capability(reason) or reason] += count
            for capability, count in sorted(skipped.items()):
                terminalreporter.write_line(
                    f"  skipped {count}: {capability} is not declared ({CAPABILITIES[capability]})"
                )
        for problem in self._problems:
            terminalreporter.write_line(f"FAILED: {problem}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Start counting."""
    if not config.pluginmanager.has_plugin("streamhub-conformance-counter"):
        config.pluginmanager.register(CaseCounter(), "streamhub-conformance-counter")


def expected_cases(cls: type) -> int:
    """Return how many cases a class must have at least: those of the whole suite, if it has the whole suite."""
    # Looked up, not imported: a run of single themes does without the others.
    suite = sys.modules.get("streamhub.conformance.suite")
    return suite.EXPECTED_CASES if suite is not None and issubclass(cls, suite.ConformanceSuite) else 0


def _class_id(nodeid: str) -> str:
    return nodeid.partition("[")[0].rpartition("::")[0].removeprefix("::")


def _reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def _capability(reason: str) -> str | None:
    match = _DECLARED.fullmatch(reason)
    return match["capability"] if match is not None and match["capability"] in CAPABILITIES else None


def _counts(tally: _Tally) -> str:
    ran = sum(tally.outcomes.values())
    parts = [f"{tally.cases} cases", f"{ran} ran"]
    parts += [f"{count} {outcome}" for outcome, count in sorted(tally.outcomes.items())]
    parts.append(f"{sum(tally.skipped.values())} skipped for missing capabilities")
    if tally.deselected:
        parts.append(f"{tally.deselected} deselected")
    return ", ".join(parts)
