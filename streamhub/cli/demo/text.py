"""The text that the demo streams: the opening of "Alice's Adventures in Wonderland" (1865), in the public domain."""

from __future__ import annotations

import re
from importlib.resources import files


def load() -> str:
    """Return the text."""
    return files("streamhub.cli.demo").joinpath("alice.txt").read_text("utf-8")


def words(text: str) -> list[str]:
    """Cut a text into words, each with the white space that follows it; joined, they are the text."""
    return re.findall(r"\s*\S+\s*", text)
