"""What the command prints besides payloads: JSON for machines, lines and tables for people."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO, cast

from streamhub.errors import (
    InvalidOffsetError,
    LeaseHeldError,
    StreamHubError,
    StreamNotFoundError,
    StreamUnfinishedError,
)
from streamhub.types import End, Holder, Offset, StreamInfo

# How /dev/null is opened in the place of a closed descriptor: so that reading, or writing, still fails.
_PLACEHOLDERS = {0: os.O_WRONLY, 1: os.O_RDONLY, 2: os.O_WRONLY}


def prepare() -> None:
    """Make the standard streams safe to use, whatever they are."""
    for fd, mode in _PLACEHOLDERS.items():
        try:
            os.fstat(fd)
        except OSError:
            # Else the next file to be opened, the database perhaps, would get this number, and our output.
            os.open(os.devnull, mode)
    stdout = sys.stdout
    if isinstance(stdout, io.TextIOWrapper):
        # A key may hold characters that the terminal's encoding does not.
        cast("io.TextIOWrapper[Any]", stdout).reconfigure(errors="backslashreplace")


def one_line(text: str) -> str:
    """Return text that stays on one line and cannot move the terminal's cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def note(text: str) -> None:
    """Print one line on standard error."""
    with contextlib.suppress(BrokenPipeError):
        print(f"streamhub: {one_line(text)}", file=sys.stderr, flush=True)


def fail(text: str) -> None:
    """Print one error line on standard error."""
    note(f"error: {text}")


def explain(error: StreamHubError) -> str:
    """Return the error's text, in the words of the command line."""
    if isinstance(error, (StreamNotFoundError, LeaseHeldError, InvalidOffsetError)):
        return str(error).replace("wait=seconds", "--wait SECONDS")
    if isinstance(error, StreamUnfinishedError):
        return str(error).replace("unfinished='resume'", "--unfinished resume").replace("'replace'", "replace")
    return str(error) or type(error).__name__


def print_json(value: Any) -> None:
    """Print one value as one line of JSON, and flush it."""
    print(json.dumps(value, ensure_ascii=False, separators=(",", ":")), flush=True)


def is_terminal(stream: TextIO | None) -> bool:
    """Say whether a person watches this stream (None: it is closed)."""
    return stream is not None and stream.isatty()


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns; with colours if ``rich`` is installed and a terminal shows them."""
    if is_terminal(sys.stdout) and importlib.util.find_spec("rich") is not None:
        _print_rich(head, rows)
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_rich(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console().print(table)


def end_facts(end: End | None) -> dict[str, str] | None:
    """Return an end for JSON, without what is not set."""
    if end is None:
        return None
    facts = {
        "state": end.state,
        "code": end.code,
        "message": end.message,
        "reason": end.reason,
        "requested_by": end.requested_by,
    }
    return {name: value for name, value in facts.items() if value is not None}


def end_text(end: End) -> str:
    """Return an end in words."""
    if end.state == "failed":
        return f"failed: {end.code}: {end.message}"
    if end.state == "cancelled":
        return f"cancelled: {end.reason!r} (by {end.requested_by!r})"
    return end.state


def liveness(info: StreamInfo, holder: Holder | None) -> str:
    """Return how a stream stands: the state of its end, else ``live`` or ``orphaned``."""
    if info.end is not None:
        return info.end.state
    return "live" if holder is not None or not info.attended else "orphaned"


def value_text(value: Any) -> str:
    """Return a fact for a table."""
    return one_line(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def info_facts(info: StreamInfo, holder: Holder | None) -> dict[str, Any]:
    """Return a stream for JSON."""
    return {
        "key": info.key,
        "run": info.run,
        "state": liveness(info, holder),
        "offset": str(Offset(info.generation, info.tail)),
        "generation": info.generation,
        "first": info.first,
        "tail": info.tail,
        "size_bytes": info.size_bytes,
        "attended": info.attended,
        "end": end_facts(info.end),
        "producer": None
        if holder is None
        else {"generation": holder.generation, "run": holder.run, "lease_seconds": round(holder.expires_in, 3)},
        "spans": [{"generation": span.generation, "first": span.first} for span in info.spans],
        "metadata": dict(info.metadata),
        "retention": {name: getattr(info.retention, name) for name in type(info.retention).__dataclass_fields__},
    }
