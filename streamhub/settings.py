"""The hub's settings: defaults, checks, and where they may be written (arguments, URL query, environment)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from streamhub.inputs import check_choice, check_count, check_retention, check_seconds
from streamhub.options import parse_options
from streamhub.types import Overflow, Retention

OnInterrupt: TypeAlias = Literal["fail", "handover"]
"""What an interrupted producer leaves: ``failed("interrupted")``, or no end, for another instance to resume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """Settings of one hub; each is also a URL option and, as ``STREAMHUB_<NAME>``, a variable for ``from_env``.

    Attributes:
        lease_seconds: a lease's time-to-live; None for the backend's default. Renewed every third of it.
        abandon_after_seconds: how long an un-ended run may be without a producer before its subscribers are
            told; None for ``lease_seconds``.
        outage_seconds: how long producing and subscribing ride out an unreachable backend.
        poll_seconds: mean interval of the safety poll, which finds what a lost notification did not tell.
        sweep_seconds: mean interval at which this hub removes what has expired.
        drain_seconds: how long ``drain`` lets producers finish.
        on_interrupt: what a drained or cancelled producer leaves: ``fail`` or ``handover``.
        max_chunk_bytes: size limit of one chunk.
        max_buffer_bytes: how much a producer may have sent beyond what is durable before ``send`` waits; a chunk
            counts for 48 bytes more than it has, as it does in memory.
        window_bytes: how many recent bytes of a followed stream are kept decoded for its live subscribers.
        unfinished_seconds, ended_seconds, fence_seconds, max_bytes, max_chunks, overflow: see ``Retention``.
    """

    lease_seconds: float | None = None
    abandon_after_seconds: float | None = None
    outage_seconds: float = 30.0
    poll_seconds: float = 5.0
    sweep_seconds: float = 60.0
    drain_seconds: float = 25.0
    on_interrupt: OnInterrupt = "fail"
    max_chunk_bytes: int = 1024 * 1024
    max_buffer_bytes: int = 1024 * 1024
    window_bytes: int = 256 * 1024
    unfinished_seconds: float = 86_400.0
    ended_seconds: float = 3_600.0
    fence_seconds: float = 86_400.0
    max_bytes: int = 64 * 1024 * 1024
    max_chunks: int | None = None
    overflow: Overflow = "refuse"

    def __post_init__(self) -> None:
        if self.lease_seconds is not None:
            check_seconds(self.lease_seconds, "lease_seconds")
        if self.abandon_after_seconds is not None:
            check_seconds(self.abandon_after_seconds, "abandon_after_seconds")
        check_seconds(self.outage_seconds, "outage_seconds", zero=True)
        check_seconds(self.poll_seconds, "poll_seconds")
        check_seconds(self.sweep_seconds, "sweep_seconds")
        check_seconds(self.drain_seconds, "drain_seconds", zero=True)
        check_choice(self.on_interrupt, "on_interrupt", OnInterrupt)
        for name in ("max_chunk_bytes", "max_buffer_bytes", "window_bytes"):
            check_count(getattr(self, name), name)
        check_retention(self.retention)

    @property
    def retention(self) -> Retention:
        """The retention of runs that name none of their own."""
        return Retention(**{name: getattr(self, name) for name in Retention.__dataclass_fields__})

    @classmethod
    def names(cls) -> frozenset[str]:
        """Return the settings' names."""
        return frozenset(field.name for field in dataclasses.fields(cls))

    def updated(self, options: Mapping[str, str]) -> HubSettings:
        """Return these settings with some replaced, given as text; ``ConfigError`` for one that does not fit."""
        given = parse_options(HubSettings, options, scheme="streamhub")
        return dataclasses.replace(self, **{name: getattr(given, name) for name in options})
