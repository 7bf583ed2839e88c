"""Admission, exhaustively: every decision over a small world, against the protocol's rules written another way."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest

from streamhub.types import Offset
from streamhub.web.durable.admission import (
    IDLE_HOURS,
    MAX_PRODUCERS,
    REASONS,
    Accept,
    Claim,
    Decision,
    Duplicate,
    Progress,
    Refuse,
    StreamState,
    Write,
    admit,
)
from streamhub.web.durable.offsets import write_offset
from streamhub.web.durable.stored import (
    MAX_TEXT_CHARS,
    Configuration,
    short_id,
    updated_metadata,
)

HOUR = 490_000
TEXT, JSON = "text/plain", "application/json"


def state(**changes: Any) -> StreamState:
    facts: dict[str, Any] = {
        "media_type": TEXT,
        "generation": 3,
        "tail": Offset(3, 7),
        "closed": False,
        "produced": False,
        "producers": {"a": Progress(2, 5, HOUR - 1)},
        "seq": "m",
        "closer": None,
    }
    return StreamState(**(facts | changes))


def accepted(decision: Decision) -> StreamState:
    assert isinstance(decision, Accept), decision
    return decision.state


# --- every combination

CLAIMS = [None, *(Claim(name, epoch, seq) for name in "ab" for epoch in (1, 2, 3) for seq in (0, 4, 5, 6, 7))]
SEQS = [None, "a", "m", "n"]
PLACES = [None, write_offset(Offset(3, 7)), write_offset(Offset(3, 6)), "nonsense"]
TYPES = [TEXT, JSON, None]
STATES = [
    (state(), {Accept, Duplicate, Refuse}),
    (state(seq=None, producers={}), {Accept, Refuse}),
    (state(closed=True), {Duplicate, Refuse}),
    (state(closed=True, closer=Claim("a", 2, 5)), {Duplicate, Refuse}),
    (state(produced=True), {Refuse}),
    (state(produced=True, closed=True), {Duplicate, Refuse}),
]


def refused_by_claim(known: Mapping[str, Progress], claim: Claim) -> Decision | None:
    """The protocol's table for producers."""
    if claim.producer not in known:
        return None if claim.seq == 0 else Refuse("gap", 0)
    epoch, seq, _ = known[claim.producer]
    match (claim.epoch > epoch) - (claim.epoch < epoch):
        case -1:
            return Refuse("epoch", epoch)
        case 1:
            return None if claim.seq == 0 else Refuse("first")
        case _:
            if claim.seq <= seq:
                return Duplicate(seq)
            return None if claim.seq == seq + 1 else Refuse("gap", seq + 1)


def expected_refusal(before: StreamState, write: Write) -> Decision | None:
    """What is decided, but for acceptance: the checks in the protocol's order, the first that objects."""
    checks: list[Decision | None] = []
    if before.closed:
        repeats = write.claim is not None and write.claim == before.closer
        closes_again = write.claim is None and write.close and write.messages == 0
        if repeats:
            assert write.claim is not None
            return Duplicate(write.claim.seq)
        return Duplicate(0) if closes_again else Refuse("closed")
    checks.append(Refuse("produced") if before.produced else None)
    checks.append(Refuse("type") if write.messages and write.media_type != before.media_type else None)
    checks.append(None if write.claim is None else refused_by_claim(before.producers, write.claim))
    stale = write.seq is not None and before.seq is not None and not write.seq > before.seq
    checks.append(Refuse("seq") if stale else None)
    elsewhere = write.expected is not None and write.expected != write_offset(before.tail)
    checks.append(Refuse("offset") if elsewhere else None)
    return next((check for check in checks if check is not None), None)


@pytest.mark.parametrize(("before", "kinds"), STATES, ids=range(len(STATES)))
def test_every_combination_is_decided_by_the_rules(before: StreamState, kinds: set[type[Decision]]) -> None:
    bodies = [(0, True), (1, False), (3, False), (3, True)]
    seen: set[type[Decision]] = set()
    for claim, seq, place, media_type, (count, close) in itertools.product(CLAIMS, SEQS, PLACES, TYPES, bodies):
        write = Write(media_type, count, close, claim, seq, place)
        decision = admit(before, write, HOUR)
        seen.add(type(decision))
        wanted = expected_refusal(before, write)
        if wanted is not None:
            assert decision == wanted, write
        else:
            check_accepted(before, write, accepted(decision))
    assert seen == kinds


def check_accepted(before: StreamState, write: Write, after: StreamState) -> None:
    assert after.tail == (
        Offset(before.generation, before.tail.index + write.messages) if write.messages else before.tail
    )
    assert after.closed == write.close
    assert after.closer == (write.claim if write.close else None)
    assert after.seq == (write.seq if write.seq is not None else before.seq)
    assert (after.media_type, after.generation, after.produced) == (before.media_type, before.generation, False)
    wanted = dict(before.producers)
    if write.claim is not None:
        wanted[write.claim.producer] = Progress(write.claim.epoch, write.claim.seq, HOUR)
    assert after.producers == wanted


