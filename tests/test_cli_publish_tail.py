"""``publish`` and ``tail`` as processes: bytes verbatim, offsets to go on from, exit statuses, signals, kills."""

from __future__ import annotations

import os
import pty
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import PATIENCE_SECONDS, Commands

WAIT = str(PATIENCE_SECONDS)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(tmp_path)
    yield commands
    commands.close()


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Commands]:
    """Subscribers that give a dead producer up at once."""
    commands = Commands(tmp_path, abandon_after_seconds=0.5)
    yield commands
    commands.close()


def binary(size: int) -> bytes:
    """Bytes of every value, with line ends of every kind."""
    return random.Random(7).randbytes(size) + b"\r\n\n\r\x00\xff" + bytes(range(256))


def shell(cli: Commands, arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = ["sh", "-c", f"exec '{sys.executable}' -m streamhub {arguments}"]
    return subprocess.run(command, env={**os.environ, "STREAMHUB_URL": cli.url}, capture_output=True, check=False)


@pytest.mark.parametrize("mode", [(), ("--bytes",)])
def test_binary_data_passes_through_publish_and_tail_unchanged(cli: Commands, mode: tuple[str, ...]) -> None:
    data = binary(400_000)
    reader = cli.start("tail", "data", "--wait", WAIT)

    published = cli.run("publish", "data", *mode, stdin=data)
    live = reader.finish()
    replayed = cli.run("tail", "data")

    assert (published.code, published.out) == (0, b"")
    assert (live.code, live.out) == (0, data)
    assert (replayed.code, replayed.out) == (0, data)


def test_lines_are_chunks_and_keep_their_line_feed(cli: Commands) -> None:
    done = cli.run("publish", "lines", "--json", "--run", "one", stdin=b"a\r\n\nb\rc\nlast")

    facts = done.json
    assert facts["chunks"] == 4
    assert facts["offset"].endswith("-4")
    assert (facts["key"], facts["run"], facts["resumed"]) == ("lines", "one", False)
    assert facts["end"] == {"state": "completed"}


def test_line_beyond_the_chunk_limit_comes_in_pieces(cli: Commands) -> None:
    cli.url += "&max_chunk_bytes=1000"
    data = b"x" * 2500 + b"\n" + b"y" * 1000

    done = cli.run("publish", "long", "--json", stdin=data)

    assert (done.code, done.json["chunks"]) == (0, 4)
    assert cli.run("tail", "long").out == data


def test_publish_of_nothing_is_a_completed_run(cli: Commands) -> None:
    done = cli.run("publish", "empty", stdin=b"")

    assert done.code == 0
    assert cli.run("tail", "empty").out == b""


def test_publish_reads_a_regular_file(cli: Commands, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"one\ntwo\n")
    with (tmp_path / "input").open("rb") as file:
        done = cli.start("publish", "file", stdin=file).finish()

    assert done.code == 0
    with (tmp_path / "output").open("wb") as file:
        assert cli.start("tail", "file", stdout=file).finish().code == 0
    assert (tmp_path / "output").read_bytes() == b"one\ntwo\n"


def test_tail_writes_each_chunk_as_it_comes(cli: Commands) -> None:
    reader = cli.start("tail", "live", "--wait", WAIT)
    producer = cli.start("publish", "live")

    for line in (b"one\n", b"two\n", b"three\n"):
        producer.say(line)
        reader.hear(line)  # although the producer goes on

    assert producer.finish().code == 0
    assert reader.finish().code == 0


def test_tail_goes_on_after_the_offset_it_has_printed(cli: Commands) -> None:
    offset = cli.published("story", b"a\n", b"b\n", b"c\n")
    first = cli.run("tail", "story")
    generation = offset.partition("-")[0]

    assert first.last_offset == offset
    assert cli.run("tail", "story", "--after", f"{generation}-1").out == b"b\nc\n"
    assert cli.run("tail", "story", "--after", offset).out == b""
    assert cli.run("tail", "story", "--after", "start").out == b"a\nb\nc\n"


def test_publish_says_that_its_run_was_cancelled_before_it_began(cli: Commands) -> None:
    assert cli.run("cancel", "chat", "--run", "one", "--reason", "enough").code == 0

    published = cli.run("publish", "chat", "--run", "one", stdin=b"a\n")

    assert published.code == 4
    assert "was cancelled" in published.error
    assert "enough" in published.error


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_tail_prints_where_to_go_on(cli: Commands, sent: signal.Signals, code: int) -> None:
    producer = cli.start("publish", "story")
    reader = cli.start("tail", "story", "--wait", WAIT)
    producer.say(b"a\nb\n")
    reader.hear(b"a\nb\n")

    done = reader.finish(sending=sent)
    producer.say(b"c\n")
    assert producer.finish().code == 0

    assert done.code == code
    assert done.err.count("\n") == 1
    assert cli.run("tail", "story", "--after", done.last_offset).out == b"c\n"


def test_tail_after_latest_gives_what_comes_later_without_a_gap(cli: Commands) -> None:
    lines = [b"%d\n" % number for number in range(1000)]
    producer = cli.publishing("story", said=lines[0])
    reader = cli.start("tail", "story", "--after", "latest")
    for line in lines[1:]:
        producer.say(line)
        if select.select([reader.stdout], [], [], 0.05)[0]:
            break
    done = reader.finish(sending=signal.SIGTERM)

    last = int(done.last_offset.partition("-")[2])
    first = lines.index(done.out.splitlines(keepends=True)[0])
    assert first > 0
    assert done.out == b"".join(lines[first:last])
    producer.finish()


def test_tail_after_latest_tells_where_that_was_though_nothing_came(cli: Commands) -> None:
    producer = cli.publishing("story", said=b"old\n")
    for seconds in (1, 2, 4, 8):  # until it has attached
        reader = cli.start("tail", "story", "--after", "latest")
        assert not select.select([reader.stdout], [], [], seconds)[0]
        done = reader.finish(sending=signal.SIGTERM)
        if done.last_offset != "none":
            break
    producer.say(b"new\n")
    producer.finish()

    assert done.last_offset.endswith("-1")
    assert cli.run("tail", "story", "--after", done.last_offset).out == b"new\n"


def test_terminated_tail_of_a_stuck_reader_knows_what_it_has_written(cli: Commands) -> None:
    """The reader takes nothing: the pipe fills up. The offset is that of the last chunk in the pipe, exactly."""
    lines = [b"%06d %s\n" % (number, b"x" * 50) for number in range(5000)]
    cli.published("long", *lines)
    reader = cli.start("tail", "long")
    reader.hear(lines[0])

    reader.process.send_signal(signal.SIGTERM)
    assert reader.process.wait(PATIENCE_SECONDS) == 143
    done = reader.finish()

    count = int(done.last_offset.partition("-")[2])
    assert count < len(lines)
    assert lines[0] + done.out == b"".join(lines[:count])
    assert cli.run("tail", "long", "--after", done.last_offset).out == b"".join(lines[count:])


def test_tail_into_a_closed_pipe_is_quiet(cli: Commands) -> None:
    cli.published("long", *[b"x" * 99 + b"\n"] * 5000)
    reader = cli.start("tail", "long")
    reader.hear(b"x" * 10)
    reader.stdout.close()

    assert reader.process.wait(PATIENCE_SECONDS) == 141
    assert reader.process.stderr is not None
    assert reader.process.stderr.read() == b""


def test_closed_standard_output_never_reaches_the_database(cli: Commands) -> None:
    cli.published("story", b"a\n")
    done = shell(cli, "tail story >&-")

    assert done.returncode == 1
    assert b"Bad file descriptor" in done.stderr
    assert cli.run("tail", "story").out == b"a\n"


def test_closed_standard_input_is_a_failed_run(cli: Commands) -> None:
    done = shell(cli, "publish story <&-")

    assert done.returncode == 3
    assert cli.run("info", "story", "--json").json["end"]["code"] == "read_failed"


def test_tail_of_nothing_is_an_error(cli: Commands) -> None:
    done = cli.run("tail", "nothing")

    assert done.code == 1
    assert done.error == "stream 'nothing' does not exist: pass --wait SECONDS to wait for it"
    assert done.last_offset == "none"


def test_named_run_is_followed_alone(cli: Commands) -> None:
    cli.published("chat", b"first\n", run="one")

    assert cli.run("tail", "chat", "--run", "one").out == b"first\n"
    assert cli.run("tail", "chat", "--run", "two").code == 1


def test_ended_run_is_never_published_again(cli: Commands) -> None:
    cli.published("chat", b"first\n", run="one")

    again = cli.run("publish", "chat", "--run", "one", stdin=b"second\n")

    assert again.code == 1
    assert "has ended (completed)" in again.error
    assert cli.run("tail", "chat").out == b"first\n"


def test_live_run_refuses_a_second_publisher(cli: Commands) -> None:
    producer = cli.publishing("chat", "--run", "one", said=b"a\n")

    second = cli.run("publish", "chat", "--run", "one", stdin=b"b\n")

    assert second.code == 1
    assert "is being produced" in second.error
    assert second.error.rstrip().endswith("pass --wait SECONDS to wait for it")
    assert producer.finish().code == 0


def test_cancelled_run_is_status_4_for_publish_and_tail(cli: Commands) -> None:
    producer = cli.publishing("chat", "--run", "one", "--json", said=b"a\n")
    reader = cli.start("tail", "chat")

    asked = cli.run("cancel", "chat", "--reason", "enough", "--by", "me", "--wait", WAIT, "--json")
    published, read = producer.finish(), reader.finish()

    end = {"state": "cancelled", "reason": "enough", "requested_by": "me"}
    assert asked.code == 0
    assert asked.json == {"key": "chat", "run": "one", "state": "cancelled", "end": end}
    assert (published.code, published.json["end"]) == (4, end)
    assert (read.code, read.out) == (4, b"a\n")
    assert "cancelled: 'enough' (by 'me')" in read.err


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_publish_is_a_failed_run(cli: Commands, sent: signal.Signals, code: int) -> None:
    producer = cli.publishing("chat", said=b"a\n")
    reader = cli.start("tail", "chat")

    published = producer.finish(sending=sent)
    read = reader.finish()

    assert published.code == code
    assert "Traceback" not in published.err
    assert (read.code, read.out) == (3, b"a\n")
    assert "interrupted" in read.error


def test_interrupted_publish_may_hand_over(cli: Commands) -> None:
    producer = cli.publishing("chat", "--run", "one", said=b"a\n", environ={"STREAMHUB_ON_INTERRUPT": "handover"})
    producer.finish(sending=signal.SIGTERM)

    resumed = cli.run("publish", "chat", "--run", "one", "--unfinished", "resume", stdin=b"b\n")

    assert resumed.code == 0  # at once: the lease was released
    assert cli.run("tail", "chat").out == b"a\nb\n"


def test_killed_publish_is_resumed_by_another(cli: Commands) -> None:
    producer = cli.publishing("chat", "--run", "one", said=b"a\nb\n")
    reader = cli.start("tail", "chat")

    producer.finish(sending=signal.SIGKILL)
    resumed = cli.run(
        "publish", "chat", "--run", "one", "--unfinished", "resume", "--wait", WAIT, "--json", stdin=b"c\n"
    )
    read = reader.finish()

    assert (resumed.code, resumed.json["resumed"]) == (0, True)
    assert (read.code, read.out) == (0, b"a\nb\nc\n")
    assert len(cli.run("info", "chat", "--json").json["spans"]) == 2


def test_killed_publish_is_replaced_only_on_demand(cli: Commands) -> None:
    producer = cli.publishing("chat", "--run", "one", said=b"a\n")
    producer.finish(sending=signal.SIGKILL)

    refused = cli.run("publish", "chat", "--run", "two", "--wait", WAIT, stdin=b"b\n")
    replaced = cli.run("publish", "chat", "--run", "two", "--unfinished", "replace", "--wait", WAIT, stdin=b"b\n")

    assert refused.code == 5
    assert "--unfinished resume" in refused.error
    assert replaced.code == 0
    assert cli.run("tail", "chat").out == b"b\n"


def test_abandoned_run_is_status_5(impatient: Commands) -> None:
    producer = impatient.publishing("chat", "--run", "one", said=b"a\n")
    reader = impatient.start("tail", "chat")
    producer.finish(sending=signal.SIGKILL)

    read = reader.finish()

    assert (read.code, read.out) == (5, b"a\n")
    assert "no producer" in read.error
    assert read.last_offset.endswith("-1")


def test_limit_is_a_failed_run(cli: Commands) -> None:
    cli.url += "&max_bytes=1000"
    done = cli.run("publish", "big", stdin=b"x" * 600 + b"\n" + b"y" * 600 + b"\n")

    assert done.code == 3
    assert "max_bytes=1000" in done.error
    assert cli.run("tail", "big").code == 3


def test_deleted_stream_stops_its_publisher(cli: Commands) -> None:
    producer = cli.publishing("chat", said=b"a\n")
    assert cli.run("rm", "chat").code == 0
    producer.say(b"b\n")

    done = producer.finish()

    assert done.code == 1
    assert "was deleted" in done.error


def test_progress_is_shown_only_on_a_terminal(cli: Commands) -> None:
    ours, theirs = pty.openpty()
    producer = cli.start("publish", "chat", stderr=theirs)
    os.close(theirs)
    producer.say(b"a\nb\n")
    shown = b""
    while b"chunks" not in shown:
        shown += os.read(ours, 4096)
    os.close(ours)
    quiet = cli.run("publish", "other", stdin=b"a\nb\n")

    assert b"\r1 chunks" in shown
    assert "\r" not in quiet.err
    assert quiet.err.count("\n") == 1


def test_metadata_is_stored_with_the_run(cli: Commands) -> None:
    cli.run("publish", "chat", "--metadata", '{"model": "m"}', stdin=b"a\n")

    assert cli.run("info", "chat", "--json").json["metadata"] == {"model": "m"}
