"""Nonces: no two appends have the same."""

from __future__ import annotations

from itertools import count

from streamhub.nonces import Nonces


def test_nonces_differ_within_a_writer_and_between_writers() -> None:
    writers = [Nonces() for _ in range(100)]
    found = [writer.fresh() for writer in writers for _ in range(100)]
    assert len(set(found)) == len(found)
    assert {len(nonce) for nonce in found} == {12}


def test_numbers_begin_again_after_the_last() -> None:
    writer = Nonces()
    writer._numbers = count(2**32 - 1)
    assert writer.fresh()[8:] == b"\xff\xff\xff\xff"
    assert writer.fresh()[8:] == bytes(4)
