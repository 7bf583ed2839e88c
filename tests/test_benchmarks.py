"""The benchmarks run, and say what they measured. How fast anything is, no test judges."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import servers

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = {
    "throughput", "latency", "replay", "fanout", "crowd", "attach", "takeover", "cancel", "baseline", "processes",
}  # fmt: skip
BACKENDS = {"memory", "sqlite"}


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.timeout(120)
def test_a_quick_run_measures_everything_on_both_embedded_backends(tmp_path: Path) -> None:
    report_file = tmp_path / "report.json"

    done = run("--quick", "--json", str(report_file))

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(report_file.read_text())
    assert report["failures"] == []
    assert {"python", "cpu", "sqlite", "load average", "load average at the end"} <= set(report["environment"])
    measured = {(figure["backend"], figure["benchmark"]) for figure in report["figures"]}
    # memory:// is not shared by processes: there is nobody to take over from, to read elsewhere or to produce beside.
    alone = {("memory", "takeover"), ("memory", "crowd"), ("memory", "processes")}
    assert measured == {(backend, name) for backend in BACKENDS for name in BENCHMARKS} - alone
    for figure in report["figures"]:
        assert figure["min"] <= figure["median"] <= figure["max"], figure
        assert (figure["floor"] is None) == (figure["share"] is None) or figure["median"] == 0, figure
        assert figure["rounds"], figure
        assert figure["name"] in done.stdout


@pytest.mark.timeout(120)
@pytest.mark.parametrize("backend", ["redis", "nats"])
def test_servers_are_measured_that_are_started_for_it(backend: str, tmp_path: Path) -> None:
    _ = servers.redis_binary("8.2") if backend == "redis" else servers.nats_binary("2.15")
    report_file = tmp_path / "report.json"

    done = run("--quick", "throughput", "crowd", "baseline", "--backend", backend, "--json", str(report_file))

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(report_file.read_text())
    assert report["failures"] == []
    by_name = {figure["name"]: figure for figure in report["figures"]}
    assert {figure["benchmark"] for figure in report["figures"]} == {"throughput", "crowd", "baseline"}
    assert by_name["1 producer"]["floor"] is not None
    assert by_name["1 producer, beside what is written by hand"]["floor"] is not None


@pytest.mark.timeout(60)
def test_the_limits_of_a_namespace_are_measured_and_nothing_is_left() -> None:
    _ = servers.nats_binary("2.15")
    command = [sys.executable, "-m", "benchmarks.limits", "--streams", "30"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "30 streams opened" in done.stdout
    assert done.stdout.count("until nothing is left") == 2


@pytest.mark.timeout(120)
def test_chosen_benchmarks_run_on_the_backend_of_a_url_and_leave_no_stream_behind(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'mine.db'}?synchronous=full"

    done = run("--quick", "replay", "--backend", url, "--json", str(tmp_path / "report.json"))

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "report.json").read_text())["figures"]
    assert {figure["benchmark"] for figure in figures} == {"replay"}
    listed = subprocess.run(
        [sys.executable, "-m", "streamhub", "ls", "--url", url], capture_output=True, text=True, timeout=60, check=True
    )
    assert listed.stdout == ""


def test_an_unknown_benchmark_is_a_usage_error() -> None:
    done = run("thruput")

    assert done.returncode == 2
    assert "throughput" in done.stderr
