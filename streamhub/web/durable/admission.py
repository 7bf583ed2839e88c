"""What becomes of a write: one pure decision over what a stream has admitted so far.

The order of the checks is the protocol's: a closed stream before the content type, that before the producer's epoch and
sequence, and those, which recognise a repetition, before ``Stream-Seq`` and the expected offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from streamhub.types import Offset
from streamhub.web.durable.offsets import write_offset

MAX_PRODUCERS = 1024
IDLE_HOURS = 7 * 24

Reason: TypeAlias = Literal["closed", "produced", "type", "epoch", "first", "gap", "producers", "seq", "offset"]
"""Why a write is refused; see ``REASONS``."""

REASONS: Mapping[Reason, tuple[int, str]] = {
    "closed": (409, "the stream is closed"),
    "produced": (409, "the stream is being written by a producer of the application"),
    "type": (409, "the content type is not the stream's"),
    "epoch": (403, "the producer's epoch is stale"),
    "first": (400, "a new epoch must start at sequence 0"),
    "gap": (409, "the producer's sequence has a gap"),
    "producers": (429, "the stream has too many producers"),
    "seq": (409, "Stream-Seq does not increase"),
    "offset": (409, "the stream is not at the expected offset"),
}


class Claim(NamedTuple):
    """What a write says of its producer."""

    producer: str
    epoch: int
    seq: int


class Progress(NamedTuple):
    """How far a producer got, and in which hour since 1970 it wrote last."""

    epoch: int
    seq: int
    hour: int


class Write(NamedTuple):
    """A request to append, to close, or both.

    Attributes:
        media_type: of the body, in lower case and without parameters; None if it was not said.
        messages: how many are in the body; 0 only to close.
        close: whether the stream is closed with it.
        claim: of an idempotent producer.
        seq: the writer's own sequence, which must increase as text.
        expected: the offset at which the stream must be.
    """

    media_type: str | None
    messages: int
    close: bool = False
    claim: Claim | None = None
    seq: str | None = None
    expected: str | None = None


class StreamState(NamedTuple):
    """What a decision rests on.

    Attributes:
        media_type: the stream's.
        generation: that which new messages are written in.
        tail: offset of the last message.
        closed: whether the stream has its end.
        produced: whether a producer of the application holds it, who is its only writer.
        producers: by id.
        seq: the last ``Stream-Seq``.
        closer: the claim of the write that closed the stream.
    """

    media_type: str
    generation: int
    tail: Offset
    closed: bool
    produced: bool
    producers: Mapping[str, Progress]
    seq: str | None
    closer: Claim | None


class Accept(NamedTuple):
    """The write is to be stored; ``state`` holds from then on."""

    state: StreamState


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The write was stored before; ``seq`` is the highest sequence of its epoch."""

    seq: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """The write is not stored. ``known``: the producer's current epoch, or the sequence expected of it."""

    reason: Reason
    known: int | None = None


Decision: TypeAlias = Accept | Duplicate | Refuse


def admit(state: StreamState, write: Write, hour: int) -> Decision:
    """Decide one write; ``hour`` is the present one, since 1970."""
    if state.closed:
        return _admit_closed(state, write)
    if state.produced:
        return Refuse("produced")
    if write.messages and write.media_type != state.media_type:
        return Refuse("type")
    producers = state.producers
    if write.claim is not None:
        found = _claimed(producers, write.claim, hour)
        if isinstance(found, (Duplicate, Refuse)):
            return found
        producers = found
    if write.seq is not None and state.seq is not None and write.seq <= state.seq:
        return Refuse("seq")
    if write.expected is not None and write.expected != write_offset(state.tail):
        return Refuse("offset")
    return Accept(
        StreamState(
            state.media_type,
            state.generation,
            Offset(state.generation, state.tail.index + write.messages) if write.messages else state.tail,
            write.close,
            False,  # produced
            producers,
            state.seq if write.seq is None else write.seq,
            write.claim if write.close else None,
        )
    )


def _admit_closed(state: StreamState, write: Write) -> Decision:
    if write.claim is not None:
        return Duplicate(write.claim.seq) if write.claim == state.closer else Refuse("closed")
    return Duplicate(0) if write.close and not write.messages else Refuse("closed")


def _claimed(producers: Mapping[str, Progress], claim: Claim, hour: int) -> Mapping[str, Progress] | Duplicate | Refuse:
    """Return the producers with this write counted, or why it is not."""
    known = producers.get(claim.producer)
    if known is None:
        if claim.seq:
            return Refuse("gap", 0)
        if len(producers) >= MAX_PRODUCERS:
            producers = {name: found for name, found in producers.items() if hour - found.hour <= IDLE_HOURS}
            if len(producers) >= MAX_PRODUCERS:
                return Refuse("producers")
    elif claim.epoch < known.epoch:
        return Refuse("epoch", known.epoch)
    elif claim.epoch > known.epoch:
        if claim.seq:
            return Refuse("first")
    elif claim.seq <= known.seq:
        return Duplicate(known.seq)
    elif claim.seq > known.seq + 1:
        return Refuse("gap", known.seq + 1)
    return {**producers, claim.producer: Progress(claim.epoch, claim.seq, hour)}
