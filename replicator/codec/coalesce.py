"""Turn the records of consecutive batches into as few device writes as possible.

Later writes win where records overlap, and neighbours become one write. A large zero is not
carried as bytes: it stands between two windows as an action of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from replicator.codec.batch import Batch, Buffer
from replicator.codec.chunks import decode_verify
from replicator.codec.records import CONTROL_KINDS, Record, RecordKind

_INLINE_ZERO = 64 << 10
_ZEROS = memoryview(bytes(_INLINE_ZERO))


class Write(NamedTuple):
    """Write ``buffers`` one after the other from ``offset``."""

    volume_id: int
    offset: int
    buffers: Sequence[Buffer]


class Zero(NamedTuple):
    """Make ``length`` bytes from ``offset`` read as zeros."""

    volume_id: int
    offset: int
    length: int


class Check(NamedTuple):
    """Compare ``length`` bytes from ``offset`` with ``digest``, after all actions before it."""

    volume_id: int
    offset: int
    length: int
    digest: bytes
    position: int
    """Where in the log the batch with this verify record begins."""


class UnknownRecord(ValueError):
    """A record that this release cannot apply; the message names kind and position."""


class _Piece(NamedTuple):
    volume_id: int
    offset: int
    order: int
    end: int
    buffer: Buffer


def coalesce(batches: Sequence[Batch]) -> Iterator[Write | Zero | Check]:
    """Yield device writes that have the effect of the batches' records, in a valid order.

    A Check stands after everything below it in the log and before everything above it. Raises
    UnknownRecord for a record that cannot be applied.
    """
    pieces: list[_Piece] = []
    order = 0
    for batch in batches:
        if batch.first_kind in CONTROL_KINDS:
            continue
        for record in batch.records():
            order += 1
            if record.kind in (RecordKind.WRITE, RecordKind.COPY):
                pieces.append(_piece(record, order, batch.payload_of(record)))
            elif record.kind == RecordKind.VERIFY:
                check = _check(batch, record)
                yield from _merged(pieces)
                pieces = []
                yield check
            elif record.length <= _INLINE_ZERO:
                pieces.append(_piece(record, order, _ZEROS[: record.length]))
            else:
                yield from _merged(pieces)
                pieces = []
                yield Zero(record.volume_id, record.offset, record.length)
    yield from _merged(pieces)


def _check(batch: Batch, record: Record) -> Check:
    position = batch.header.position
    try:
        verify = decode_verify(batch.payload_of(record))
    except ValueError as error:
        raise UnknownRecord(f"the batch at position {position}: {error}") from error
    return Check(record.volume_id, record.offset, verify.length, verify.digest, position)


def _piece(record: Record, order: int, buffer: Buffer) -> _Piece:
    return _Piece(record.volume_id, record.offset, order, record.offset + record.length, buffer)


def _merged(pieces: list[_Piece]) -> Iterator[Write]:
    """Yield one write for each cluster of touching pieces."""
    pieces.sort()
    cluster: list[_Piece] = []
    end = overlaps = 0
    for piece in pieces:
        if cluster and (piece.volume_id != cluster[0].volume_id or piece.offset > end):
            yield _cluster_write(cluster, end, overlaps)
            cluster = []
            overlaps = 0
        if cluster and piece.offset < end:
            overlaps = 1
        end = max(end, piece.end) if cluster else piece.end
        cluster.append(piece)
    if cluster:
        yield _cluster_write(cluster, end, overlaps)


def _cluster_write(cluster: list[_Piece], end: int, overlaps: int) -> Write:
    first = cluster[0]
    if not overlaps:
        return Write(first.volume_id, first.offset, [piece.buffer for piece in cluster])
    whole = bytearray(end - first.offset)
    for piece in sorted(cluster, key=lambda piece: piece.order):
        at = piece.offset - first.offset
        whole[at : at + len(piece.buffer)] = piece.buffer
    return Write(first.volume_id, first.offset, [whole])
