"""Lists of pieces of volumes that differ: sorted, not overlapping, neighbours merged. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from replicator.codec.page import Differing


def without(pieces: Iterable[Differing], volume_id: int, start: int, end: int) -> list[Differing]:
    """Return ``pieces`` less the bytes from ``start`` to ``end`` of a volume."""
    kept = []
    for piece in pieces:
        if piece.volume_id != volume_id or piece.end <= start or piece.offset >= end:
            kept.append(piece)
            continue
        if piece.offset < start:
            kept.append(replace(piece, length=start - piece.offset))
        if piece.end > end:
            kept.append(replace(piece, offset=end, length=piece.end - end))
    return kept


def with_piece(pieces: Iterable[Differing], added: Differing) -> list[Differing]:
    """Return ``pieces`` and ``added``, whose position wins where they overlap."""
    kept = without(pieces, added.volume_id, added.offset, added.end)
    return merged([*kept, added])


def merged(pieces: Iterable[Differing]) -> list[Differing]:
    """Return ``pieces`` in order, those that touch as one with the newest of their positions."""
    joined: list[Differing] = []
    for piece in sorted(pieces, key=lambda each: (each.volume_id, each.offset)):
        last = joined[-1] if joined else None
        if last is not None and last.volume_id == piece.volume_id and last.end == piece.offset:
            position = max(last.position, piece.position)
            joined[-1] = replace(last, length=last.length + piece.length, position=position)
        else:
            joined.append(piece)
    return joined


def overlaps(one: Sequence[Differing], other: Sequence[Differing]) -> bool:
    """Say whether any byte is in both."""
    return any(
        a.volume_id == b.volume_id and a.offset < b.end and b.offset < a.end
        for a in one
        for b in other
    )


def total_bytes(pieces: Iterable[Differing]) -> int:
    """Return how many bytes ``pieces`` cover."""
    return sum(piece.length for piece in pieces)
