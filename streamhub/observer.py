"""What a hub tells about itself: one event at a time, to one function of the application's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

logger: logging.Logger = logging.getLogger("streamhub")

EventName: TypeAlias = Literal[
    "append",
    "subscribe",
    "first_chunk",
    "replay",
    "cancel",
    "lease_lost",
    "takeover",
    "fenced_write",
    "reconnect",
    "drain",
]
"""What an ``Event`` may be about; it says what each means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in this hub.

    ``append``: chunks became durable (``count`` of them, ``size_bytes`` in all, ``seconds`` from flush to answer).
    ``subscribe``: a subscription was opened. ``first_chunk``: one from a run's start has its first chunk, ``seconds``
    after it was asked for. ``replay``: a reader was given ``count`` chunks that were read from the store, not followed
    live. ``cancel``: a run here was told to stop. ``lease_lost``: a producer here lost its lease. ``takeover``: a run
    was resumed here after its producer died. ``fenced_write``: an append of this hub was refused, a later generation
    being current. ``reconnect``: a feed was opened again after it broke.
    ``drain``: draining began.
    """

    name: EventName
    key: str | None = None
    run: str | None = None
    generation: int | None = None
    count: int = 0
    size_bytes: int = 0
    seconds: float = 0.0


Observer: TypeAlias = Callable[[Event], None]
"""Called in the event loop; it must not block. An exception of its own is logged and changes nothing."""


def notify(observer: Observer | None, event: Event) -> None:
    """Tell the observer, if there is one."""
    if observer is None:
        return
    try:
        observer(event)
    except Exception:
        # A hook of the application's must never change what the hub does.
        logger.exception("observer raised on %s", event.name)
