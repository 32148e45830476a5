"""Batches: records committed together (docs/formats/journal.md, section "Batch").

Header, little-endian, then the record table, then padding to 4 KiB, then the payloads, padded to
4 KiB. A batch is valid if and only if rules V1 to V10 below hold; ``check_batch`` is their one
implementation, for recovery, pull, restore and ``replicatorctl journal check`` alike.

V1 magic and format version are known.
V2 header length, batch length and record count are in bounds and multiples of 4 KiB.
V3 the header digest (over the header with its digest field left out) holds.
V4 the group id is the group's.
V5 the position is the expected one.
V6 the previous digest is that of the batch that ends at this position (hash chain).
V7 the epoch id is the one that the durable history gives for this position.
V8 the first sequence number is the expected one.
V9 the payload digest holds, and every row's payload lies inside the payload.
V10 a batch holds either events (CONTROL_KINDS) or records about volumes, never both.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from replicator.codec.digest import digest, digest_of_parts
from replicator.codec.history import History
from replicator.codec.records import (
    CONTROL_KINDS,
    KNOWN_KINDS,
    ROW,
    WITH_PAYLOAD,
    Record,
    RecordKind,
)
from replicator.model import BLOCK, Pair

MAGIC = b"TOWLBTCH"
VERSION = 1
_HEADER = struct.Struct("<8sHHI16s16sQQIIQQQ16s16s16s")
_DIGEST_AT = _HEADER.size - 16
TABLE_AT = 192
MAX_BATCH = 4 << 20
MAX_RECORDS = 4096

Buffer = bytes | bytearray | memoryview


class Point(NamedTuple):
    """The end of a batch: its pair, records in the log up to here, and the batch's time."""

    position: int
    digest: bytes
    sequence: int
    time_ns: int

    @property
    def pair(self) -> Pair:
        """The pair that peers compare."""
        return Pair(self.position, self.digest)


LOG_START = Point(0, bytes(16), 0, 0)


class BatchHeader(NamedTuple):
    """The fixed part of a header; lengths and positions in bytes, time on the primary's clock."""

    magic: bytes
    version: int
    flags: int
    header_length: int
    group_id: bytes
    epoch_id: bytes
    position: int
    first_sequence: int
    record_count: int
    reserved: int
    length: int
    time_ns: int
    committed: int
    previous: bytes
    payload_digest: bytes
    header_digest: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """A valid batch; ``content`` is the whole batch and may alias a read buffer."""

    header: BatchHeader
    content: memoryview

    @property
    def end(self) -> Point:
        """The point at which this batch ends."""
        header = self.header
        return Point(
            header.position + header.length,
            header.header_digest,
            header.first_sequence + header.record_count,
            header.time_ns,
        )

    @property
    def first_kind(self) -> int:
        """The kind of the first record: by rule V10 it tells events from records about volumes."""
        return self.content[TABLE_AT]

    def records(self) -> Iterator[Record]:
        """Yield the rows of the table in sequence order."""
        header = self.header
        table = self.content[TABLE_AT : TABLE_AT + header.record_count * ROW.size]
        for kind, _, volume_id, _, offset, length, payload_offset in ROW.iter_unpack(table):
            yield Record(kind, volume_id, offset, length, payload_offset)

    def payload_of(self, record: Record) -> memoryview:
        """Return the bytes of a record that has a payload."""
        start = self.header.header_length + record.payload_offset
        return self.content[start : start + record.length]


@dataclass(frozen=True, slots=True)
class Invalid:
    """Why the bytes at a position are not the expected batch."""

    position: int
    rule: str
    reason: str
    needs: int = 0
    """Bytes from the position that are needed to judge; 0 if the verdict is final."""

    def __str__(self) -> str:
        return f"position {self.position}: {self.rule} {self.reason}"


class Context(NamedTuple):
    """What a writer states in a header; ``committed`` is a position."""

    group_id: bytes
    epoch_id: bytes
    at: Point
    time_ns: int
    committed: int


