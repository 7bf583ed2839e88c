"""What a POST asks for, and what it is answered."""

from __future__ import annotations

from streamhub.web.durable.admission import REASONS, Accept, Claim, Duplicate, Refuse, StreamState, Write
from streamhub.web.durable.bodies import BadBodyError, messages_in
from streamhub.web.durable.headers import (
    CLOSED,
    OF_WRITES,
    BadHeaderError,
    Given,
    Header,
    claim_in,
    closes,
    content_type_in,
    seq_in,
)
from streamhub.web.durable.offsets import write_offset
from streamhub.web.durable.responses import Reply, refusal
from streamhub.web.durable.stored import media_type_of
from streamhub.web.durable.writer import Outcome


def write_in(given: Given, body: bytes) -> tuple[Write, tuple[bytes, ...]]:
    """Read a write, and the chunks it stores.

    Raises:
        BadHeaderError, BadBodyError, TooManyMessagesError: it is not one.
    """
    plain = OF_WRITES.isdisjoint(given)
    close = not plain and closes(given)
    media_type = None
    if body:
        content_type = content_type_in(given)
        if content_type is None:
            raise BadHeaderError("Content-Type is missing")
        media_type = media_type_of(content_type)
    chunks = messages_in(body, is_json=media_type == "application/json")
    if not chunks and (body or not close):
        raise BadBodyError("there is nothing to append")
    if plain:
        return Write(media_type, len(chunks)), chunks
    expected = given.get(b"stream-expected-offset")
    write = Write(
        media_type,
        len(chunks),
        close,
        claim_in(given),
        seq_in(given),
        None if expected is None else expected.decode("latin-1"),
    )
    return write, chunks


def reply_to_write(outcome: Outcome, write: Write) -> Reply:
    """Answer a write."""
    state, decision, claim = outcome.state, outcome.decision, write.claim
    headers: list[Header] = [(b"stream-next-offset", write_offset(state.tail).encode())]
    if state.closed:
        headers.append(CLOSED)
    if isinstance(decision, Accept):
        if claim is None:
            return Reply(204, headers)
        headers += _progress(claim, claim.seq)
        return Reply(200 if write.messages else 204, headers)
    if isinstance(decision, Duplicate):
        if claim is not None:
            headers += _progress(claim, decision.seq)
        return Reply(204, headers)
    return _refused(decision, state, write, headers)


def _refused(refuse: Refuse, state: StreamState, write: Write, headers: list[Header]) -> Reply:
    status, why = REASONS[refuse.reason]
    claim = write.claim
    known = b"%d" % (refuse.known or 0)
    if refuse.reason == "type":
        why = f"the stream's content type is {state.media_type}, not {write.media_type}"
    elif refuse.reason == "epoch":
        headers.append((b"producer-epoch", known))
    elif refuse.reason == "gap" and claim is not None:
        headers += [(b"producer-expected-seq", known), (b"producer-received-seq", b"%d" % claim.seq)]
    return refusal(status, why, *headers)


def _progress(claim: Claim, seq: int) -> list[Header]:
    return [(b"producer-epoch", b"%d" % claim.epoch), (b"producer-seq", b"%d" % seq)]
