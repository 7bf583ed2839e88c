"""What a ``sqlite://`` URL says: a path and a few options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from streamhub.errors import ConfigError
from streamhub.inputs import check_seconds
from streamhub.options import parse_options, query_options

Synchronous: TypeAlias = Literal["normal", "full", "extra"]

_EXAMPLES = "use sqlite:///relative.db or sqlite:////absolute/path.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteOptions:
    """Options of a ``sqlite://`` URL.

    Attributes:
        synchronous: ``normal`` survives the death of a process, ``full`` and ``extra`` also a power loss.
        nudge: tell other processes of a commit by a datagram on the loopback interface; off leaves the poll.
        nudge_poll_seconds: mean interval of the poll that finds commits whose datagram was lost.
        busy_seconds: how long a call waits for the file's write lock before ``BackendUnavailableError``.
    """

    synchronous: Synchronous = "normal"
    nudge: bool = True
    nudge_poll_seconds: float = 0.1
    busy_seconds: float = 10.0

    def __post_init__(self) -> None:
        check_seconds(self.nudge_poll_seconds, "nudge_poll_seconds")
        check_seconds(self.busy_seconds, "busy_seconds")


def parse_url(url: str) -> tuple[Path, SqliteOptions]:
    """Read a ``sqlite://`` URL; a relative path is of the working directory of now.

    Raises:
        ConfigError: the URL names a host, no file or a file in memory, or an option is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        raise ConfigError(f"{parts.scheme}:// is not a sqlite URL: {_EXAMPLES}")
    if parts.netloc:
        raise ConfigError(f"sqlite://{parts.hostname or ''}/... names a host, not a file: {_EXAMPLES}")
    if parts.fragment:
        raise ConfigError(f"a sqlite URL has no fragment: write '#' as %23, {_EXAMPLES}")
    try:
        text = unquote(parts.path.removeprefix("/"), errors="strict")
    except UnicodeDecodeError as exc:
        raise ConfigError(f"the path of a sqlite URL is percent-encoded UTF-8: {exc}") from exc
    if text.rpartition("/")[2] == ":memory:":
        raise ConfigError("a sqlite database in memory is not shared by connections: use memory://")
    if not text or text.endswith("/") or "\x00" in text:
        raise ConfigError(f"sqlite URL without a file name: {_EXAMPLES}")
    options = parse_options(SqliteOptions, query_options(url), scheme="sqlite")
    return Path.cwd() / text, options
