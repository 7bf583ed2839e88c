"""Stored forms: what is written is read back, and what is unknown is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamhub import End, Offset, Retention, Span, UnsupportedFormatError
from streamhub.errors import InvalidOffsetError
from streamhub.records import (
    decode_end,
    decode_retention,
    decode_spans,
    encode_end,
    encode_retention,
    encode_spans,
    pack_chunks,
    unpack_chunks,
)

SAMPLE = [b"", b"a", bytes(range(256)), "žluťoučký 🦓".encode(), b"x" * 127, b"y" * 128, b"z" * 20_000]


@given(st.lists(st.binary(max_size=300)))
def test_packed_chunks_come_back_with_their_boundaries(chunks):
    assert unpack_chunks(pack_chunks(chunks)) == chunks


@given(st.lists(st.binary(max_size=300)), st.integers(0, 12), st.integers(1, 12))
def test_a_part_of_a_record_can_be_read(chunks, skip, most):
    record = pack_chunks(chunks)
    assert unpack_chunks(record, skip) == chunks[skip:]
    assert unpack_chunks(record, skip, most) == chunks[skip : skip + most]


def test_the_stored_form_of_version_1_never_changes():
    # Written by the first release: every later one must read it.
    record = b"\x01\x03\x01\x00\x80\x01" + b"a" + b"b" * 128
    assert unpack_chunks(record) == [b"a", b"", b"b" * 128]
    assert pack_chunks([b"a", b"", b"b" * 128]) == record
    assert decode_end('{"v":1,"state":"failed","code":"E","message":"m"}') == End(state="failed", code="E", message="m")
    assert decode_spans("7-1,9-43") == (Span(7, 1), Span(9, 43))


@pytest.mark.parametrize("at", range(len(pack_chunks([b"abc", b"d" * 200, b""]))))
def test_a_truncated_record_is_refused_not_misread(at):
    record = pack_chunks([b"abc", b"d" * 200, b""])
    with pytest.raises(UnsupportedFormatError):
        unpack_chunks(record[:at])


def test_an_unknown_version_is_refused():
    with pytest.raises(UnsupportedFormatError, match="upgrade"):
        unpack_chunks(b"\x02" + pack_chunks(SAMPLE)[1:])
    with pytest.raises(UnsupportedFormatError) as caught:
        decode_end('{"v":2,"state":"completed"}')
    assert (caught.value.found, caught.value.known) == (2, 1)


def test_short_tokens_cost_one_byte_each():
    assert len(pack_chunks([b"token"] * 100)) == 100 * 6 + 2


ENDS = [
    End(state="completed"),
    End(state="failed", code="ValueError", message="größer\n"),
    End(state="cancelled", reason="", requested_by="u7"),
]


@pytest.mark.parametrize("end", ENDS)
def test_ends_come_back(end):
    assert decode_end(encode_end(end)) == end


def test_spans_and_retention_come_back():
    spans = (Span(1795388485298, 1), Span(1795388485300, 2**40))
    assert decode_spans(encode_spans(spans)) == spans
    retention = Retention(unfinished_seconds=0.5, max_chunks=3, overflow="trim")
    assert decode_retention(encode_retention(retention)) == retention


@given(st.integers(1, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_an_offset_round_trips_as_short_url_safe_text(generation, index):
    text = str(Offset(generation, index))
    assert Offset.parse(text) == (generation, index)
    assert len(text) <= 64
    assert set(text) <= set("0123456789-")


@pytest.mark.parametrize(
    "text",
    ["", "-", "7", "7-", "-7", "7--1", "-7-1", "07-1", "7-01", "+7-1", "7-1 ", " 7-1", "7-1\n", "0-1", "7_0-1", "٧-١",
     "start", "latest", f"{2**63}-1", f"1-{2**63}", "1-" + "9" * 40, "7-1-1", "7.0-1"],
)  # fmt: skip
def test_a_malformed_offset_is_refused(text):
    with pytest.raises(InvalidOffsetError):
        Offset.parse(text)


def test_offsets_order_as_positions():
    assert sorted([Offset(9, 43), Offset(7, 9), Offset(7, 10)]) == [(7, 9), (7, 10), (9, 43)]
