"""Lists of pieces that differ behave as the sets of bytes that they stand for."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from replicator.codec.differing import merged, overlaps, total_bytes, with_piece, without
from replicator.codec.page import Differing

PIECES = st.builds(
    Differing, st.integers(1, 2), st.integers(0, 12), st.integers(1, 6), st.integers(0, 99)
)


def _bytes_of(pieces: list[Differing]) -> dict[tuple[int, int], int]:
    return {
        (piece.volume_id, at): piece.position
        for piece in pieces
        for at in range(piece.offset, piece.end)
    }


@given(st.lists(st.tuples(PIECES, st.booleans()), max_size=12))
def test_pieces_added_and_taken_away_are_the_bytes_that_are_left(
    steps: list[tuple[Differing, bool]],
) -> None:
    pieces: list[Differing] = []
    expected: set[tuple[int, int]] = set()
    for piece, added in steps:
        if added:
            pieces = with_piece(pieces, piece)
            expected |= _bytes_of([piece]).keys()
        else:
            pieces = merged(without(pieces, piece.volume_id, piece.offset, piece.end))
            expected -= _bytes_of([piece]).keys()
        assert _bytes_of(pieces).keys() == expected
        assert total_bytes(pieces) == len(expected), "no byte is in two pieces"
        assert pieces == sorted(pieces, key=lambda each: (each.volume_id, each.offset))
        assert all(
            one.volume_id != other.volume_id or one.end < other.offset
            for one, other in itertools.pairwise(pieces)
        ), "neighbours are merged"


@given(st.lists(PIECES, max_size=5), st.lists(PIECES, max_size=5))
def test_pieces_overlap_where_they_share_a_byte(
    one: list[Differing], other: list[Differing]
) -> None:
    assert overlaps(one, other) == bool(_bytes_of(one).keys() & _bytes_of(other).keys())
