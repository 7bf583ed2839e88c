"""The suite's own machinery: the guard, the counting, the runner, the second process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from streamhub.conformance import ConformanceSuite, UrlHarness, run
from streamhub.conformance.contract import ContractTests
from streamhub.conformance.fencing import FencingTests
from streamhub.conformance.harness import CAPABILITIES
from streamhub.conformance.lease import LeaseTests
from streamhub.conformance.process import URL_VARIABLE, PeerGoneError
from streamhub.conformance.runner import command
from streamhub.errors import BackendNotFoundError, BackendNotInstalledError, LeaseHeldError, StreamNotFoundError

HEAD = """
import pytest
from streamhub.conformance import ConformanceSuite, UrlHarness
from streamhub.conformance.contract import ContractTests
"""


def pytest_in(directory: Path, source: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a test file in a directory without any configuration, with the plugin."""
    path = directory / "test_it.py"
    path.write_text(HEAD + textwrap.dedent(source))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    line = [sys.executable, "-m", "pytest", "-p", "streamhub.conformance.plugin", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*line, str(path), *args], cwd=directory, env=environment, check=False, capture_output=True, text=True
    )


# The guard


def test_contract_case_cannot_be_overridden() -> None:
    with pytest.raises(TypeError, match=r"TestMine.test_stale_generation_cannot_append overrides .*xfail"):

        class TestMine(FencingTests):
            async def test_stale_generation_cannot_append(self, harness: object) -> None:
                """Do nothing."""


def test_contract_case_cannot_be_removed() -> None:
    with pytest.raises(TypeError, match="overrides"):
        type("TestMine", (ConformanceSuite,), {"test_stale_generation_cannot_append": None})


def test_contract_case_can_be_marked_as_a_known_failure_with_a_reason() -> None:
    class TestMine(FencingTests):
        @pytest.mark.xfail(reason="the server cannot")
        async def test_stale_generation_cannot_append(self, harness: object) -> None:
            """See FencingTests."""

    with pytest.raises(TypeError, match="overrides"):

        class TestSilent(FencingTests):
            @pytest.mark.xfail
            async def test_stale_generation_cannot_append(self, harness: object) -> None:
                """See FencingTests."""

    assert TestMine


def test_two_themes_cannot_share_a_name() -> None:
    class One(ContractTests):
        async def test_same(self, harness: object) -> None:
            """X."""

    class Two(ContractTests):
        async def test_same(self, harness: object) -> None:
            """X."""

    with pytest.raises(TypeError, match="both define test_same"):
        type("Both", (One, Two), {})


def test_guard_fails_the_collection(tmp_path: Path) -> None:
    done = pytest_in(
        tmp_path,
        """
        class TestMine(ConformanceSuite):
            async def test_stale_generation_cannot_append(self, harness): pass
        """,
    )
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert "may be overridden only with @pytest.mark.xfail(reason='...')" in done.stdout


# The counting

SMALL = """
class TestMine(ContractTests):
    def make_harness(self):
        return UrlHarness("memory://")

    async def test_passes(self, harness):
        await harness.make()

    async def test_needs_a_process(self, harness):
        async with harness.process():
            pass

    async def test_needs_a_restart(self, harness):
        async with harness.down():
            pass

    async def test_needs_a_restart_too(self, harness):
        async with harness.down():
            pass
"""


def test_skips_for_missing_capabilities_are_counted_and_allowed(tmp_path: Path) -> None:
    done = pytest_in(tmp_path, SMALL)
    assert done.returncode == pytest.ExitCode.OK, done.stdout
    assert "TestMine: 4 cases, 1 ran, 1 passed, 3 skipped for missing capabilities" in done.stdout
    assert "skipped 1: processes is not declared" in done.stdout
    assert "skipped 2: restart is not declared" in done.stdout