# --- particular promises


def test_decision_changes_nothing_of_the_state_it_rests_on() -> None:
    before = state()
    producers = dict(before.producers)

    after = accepted(admit(before, Write(TEXT, 1, claim=Claim("a", 2, 6)), HOUR))

    assert before.producers == producers
    assert after.producers["a"] == Progress(2, 6, HOUR)


def test_write_without_claim_keeps_the_same_producers_so_that_no_metadata_is_stored() -> None:
    before = state()

    assert accepted(admit(before, Write(TEXT, 1), HOUR)).producers is before.producers


def test_repetition_is_recognised_though_seq_and_expected_offset_are_stale_by_now() -> None:
    write = Write(TEXT, 1, claim=Claim("a", 2, 5), seq="m", expected=write_offset(Offset(3, 6)))

    assert admit(state(), write, HOUR) == Duplicate(5)


def test_repetition_tells_the_highest_sequence() -> None:
    assert admit(state(), Write(TEXT, 1, claim=Claim("a", 2, 0)), HOUR) == Duplicate(5)


def test_sequence_compares_as_text() -> None:
    assert admit(state(seq="2"), Write(TEXT, 1, seq="10"), HOUR) == Refuse("seq")
    assert accepted(admit(state(seq="09"), Write(TEXT, 1, seq="10"), HOUR)).seq == "10"
    assert admit(state(seq="a"), Write(TEXT, 1, seq="B"), HOUR) == Refuse("seq")


def test_close_only_ignores_the_content_type() -> None:
    assert accepted(admit(state(), Write(JSON, 0, close=True), HOUR)).closed


def full(idle: int = 0) -> dict[str, Progress]:
    """Producers up to the brim, some of them idle."""
    return {
        f"p{number}": Progress(0, 0, HOUR - (IDLE_HOURS + 1 if number < idle else IDLE_HOURS))
        for number in range(MAX_PRODUCERS)
    }


def test_producers_up_to_the_bound_are_admitted_and_one_more_is_not() -> None:
    before = state(producers={})
    for number in range(MAX_PRODUCERS):
        before = accepted(admit(before, Write(TEXT, 1, claim=Claim(f"p{number}", 0, 0)), HOUR))

    assert len(before.producers) == MAX_PRODUCERS
    assert admit(before, Write(TEXT, 1, claim=Claim("new", 0, 0)), HOUR) == Refuse("producers")
    assert REASONS["producers"][0] == 429


def test_known_producers_go_on_when_there_are_too_many() -> None:
    after = accepted(admit(state(producers=full()), Write(TEXT, 1, claim=Claim("p7", 0, 1)), HOUR))

    assert after.producers["p7"] == Progress(0, 1, HOUR)
    assert len(after.producers) == MAX_PRODUCERS


def test_producers_idle_for_more_than_a_week_make_room() -> None:
    after = accepted(admit(state(producers=full(idle=3)), Write(TEXT, 1, claim=Claim("new", 0, 0)), HOUR))

    assert len(after.producers) == MAX_PRODUCERS - 2
    assert not {"p0", "p1", "p2"} & after.producers.keys()


def test_idle_producers_are_not_forgotten_before_there_is_need() -> None:
    old = {"a": Progress(2, 5, HOUR - 10 * IDLE_HOURS)}
    after = accepted(admit(state(producers=old), Write(TEXT, 1, claim=Claim("new", 0, 0)), HOUR))

    assert after.producers.keys() == {"a", "new"}
    assert admit(state(producers=old), Write(TEXT, 1, claim=Claim("a", 2, 5)), HOUR) == Duplicate(5)


def test_metadata_stays_within_its_bound_at_the_worst() -> None:
    most = 2**53 - 1
    names = [f"{number:015}" for number in range(MAX_PRODUCERS - 1)] + [short_id("x" * 500)]
    worst = state(
        producers={name: Progress(most, most, 999_999) for name in names},
        seq="\x80" * MAX_TEXT_CHARS,
        closer=Claim(names[-1], most, most),
    )
    configuration = Configuration("x" * MAX_TEXT_CHARS, None, "9999-12-31T23:59:59.999999999+00:00")

    stored = json.dumps(updated_metadata({}, configuration, worst), separators=(",", ":"), ensure_ascii=False)

    assert len(stored.encode()) <= 64 * 1024


def test_ids_are_stored_as_they_are_or_as_a_hash_that_no_plain_id_can_be() -> None:
    assert short_id("worker-1") == "worker-1"
    hashed = [short_id(each) for each in ("x" * 16, "x" * 17, 'quo"te', "\xe9", "with space")]
    assert len(set(hashed)) == len(hashed)
    assert all(len(each) == 16 for each in hashed)
    assert all(len(short_id("y" * size)) == size for size in range(1, 16))
