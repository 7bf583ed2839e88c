"""Where a cursor lies in a run with three opens: generation 5 wrote 1 to 3, 7 wrote 4 to 6, 9 writes from 7 on."""

import pytest

from streamhub import Offset, Span, StreamReplacedError
from streamhub.cursor import generation_at, locate, number_chunks

SPANS = (Span(5, 1), Span(7, 4), Span(9, 7))


@pytest.mark.parametrize(
    ("cursor", "position"),
    [("5-0", "within"), ("5-1", "within"), ("5-3", "within"), ("7-4", "within"), ("7-6", "within"), ("9-7", "within"),
     ("9-8", "within"), ("9-9", "beyond"), ("10-1", "beyond"), ("10-99", "beyond"),
     ("5-4", "replaced"), ("7-3", "replaced"), ("7-0", "replaced"), ("7-7", "replaced"), ("9-6", "replaced"),
     ("9-0", "replaced"), ("4-1", "replaced"), ("6-4", "replaced"), ("8-5", "replaced")],
)  # fmt: skip
def test_a_cursor_is_within_beyond_or_replaced(cursor, position):
    if position == "replaced":
        with pytest.raises(StreamReplacedError):
            locate("k", Offset.parse(cursor), run="r", spans=SPANS, tail=8)
    else:
        assert locate("k", Offset.parse(cursor), run="r", spans=SPANS, tail=8) == position


def test_a_generation_that_wrote_nothing_has_no_positions():
    # 7 opened and died before its first chunk: 9 began at the same index.
    spans = (Span(5, 1), Span(7, 4), Span(9, 4))
    with pytest.raises(StreamReplacedError):
        locate("k", Offset(7, 4), run="r", spans=spans, tail=8)
    assert [generation_at(spans, index) for index in (1, 3, 4, 5)] == [5, 5, 9, 9]


def test_chunks_across_an_open_carry_their_own_generations():
    chunks = number_chunks([b"c", b"d", b"e", b"f", b"g"], 3, SPANS)
    assert [str(chunk.offset) for chunk in chunks] == ["5-3", "7-4", "7-5", "7-6", "9-7"]