def test_any_other_skip_fails_the_session(tmp_path: Path) -> None:
    for skip in ('pytest.skip("no time")', 'pytest.skip("memory does not declare patience")'):
        done = pytest_in(tmp_path, SMALL + f"\n    async def test_skips(self, harness):\n        {skip}\n")
        assert done.returncode == pytest.ExitCode.TESTS_FAILED
        assert "TestMine: 1 skipped, though no capability is missing: " in done.stdout


@pytest.mark.timeout(180)  # it starts pytest three times, twice with workers
def test_workers_of_xdist_are_counted_together(tmp_path: Path) -> None:
    done = pytest_in(tmp_path, SMALL, "-n", "2")
    alone = pytest_in(tmp_path, SMALL)
    told = [
        [line for line in each.stdout.splitlines() if "cases, " in line or "  skipped" in line]
        for each in (done, alone)
    ]
    assert told[0] == told[1] != []
    assert done.returncode == alone.returncode
    skipping = SMALL + '\n    async def test_skips(self, harness):\n        pytest.skip("no time")\n'
    done = pytest_in(tmp_path, skipping, "-n", "2")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "TestMine: 1 skipped, though no capability is missing: no time" in done.stdout


def test_deselected_cases_are_counted(tmp_path: Path) -> None:
    done = pytest_in(tmp_path, SMALL, "-k", "passes")
    assert "4 cases, 1 ran, 1 passed, 0 skipped for missing capabilities, 3 deselected" in done.stdout


def test_suite_that_lost_cases_fails(tmp_path: Path) -> None:
    whole = """
        from streamhub.conformance import suite
        class TestMine(ConformanceSuite):
            def make_harness(self):
                return UrlHarness("memory://")
    """
    done = pytest_in(tmp_path, whole, "-k", "offset_round_trips")
    assert done.returncode == pytest.ExitCode.OK, done.stdout
    done = pytest_in(tmp_path, whole + "    suite.EXPECTED_CASES += 1\n", "-k", "offset_round_trips")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "cases collected" in done.stdout


# The runner


@pytest.mark.timeout(120)
def test_runner_works_where_no_pytest_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError('not mine')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    url = f"sqlite:///{tmp_path}/streams.db"
    assert run(url, ["-q", "-k", "two_replays or what_was_flushed_is_seen"]) == 0
    printed = capfd.readouterr().out
    assert "3 ran, 3 passed" in printed
    assert "streamhub conformance" in printed


def test_runner_never_puts_the_url_on_the_command_line() -> None:
    assert "secret" not in " ".join(command("/tmp", ["-x"]))


def test_runner_checks_the_url_before_it_starts() -> None:
    with pytest.raises(BackendNotFoundError):
        run("nowhere://user:secret@host")


def test_runner_names_the_extra_when_pytest_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamhub.conformance.runner.NEEDED", ("pytest", "no_such_plugin"))
    with pytest.raises(BackendNotInstalledError, match=r"no_such_plugin.*streamhub-py\[conformance\]"):
        run("memory://")