def batch_bound(ring_size: int) -> int:
    """Return the largest batch in bytes that the smallest ring of the group allows."""
    return min(MAX_BATCH, ring_size // 8 // BLOCK * BLOCK)


def header_length(record_count: int) -> int:
    """Return the bytes of a header with ``record_count`` rows, a multiple of 4 KiB."""
    return -(-(TABLE_AT + record_count * ROW.size) // BLOCK) * BLOCK


def batch_length(record_count: int, payload_bytes: int) -> int:
    """Return the bytes of a whole batch, a multiple of 4 KiB."""
    return header_length(record_count) + -(-payload_bytes // BLOCK) * BLOCK


Content = tuple[RecordKind, int, int, int, Sequence[Buffer]]
"""A record to be written: kind, volume id, offset, length, payload buffers."""


def build_batch(context: Context, contents: Sequence[Content], out: memoryview) -> Point:
    """Write a batch into ``out`` and return the point at which it ends.

    ``out`` must have room for ``batch_length``; its bytes up to that length are all written.
    Payloads are copied before they are digested, so a host that changes its buffer while the
    write is in flight cannot make the batch invalid.
    """
    count = len(contents)
    head = header_length(count)
    at = head
    row_at = TABLE_AT
    pack_row = ROW.pack_into
    for kind, volume_id, offset, length, buffers in contents:
        pack_row(out, row_at, kind, 0, volume_id, 0, offset, length, at - head if buffers else 0)
        row_at += ROW.size
        for buffer in buffers:
            end = at + len(buffer)
            out[at:end] = buffer
            at = end
    out[row_at:head] = bytes(head - row_at)
    total = -(-at // BLOCK) * BLOCK
    if total != at:
        out[at:total] = bytes(total - at)
    start = context.at
    fields = (
        MAGIC,
        VERSION,
        0,
        head,
        context.group_id,
        context.epoch_id,
        start.position,
        start.sequence,
        count,
        0,
        total,
        context.time_ns,
        context.committed,
        start.digest,
        digest(out[head:total]),
        b"",
    )
    _HEADER.pack_into(out, 0, *fields)
    out[_HEADER.size : TABLE_AT] = bytes(TABLE_AT - _HEADER.size)
    own = _header_digest(out, head)
    out[_DIGEST_AT : _HEADER.size] = own
    return Point(start.position + total, own, start.sequence + count, context.time_ns)


def _header_digest(content: memoryview, head: int) -> bytes:
    return digest_of_parts((content[:_DIGEST_AT], content[_HEADER.size : head]))


def header_digest_holds(content: memoryview, header: BatchHeader) -> bool:
    """Whether rule V3 holds for the whole header at the start of ``content``."""
    return _header_digest(content, header.header_length) == header.header_digest


def parse_header(block: Buffer) -> BatchHeader | None:
    """Return the fixed header fields if V1 and V2 hold for ``block`` (at least 4 KiB)."""
    if len(block) < _HEADER.size:
        return None
    header = BatchHeader(*_HEADER.unpack_from(block, 0))
    if header.magic != MAGIC or header.version != VERSION or header.flags != 0:
        return None
    head, length = header.header_length, header.length
    if head % BLOCK or length % BLOCK or not head <= length <= MAX_BATCH:
        return None
    if header.record_count > MAX_RECORDS or head != header_length(header.record_count):
        return None
    return header


def check_batch(
    content: memoryview, at: Point, group_id: bytes, history: History
) -> Batch | Invalid:
    """Judge the bytes at ``at`` by rules V1 to V10; ``content`` begins there.

    If the batch is longer than ``content``, the answer is an Invalid with ``needs`` set.
    """
    position = at.position
    if len(content) < BLOCK:
        return Invalid(position, "V2", "not all bytes read", BLOCK)
    header = parse_header(content)
    if header is None:
        return Invalid(position, "V1", "no batch header")
    if header.position != position:
        return Invalid(position, "V5", f"header says position {header.position}")
    if len(content) < header.header_length:
        return Invalid(position, "V2", "not all bytes read", header.header_length)
    if not header_digest_holds(content, header):
        return Invalid(position, "V3", "header digest does not hold")
    if header.group_id != group_id:
        return Invalid(position, "V4", f"group id is {header.group_id.hex()}")
    if header.previous != at.digest:
        return Invalid(position, "V6", "does not continue the batch before it")
    if header.epoch_id != history.epoch_at(position).id:
        return Invalid(position, "V7", f"epoch id is {header.epoch_id.hex()}")
    if header.first_sequence != at.sequence:
        return Invalid(position, "V8", f"first sequence number is {header.first_sequence}")
    if len(content) < header.length:
        return Invalid(position, "V2", "not all bytes read", header.length)
    payload = content[header.header_length : header.length]
    if digest(payload) != header.payload_digest:
        return Invalid(position, "V9", "payload digest does not hold")
    batch = Batch(header, content[: header.length])
    return _check_rows(batch, len(payload)) or batch


def _check_rows(batch: Batch, payload_bytes: int) -> Invalid | None:
    """Refuse rows that point outside the payload (only a faulty writer makes them)."""
    events = batch.first_kind in CONTROL_KINDS
    for record in batch.records():
        if (record.kind in CONTROL_KINDS) != events:
            return Invalid(batch.header.position, "V10", "events and volume records in one batch")
        if record.kind not in KNOWN_KINDS:
            return Invalid(batch.header.position, "V9", f"record kind {record.kind} is unknown")
        if record.kind in WITH_PAYLOAD and record.payload_offset + record.length > payload_bytes:
            return Invalid(batch.header.position, "V9", "a record's payload lies outside")
    return None


def walk(
    content: memoryview, at: Point, group_id: bytes, history: History
) -> Iterator[Batch | Invalid]:
    """Yield the valid batches that ``content`` holds from ``at`` on, then one Invalid.

    The Invalid with ``needs`` > 0 means that ``content`` ends inside a batch (or exactly at the
    end of one).
    """
    base = at.position
    while True:
        verdict = check_batch(content[at.position - base :], at, group_id, history)
        yield verdict
        if isinstance(verdict, Invalid):
            return
        at = verdict.end
