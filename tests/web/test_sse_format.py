"""The event stream format: what is encoded comes out as it went in, however the bytes are cut."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamhub.sse import Event, EventTooLargeError, Parser, encode_comment, encode_event, encode_retry

# Every feature of the format, with its three line ends mixed.
STREAM = (
    b"\xef\xbb\xbf: a comment\r\n"
    b"data: one\r\n\r\n"
    b"event: ping\ndata:two\ndata:  lines\n\n"
    b"id: 7\rretry: 10\rdata\rdata: \r\r"
    b"\n\n:\n\n"
    b"unknown: field\ndata: \xff\x00\xe2\x82\xac\n\n"
    b"event: no data\n\n"
    b"id: nu\0l\ndata: one\r\rdata: after a bare return\n\n"
    b"id\ndata\n\n"
    b"id: 8-0\n\n"
    b"retry: 1x\ndata: not dispatched"
)
EVENTS = [
    Event(b"message", b"one"),
    Event(b"ping", b"two\n lines"),
    Event(b"message", b"\n", b"7"),
    Event(b"message", b"\xff\x00\xe2\x82\xac", b"7"),
    Event(b"message", b"one", b"7"),
    Event(b"message", b"after a bare return", b"7"),
    Event(b"message", b"", b""),
]

# Bytes that are likely to matter, beside any others.
TELLING = [b"\r", b"\n", b"\r\n", b"\0", b":", b" ", b"data", b"id", b"event", b"retry", b"9", b"\xef\xbb\xbf", b"\xff"]
pieces = st.lists(st.sampled_from(TELLING) | st.binary(max_size=4), max_size=40).map(b"".join)


def parse(parts: list[bytes]) -> list[Event]:
    parser = Parser()
    return [event for part in parts for event in parser.feed(part)]


def standard(stream: bytes) -> tuple[list[Event], bytes, int | None]:
    """The algorithm of the standard, step by step, on the whole stream (bytes in place of characters)."""
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    lines = re.split(b"\r\n|\n|\r", stream)[:-1]  # the last one has not ended
    events: list[Event] = []
    data, kind, buffered_id, last_id, retry = b"", b"", b"", b"", None
    for line in lines:
        if line == b"":
            last_id = buffered_id
            if data != b"":
                events.append(Event(kind or b"message", data[:-1], last_id))
            data, kind = b"", b""
        elif line.startswith(b":"):
            continue
        else:
            field, value = line, b""
            if b":" in line:
                at = line.index(b":")
                field, value = line[:at], line[at + 1 :]
                if value.startswith(b" "):
                    value = value[1:]
            if field == b"event":
                kind = value
            elif field == b"data":
                data += value + b"\n"
            elif field == b"id" and b"\0" not in value:
                buffered_id = value
            elif field == b"retry" and value and all(48 <= byte <= 57 for byte in value):
                retry = int(value[:9])  # ten days are enough
    return events, last_id, retry


def test_every_feature_is_parsed() -> None:
    parser = Parser()

    assert list(parser.feed(STREAM)) == EVENTS
    assert (parser.last_id, parser.retry_milliseconds) == (b"8-0", 10)


def test_cut_at_any_one_byte_gives_the_same_events() -> None:
    for at in range(len(STREAM) + 1):
        assert parse([STREAM[:at], STREAM[at:]]) == EVENTS
    assert parse([STREAM[at : at + 1] for at in range(len(STREAM))]) == EVENTS


@given(pieces, st.lists(st.integers(0, 200), max_size=20))
def test_any_bytes_cut_anywhere_are_parsed_as_the_standard_says(stream: bytes, cuts: list[int]) -> None:
    parser = Parser()
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]

    events = [event for start, end in pairwise(edges) for event in parser.feed(stream[start:end])]

    assert (events, parser.last_id, parser.retry_milliseconds) == standard(stream)


safe_text = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"))


@given(st.lists(st.tuples(st.none() | pieces, safe_text, safe_text)))
def test_what_is_encoded_is_parsed_back(events: list[tuple[bytes | None, str, str]]) -> None:
    stream = encode_comment("open") + b"".join(
        encode_event(data, event_id=event_id, name=name) for data, event_id, name in events
    )

    assert parse([stream]) == [
        Event(name.encode() or b"message", re.sub(b"\r\n|\r", b"\n", data), event_id.encode())
        for data, event_id, name in events
        if data is not None
    ]


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\r\ndata: injected", "a\0b"])
def test_no_field_can_begin_another_one(value: str) -> None:
    with pytest.raises(ValueError, match="line end or NUL"):
        encode_event(b"", event_id=value)
    with pytest.raises(ValueError, match="line end or NUL"):
        encode_event(b"", name=value)
    with pytest.raises(ValueError, match="line end or NUL"):
        encode_comment(value)


def test_event_without_data_moves_the_id_and_is_no_event() -> None:
    parser = Parser()

    assert list(parser.feed(encode_event(None, event_id="7-0") + encode_retry(1500))) == []
    assert (parser.last_id, parser.retry_milliseconds) == (b"7-0", 1500)


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
    parser, count = Parser(), 0

    with pytest.raises(EventTooLargeError):
        while True:
            list(parser.feed(b"x" * 1000))
            count += 1

    assert count == 8 * 1024 * 1024 // 1000