def test_run_by_url_needs_a_url(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != URL_VARIABLE}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(command(str(tmp_path), []), env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert "streamhub conformance --url" in done.stdout + done.stderr


def test_package_needs_no_pytest_until_the_suite_is_asked_for() -> None:
    code = "import sys, streamhub.conformance, streamhub.conformance.worker; sys.exit('pytest' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


# Harness and second process


async def test_harness_closes_what_a_case_opened() -> None:
    async with UrlHarness("memory://") as harness:
        hub = await harness.hub()
        backend = await harness.make()
        await backend.ping()
    with pytest.raises(Exception, match=r"not open|closed"):
        await hub.info("key")
    with pytest.raises(Exception, match=r"not connected|closed"):
        await backend.ping()


async def test_harnesses_share_nothing() -> None:
    async with UrlHarness("memory://") as one, UrlHarness("memory://named?") as two:
        assert one.url != two.url
        assert one.unique_key() != two.unique_key()
        assert not {one.token, two.token} & {""}


def test_url_template_is_filled_in() -> None:
    harness = UrlHarness("sqlite:////tmp/{unique}.db")
    assert harness.url == f"sqlite:////tmp/{harness.token}.db"
    assert harness.capabilities == {"processes"}
    assert UrlHarness("memory://").capabilities == frozenset()
    assert "secret" not in repr(UrlHarness("redis://user:secret@host/0"))


async def test_undeclared_abilities_skip_with_one_reason() -> None:
    harness = UrlHarness("memory://")
    for capability in CAPABILITIES:
        with pytest.raises(pytest.skip.Exception, match=f"memory does not declare {capability}"):
            harness.require(capability)
    with pytest.raises(AssertionError, match="unknown capability"):
        harness.require("levitation")


@pytest.fixture
def shared(tmp_path: Path) -> UrlHarness:
    return UrlHarness(f"sqlite:///{tmp_path}/{{unique}}.db")


async def test_peer_returns_values_and_raises_errors_as_they_are(shared: UrlHarness) -> None:
    async with shared as harness, harness.process() as peer:
        lease = await peer.call("leases.acquire", "key", owner="o", run="r", ttl_seconds=30)
        with pytest.raises(LeaseHeldError) as caught:
            await peer.call("leases.acquire", "key", owner="p", run="r", ttl_seconds=30)
        assert caught.value.generation == lease.generation
        assert await peer.call("store.keys", "") == []
        for name in ("_make_hub", "nobody.knows", "store._private", "os.getpid"):
            with pytest.raises(ValueError, match="no command"):
                await peer.call(name)


async def test_peer_produces_and_subscribes(shared: UrlHarness) -> None:
    async with shared as harness, harness.process() as peer:
        run_name, generation = await peer.call("produce", "key", run="r")
        assert run_name == "r"
        await peer.call("subscribe", "mine", "key")
        offsets = await peer.call("send", "key", "a", b"b")
        assert [tuple(offset) for offset in offsets] == [(generation, 1), (generation, 2)]
        assert await peer.call("flush", "key") == offsets[-1]
        assert await peer.call("received", "mine", 2) == [(offsets[0], b"a"), (offsets[1], b"b")]
        assert await peer.call("history", "key") == []
        await peer.call("finish", "key")
        await peer.call("outcome", "key")
        chunks, end = await peer.call("read_all", "mine")
        assert (len(chunks), end.state) == (2, "completed")
        await peer.call("subscribe", "none", "no such key")
        for command_name in ("received", "read_all"):
            with pytest.raises(StreamNotFoundError):
                await peer.call(command_name, "none", *([1] if command_name == "received" else []))
        await peer.call("close_hub")


async def test_peer_that_is_stopped_answers_when_it_goes_on(shared: UrlHarness) -> None:
    async with shared as harness, harness.process() as peer:
        peer.stop()
        asked = asyncio.create_task(peer.call("ready"))
        await asyncio.wait({asked}, timeout=0.2)
        assert not asked.done()
        peer.cont()
        assert await asked == peer.pid


async def test_peer_that_is_killed_says_so(shared: UrlHarness) -> None:
    async with shared as harness, harness.process() as peer:
        peer.stop()
        asked = asyncio.create_task(peer.call("ready"))
        await asyncio.sleep(0)
        peer.kill()
        with pytest.raises(PeerGoneError):
            await asked
        assert await peer.gone() == -9
        with pytest.raises(PeerGoneError):
            await peer.call("ready")


async def test_peers_clock_is_skewed(shared: UrlHarness) -> None:
    async with shared as harness, harness.process(clock_skew_seconds=3600.0) as peer, harness.process() as other:
        assert 3590 < await peer.call("wall_clock") - await other.call("wall_clock") < 3610


def test_lease_theme_can_be_taken_alone() -> None:
    assert issubclass(ConformanceSuite, LeaseTests)
