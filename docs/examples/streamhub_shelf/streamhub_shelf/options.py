"""The options of a ``shelf://`` URL."""

from __future__ import annotations

from dataclasses import dataclass

from streamhub.inputs import check_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ShelfOptions:
    """Each field is an option: its name, its type and its default.

    Attributes:
        fsync: wait for the disk at every change, to survive a power loss.
        look_seconds: how often the files that somebody follows are looked at.
        busy_seconds: how long a call waits for a lock.
    """

    fsync: bool = False
    look_seconds: float = 0.02
    busy_seconds: float = 10.0

    def __post_init__(self) -> None:
        check_seconds(self.look_seconds, "look_seconds")
        check_seconds(self.busy_seconds, "busy_seconds")
