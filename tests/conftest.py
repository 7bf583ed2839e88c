"""Counts skips and their reasons, fails the session for one that is not allowed, and leaves out the matrix."""

from __future__ import annotations

from collections import Counter

import pytest
import servers

collect_ignore_glob = [] if servers.matrix() else ["*_matrix.py"]


class SkipCounter:
    """Every skip of the session, by reason."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.known_failures: Counter[str] = Counter()

    @property
    def refused(self) -> list[str]:
        return [reason for reason in self.reasons if servers.required() and servers.ground(reason) is None]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and hasattr(report, "wasxfail"):
            self.known_failures[report.wasxfail or report.nodeid] += 1
        elif report.skipped:
            self._count(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._count(report)

    def _count(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        longrepr = report.longrepr
        reason = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
        self.reasons[reason.removeprefix("Skipped: ")] += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.refused and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write = terminalreporter.write_line
        allowed = sum(count for reason, count in self.reasons.items() if servers.ground(reason) is not None)
        terminalreporter.section("skips")
        write(f"{self.reasons.total()} skipped, {allowed} of them for a ground that tests/servers.py allows")
        for reason, count in sorted(self.reasons.items()):
            ground = servers.ground(reason)
            write(f"  {count} x {reason}" + ("" if ground is None else f" ({ground})"))
        for reason, count in sorted(self.known_failures.items()):
            write(f"  {count} known to fail: {reason}")
        for reason in self.refused:
            write(f"FAILED: with STREAMHUB_REQUIRE_SERVERS=1 nothing may be skipped because: {reason}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SkipCounter(), "skip-counter")
