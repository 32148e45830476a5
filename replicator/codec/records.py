"""Records: one host write or event each, as rows of a batch's table.

Row, 32 bytes, little-endian: kind u8, flags u8 (0), volume id u16, reserved u32 (0), offset u64,
length u64, payload offset u64 (from the start of the batch's payload; 0 where a kind has none).
The sequence number of a row is the batch's first sequence number plus its index.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

ROW = struct.Struct("<BBHIQQQ")


class RecordKind(IntEnum):
    """What a record says. Values are part of the format and never reused."""

    WRITE = 1
    ZERO = 2
    COPY = 3
    VERIFY = 4
    BOOKMARK = 5
    EPOCH = 6
    SITE = 7
    HANDOVER = 8
    VOLUME = 9
    POLICY = 10
    RESYNC_BEGIN = 11
    RESYNC_END = 12


CONTROL_KINDS = frozenset(
    {
        RecordKind.BOOKMARK,
        RecordKind.EPOCH,
        RecordKind.SITE,
        RecordKind.HANDOVER,
        RecordKind.VOLUME,
        RecordKind.POLICY,
        RecordKind.RESYNC_BEGIN,
        RecordKind.RESYNC_END,
    }
)
"""Events: they change no byte of a volume, and stand in batches of their own (rule V10)."""

WITH_PAYLOAD = CONTROL_KINDS | {RecordKind.WRITE, RecordKind.COPY, RecordKind.VERIFY}
"""Kinds whose row's length is that of a payload in the batch."""

CATALOG_KINDS = frozenset({RecordKind.VOLUME})
"""Events that change the catalog (codec/catalog_records.py)."""

KNOWN_KINDS = frozenset(int(kind) for kind in RecordKind)


class Record(NamedTuple):
    """One row of a batch's table; offset and length are bytes in the volume."""

    kind: int
    volume_id: int
    offset: int
    length: int
    payload_offset: int
