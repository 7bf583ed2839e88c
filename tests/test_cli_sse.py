"""The event stream parser: the same events, however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamhub.cli.sse import Event, EventTooLargeError, Parser

# Every feature of the format, with its three line ends mixed.
STREAM = (
    b"\xef\xbb\xbf: a comment\r\n"
    b"data: one\r\n\r\n"
    b"event: ping\ndata:two\ndata:  lines\n\n"
    b"id: 7\rretry: 10\rdata\rdata: \r\r"
    b"\n\n:\n\n"
    b"unknown: field\ndata: \xff\x00\xe2\x82\xac\n\n"
    b"event: no data\n\n"
    b"data: one\r\rdata: after a bare return\n\n"
    b"data: not dispatched"
)
EVENTS = [
    Event(b"message", b"one"),
    Event(b"ping", b"two\n lines"),
    Event(b"message", b"\n"),
    Event(b"message", b"\xff\x00\xe2\x82\xac"),
    Event(b"message", b"one"),
    Event(b"message", b"after a bare return"),
]


def parse(pieces: list[bytes]) -> list[Event]:
    parser = Parser()
    return [event for piece in pieces for event in parser.feed(piece)]


def test_every_feature_is_parsed() -> None:
    assert parse([STREAM]) == EVENTS


def test_cut_at_any_one_byte_gives_the_same_events() -> None:
    for at in range(len(STREAM) + 1):
        assert parse([STREAM[:at], STREAM[at:]]) == EVENTS
    assert parse([STREAM[at : at + 1] for at in range(len(STREAM))]) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_cut_anywhere_gives_the_same_events(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]

    assert parse([STREAM[start:end] for start, end in pairwise(edges)]) == EVENTS


def test_event_comes_with_its_last_byte() -> None:
    parser = Parser()

    assert list(parser.feed(b"data: a\r\n")) == []
    assert list(parser.feed(b"\r")) == [Event(b"message", b"a")]  # does not wait for the line feed
    assert list(parser.feed(b"\ndata: b\n\n")) == [Event(b"message", b"b")]


def test_close_gives_the_event_without_its_empty_line() -> None:
    parser = Parser()
    list(parser.feed(b"data: last\n"))

    assert parser.close() == Event(b"message", b"last")
    assert parser.close() is None


@pytest.mark.parametrize("data", [b"x" * 2000, b"data: x\n" * 300])
def test_event_without_end_is_refused(data: bytes) -> None:
    with pytest.raises(EventTooLargeError):
        list(Parser(max_event_bytes=1000).feed(data))


def test_time_grows_with_the_bytes_not_with_their_square() -> None:
    parser, pieces = Parser(), 0

    with pytest.raises(EventTooLargeError):
        while True:
            list(parser.feed(b"x" * 1000))
            pieces += 1

    assert pieces == 8 * 1024 * 1024 // 1000
