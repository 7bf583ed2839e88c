"""The demo runs with real processes, and its checks find a chunk that is lost, doubled, reordered or changed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import Commands

from streamhub.cli.demo.checks import Received, faults
from streamhub.cli.demo.text import load, words

pytestmark = pytest.mark.timeout(120)

WORDS = ["a ", "b ", "c ", "d"]


def received(*indexes: int) -> list[Received]:
    return [Received(f"7-{index}", WORDS[index - 1] if index <= len(WORDS) else "?") for index in indexes]


def test_demo_shows_and_checks_everything(tmp_path: Path) -> None:
    commands = Commands(tmp_path)
    begun = time.monotonic()
    done = commands.run("demo", stdin=b"")
    seconds = time.monotonic() - begun

    shown = done.out.decode()
    assert done.code == 0, shown + done.err
    assert done.err == ""
    assert "nothing lost, doubled or reordered" in shown
    assert "\x1b[" not in shown  # no colours into a pipe
    for told in ("kill -9", "streamhub cancel", "history()", "subscribes after"):
        assert told in shown
    assert seconds < 40
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "told"), [("lose", "lost: chunk 40"), ("double", "doubled: chunk 40"), ("change", "the words are not")]
)
def test_demo_fails_if_a_subscriber_gets_something_else(tmp_path: Path, fault: str, told: str) -> None:
    done = Commands(tmp_path).run("demo", environ={"STREAMHUB_DEMO_FAULT": fault})

    shown = done.out.decode()
    assert done.code == 1, shown
    assert f"WRONG: subscriber 1: {told}" in shown
    assert f"WRONG: subscriber 2: {told}" in shown
    assert "The demo FAILED" in shown


def test_interrupted_demo_leaves_no_process(tmp_path: Path) -> None:
    """Each process of the demo holds the pipe's other end: it ends when the last of them has."""
    running = Commands(tmp_path).start("demo")
    while b"generation" not in running.stdout.readline():
        pass
    running.process.terminate()

    done = running.finish()

    assert done.code == 143


def test_text_is_cut_into_words_that_make_it_up_again() -> None:
    assert "".join(words(load())) == load()
    assert len(words(load())) > 200


@pytest.mark.parametrize(
    ("indexes", "found"),
    [
        ((1, 2, 3, 4), []),
        ((1, 2, 4), ["lost: chunk 3"]),
        ((), ["lost: chunk 1, 2, 3, 4"]),
        ((1, 2, 2, 3, 4), ["doubled: chunk 2"]),
        ((1, 3, 2, 4), ["out of order: chunk 2"]),
        ((1, 2, 3, 4, 5), ["never sent: chunk 5"]),
        ((4, 1, 1), ["lost: chunk 2, 3", "doubled: chunk 1", "out of order: chunk 1"]),
    ],
)
def test_checks_name_what_is_wrong(indexes: tuple[int, ...], found: list[str]) -> None:
    assert faults(received(*indexes), WORDS) == found


def test_checks_compare_the_words_too() -> None:
    assert faults([Received("7-1", "A "), *received(2, 3, 4)], WORDS) == ["the words are not the producer's"]


def test_roles_are_told_to_nobody_by_import() -> None:
    code = "import streamhub.cli, sys; print([name for name in sys.modules if 'demo' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
