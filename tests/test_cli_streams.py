"""``ls``, ``info``, ``cancel``, ``rm``, ``doctor`` and ``conformance`` as processes, and wrong command lines."""

from __future__ import annotations

import json
import os
import pty
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import PATIENCE_SECONDS, Commands

from streamhub.cli import main, parser
from streamhub.cli.doctor import advice


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(tmp_path, abandon_after_seconds=0.5)
    yield commands
    commands.close()


def test_ls_prints_keys_by_line(cli: Commands) -> None:
    for key in ("chat:1", "chat:2", "other", "chat:ü €"):
        cli.published(key, b"a\n")

    assert sorted(cli.run("ls").out.decode().splitlines()) == ["chat:1", "chat:2", "chat:ü €", "other"]
    assert sorted(cli.run("ls", "chat:").out.decode().splitlines()) == ["chat:1", "chat:2", "chat:ü €"]
    assert cli.run("ls", "nothing").out == b""


def test_ls_tells_live_orphaned_and_ended_streams_apart(cli: Commands) -> None:
    cli.published("ended", b"a\n")
    dead = cli.publishing("orphaned", said=b"a\n")
    dead.finish(sending=signal.SIGKILL)
    cli.start("tail", "orphaned").finish()  # until it is given up
    live = cli.publishing("live", said=b"a\n")

    for state in ("live", "orphaned", "ended"):
        assert cli.run("ls", "--state", state).out.decode().split() == [state]
    live.finish()


def test_ls_as_json_is_one_object_a_line(cli: Commands) -> None:
    for key in ("a", "b"):
        cli.published(key, b"1\n", b"2\n", run="one")

    rows = [json.loads(line) for line in cli.run("ls", "--json").out.splitlines()]

    assert {row["key"] for row in rows} == {"a", "b"}
    assert {(row["run"], row["state"], row["tail"], row["size_bytes"]) for row in rows} == {("one", "completed", 2, 4)}


def on_terminal(cli: Commands, *args: str, **environ: str) -> str:
    """Run a command with a terminal as its standard output."""
    ours, theirs = pty.openpty()
    running = cli.start(*args, environ={"TERM": "xterm", "COLUMNS": "100", **environ}, stdout=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:  # how Linux says that the other side has closed
            break
        if not data:
            break
        shown += data
    os.close(ours)
    assert running.process.wait(PATIENCE_SECONDS) == 0
    return shown.decode()


def test_ls_on_a_terminal_is_a_table(cli: Commands) -> None:
    cli.published("chat:1", b"1\n", b"2\n", run="one")

    shown = on_terminal(cli, "ls")

    assert "\x1b[" in shown  # colours
    assert "KEY" in shown
    assert "completed" in shown
    assert "\x1b[1m" not in cli.run("ls").out.decode()


def test_info_describes_a_stream(cli: Commands) -> None:
    offset = cli.published("chat:1", b"a\n", b"bc\n", run="one")

    facts = cli.run("info", "chat:1", "--json").json
    text = cli.run("info", "chat:1")

    assert (facts["run"], facts["state"], facts["offset"], facts["tail"]) == ("one", "completed", offset, 2)
    assert facts["end"] == {"state": "completed"}
    assert facts["producer"] is None
    assert facts["retention"]["ended_seconds"] == 3600
    assert text.code == 0
    assert offset in text.out.decode()


def test_info_of_a_live_stream_names_its_producer(cli: Commands) -> None:
    producer = cli.publishing("chat:1", "--run", "one", said=b"a\n")

    facts = cli.run("info", "chat:1", "--json").json
    producer.finish()

    assert facts["state"] == "live"
    assert facts["producer"]["run"] == "one"
    assert 0 < facts["producer"]["lease_seconds"] <= 3


@pytest.mark.parametrize("command", ["info", "rm"])
def test_what_does_not_exist_is_an_error(cli: Commands, command: str) -> None:
    done = cli.run(command, "chat:1")

    assert (done.code, done.out) == (1, b"")
    assert done.error == "stream 'chat:1' does not exist"


def test_rm_deletes(cli: Commands) -> None:
    cli.published("chat:1", b"a\n")

    assert cli.run("rm", "chat:1").code == 0
    assert cli.run("ls").out == b""
    assert cli.run("info", "chat:1").code == 1


def test_cancel_of_nothing_is_an_error(cli: Commands) -> None:
    done = cli.run("cancel", "chat:1")

    assert done.code == 1
    assert "nothing is running" in done.error
    assert cli.run("cancel", "chat:1", "--json").json == {"key": "chat:1", "run": None, "state": "nothing", "end": None}


def test_cancel_reaches_a_run_that_has_not_begun(cli: Commands) -> None:
    asked = cli.run("cancel", "chat:1", "--run", "one", "--reason", "too late")

    assert (asked.code, asked.out) == (0, b"run one: requested\n")
    assert cli.run("publish", "chat:1", "--run", "one", stdin=b"a\n").code == 4


def test_cancel_of_an_ended_run_says_how_it_ended(cli: Commands) -> None:
    cli.published("chat:1", b"a\n", run="one")

    asked = cli.run("cancel", "chat:1", "--run", "one")

    assert (asked.code, asked.out) == (0, b"run one: ended (completed)\n")


def test_cancel_ends_the_run_of_a_dead_producer(cli: Commands) -> None:
    producer = cli.publishing("chat:1", "--run", "one", said=b"a\n")
    producer.finish(sending=signal.SIGKILL)

    asked = cli.run("cancel", "chat:1", "--wait", str(PATIENCE_SECONDS), "--json")

    assert asked.json["state"] == "cancelled"
    assert cli.run("tail", "chat:1").code == 4


def test_doctor_tells_versions_latency_limits_and_durability(cli: Commands) -> None:
    facts = cli.run("doctor", "--json").json
    text = cli.run("doctor").out.decode()

    assert {"streamhub", "python", "sqlite"} <= set(facts["versions"])
    assert {"memory", "sqlite"} <= set(facts["schemes"])
    part = facts["STREAMHUB_URL"]
    assert part["ping_ms"]["median"] <= part["ping_ms"]["worst"]
    assert part["about"]["durability"]
    assert part["limits"]["max_append_bytes"] > 0
    assert facts["settings"] == {"abandon_after_seconds": 0.5, "lease_seconds": 3.0, "poll_seconds": 0.5}
    assert facts["advice"] == []
    assert "durability" in text


def test_doctor_examines_each_part(cli: Commands) -> None:
    facts = cli.run("doctor", "--json", environ={"STREAMHUB_CANCELS_URL": "memory://"}).json

    assert facts["STREAMHUB_CANCELS_URL"]["url"] == "memory://"


def test_doctor_advises_against_a_password_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMHUB_URL", raising=False)
    (line,) = advice(parser.parse(["doctor", "--url", "redis://user:secret@localhost/0"]))

    assert "STREAMHUB_URL" in line
    assert "secret" not in line
    assert advice(parser.parse(["doctor", "--url", "redis://localhost/0"])) == []


def test_error_never_shows_a_password(cli: Commands) -> None:
    done = cli.run("--url", "carrierpigeon://user:secret@localhost/0", "ls")

    assert done.code == 1
    assert "no backend for scheme 'carrierpigeon'" in done.error
    assert "secret" not in done.err


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sqlite:///x.db?synchronos=FULL", "did you mean 'synchronous'?"),
        ("sqlite:///x.db?lease_seconds=soon", "option lease_seconds='soon': use a number"),
        ("streams.db", "not a backend URL"),
        ("sqlite:////nowhere/at/all/x.db", "'/nowhere/at/all' does not exist"),
    ],
)
def test_wrong_url_is_one_clear_line(cli: Commands, url: str, text: str) -> None:
    done = cli.run("--url", url, "ls")

    assert done.code == 1
    assert text in done.error
    assert done.err.count("\n") == 1


