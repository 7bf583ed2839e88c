"""The demo's voice: plain lines, with colours on a terminal."""

from __future__ import annotations

import os
import sys
import time

from streamhub.cli.demo.actors import Actor
from streamhub.cli.output import is_terminal

BOLD, DIM, RED, GREEN, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[0m"
QUOTE_WORDS = 9


class Narrator:
    """Tells what happens, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._colours = is_terminal(sys.stdout) and not os.environ.get("NO_COLOR")
        self._begun = time.monotonic()
        self._scenes = 0

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return time.monotonic() - self._begun

    def scene(self, title: str) -> None:
        """Begin the next scene."""
        self._scenes += 1
        print(self._in(BOLD, f"\n{self._scenes}. {title}"), flush=True)

    def line(self, text: str) -> None:
        """Tell one thing."""
        print(f"   {self._in(DIM, f'{self.seconds:4.1f} s')}  {text}", flush=True)

    def quote(self, what: str, subscriber: Actor) -> None:
        """Show the last words that a subscriber has read."""
        words = "".join(chunk.text for chunk in subscriber.received[-QUOTE_WORDS:])
        self.line(f"{what} {self._in(DIM, '... ' + ' '.join(words.split()))}")

    def failure(self, text: str) -> None:
        """Tell what went wrong."""
        self.line(self._in(RED, f"WRONG: {text}"))

    def close(self, text: str, *, good: bool) -> None:
        """Tell the result."""
        print(self._in(GREEN if good else RED, f"\n{text}"), flush=True)

    def _in(self, style: str, text: str) -> str:
        return f"{style}{text}{PLAIN}" if self._colours else text