def test_url_may_come_before_or_after_the_command_and_wins_over_the_environment(cli: Commands, tmp_path: Path) -> None:
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert cli.run("--url", other, "publish", "there", stdin=b"a\n").code == 0

    assert cli.run("ls", "--url", other).out == b"there\n"
    assert cli.run("ls").out == b""


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["ls"], "which backend?"),
        ([], "COMMAND"),
        (["frobnicate"], "frobnicate"),
        (["tail", "k", "--after", "42"], "malformed"),
        (["tail", ""], "key of 0 bytes"),
        (["tail", "a\nb"], "control character"),
        (["tail", "k", "--wait", "-1"], "not a number of seconds"),
        (["tail", "k", "--wait", "inf"], "not a number of seconds"),
        (["publish", "k", "--metadata", "[1]"], "JSON object"),
        (["publish", "k", "--metadata", "{"], "not JSON"),
        (["publish", "k", "--unfinished", "maybe"], "maybe"),
        (["publish", "k", "--url", "memory://", "--model", "m"], "--model needs --openai-base-url"),
        (["publish", "k", "--url", "memory://", "--openai-base-url", "http://h"], "needs --model and --prompt"),
        (["publish", "k", "--openai-base-url", "ftp://h"], "begin with http:// or https://"),
        (["publish", "k", "--openai-base-url", "http://h:port/"], "begin with http:// or https://"),
        (["ls", "--state", "asleep"], "asleep"),
        (["ls", "--stat=open"], "streamhub ls: error: unrecognized arguments: --stat=open; did you mean --state?"),
        (["rm", "k", "--url", "memory://", "--now"], "usage: streamhub rm "),
    ],
)
def test_wrong_usage_is_status_2(
    args: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STREAMHUB_URL", raising=False)

    with pytest.raises(SystemExit) as caught:
        main(args)

    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_missing_api_key_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    endpoint = ["--openai-base-url", "http://h", "--model", "m", "--prompt", "p", "--api-key-env", "MY_KEY"]

    with pytest.raises(SystemExit) as caught:
        main(["--url", "memory://", "publish", "k", *endpoint])

    assert caught.value.code == 2
    assert "MY_KEY is not set" in capsys.readouterr().err


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("publish", "tail", "ls", "info", "cancel", "rm", "doctor", "conformance", "demo"):
        with pytest.raises(SystemExit) as caught:
            main([command, "--help"])
        assert caught.value.code == 0
        assert "--url" in capsys.readouterr().out


def test_conformance_runs_the_suite_and_returns_its_status(cli: Commands) -> None:
    chosen = cli.run("--url", "memory://{unique}", "conformance", "-k", "test_two_replays_are_equal", "-q")
    nothing = cli.run("--url", "memory://{unique}", "conformance", "-k", "no_such_case", "-q")

    assert chosen.code == 0, chosen.out.decode() + chosen.err
    assert b"1 passed" in chosen.out
    assert nothing.code == 5
