"""Commands that read or change blocks (SBC-3 chapter 5): CDB to ranges in bytes.

Rules for all of them, in this order: protection bits must be 0 (no protection information is
kept), the range must lie inside the volume, the length must not pass the limit of VPD page B0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from replicator.codec.scsi import device as limits
from replicator.codec.scsi import sense
from replicator.codec.scsi.actions import (
    GOOD,
    Action,
    CompareAndWrite,
    Fail,
    Parameters,
    Read,
    Verify,
    VerifyMode,
    Write,
    WriteSame,
    Zero,
)
from replicator.codec.scsi.device import ScsiDevice
from replicator.model import SECTOR

Handler = Callable[[bytes, ScsiDevice], Action]
_Fields = Callable[[bytes], tuple[int, int]]

_CDB_10 = struct.Struct(">2xIxHx")
_CDB_12 = struct.Struct(">2xII2x")
_CDB_16 = struct.Struct(">2xQI2x")
_PROTECT = 0xE0

_INVALID_FIELD = Fail(sense.INVALID_FIELD_IN_CDB)
_OUT_OF_RANGE = Fail(sense.LBA_OUT_OF_RANGE)


def _fields_6(cdb: bytes) -> tuple[int, int]:
    return (cdb[1] & 0x1F) << 16 | cdb[2] << 8 | cdb[3], cdb[4] or 256


def _fields_10(cdb: bytes) -> tuple[int, int]:
    return _CDB_10.unpack(cdb)


def _fields_12(cdb: bytes) -> tuple[int, int]:
    return _CDB_12.unpack(cdb)


def _fields_16(cdb: bytes) -> tuple[int, int]:
    return _CDB_16.unpack(cdb)


def _refuse(cdb: bytes, block: int, count: int, device: ScsiDevice, limit: int) -> Fail | None:
    """Return why the range is refused, None if it is good."""
    if cdb[1] & _PROTECT:
        return _INVALID_FIELD
    if block + count > device.blocks:
        return _OUT_OF_RANGE
    if count > limit:
        return _INVALID_FIELD
    return None


def _read_6(cdb: bytes, device: ScsiDevice) -> Action:
    block, count = _fields_6(cdb)
    if block + count > device.blocks:
        return _OUT_OF_RANGE
    return Read(block * SECTOR, count * SECTOR)


def _write_6(cdb: bytes, device: ScsiDevice) -> Action:
    block, count = _fields_6(cdb)
    if block + count > device.blocks:
        return _OUT_OF_RANGE
    return Write(block * SECTOR, count * SECTOR)


def _reader(fields: _Fields) -> Handler:
    def decode_read(cdb: bytes, device: ScsiDevice) -> Action:
        block, count = fields(cdb)
        refused = _refuse(cdb, block, count, device, limits.MAX_TRANSFER_BLOCKS)
        return refused or Read(block * SECTOR, count * SECTOR)

    return decode_read


def _writer(fields: _Fields) -> Handler:
    def decode_write(cdb: bytes, device: ScsiDevice) -> Action:
        block, count = fields(cdb)
        refused = _refuse(cdb, block, count, device, limits.MAX_TRANSFER_BLOCKS)
        return refused or Write(block * SECTOR, count * SECTOR)

    return decode_write


def _write_verifier(fields: _Fields) -> Handler:
    """WRITE AND VERIFY: an answered write is durable and readable, so it is a plain write.

    With BYTCHK=1 the comparison would be of the same bytes; with 0 it is a read back.
    """
    write = _writer(fields)

    def decode_write_and_verify(cdb: bytes, device: ScsiDevice) -> Action:
        return _INVALID_FIELD if cdb[1] & 0x04 else write(cdb, device)

    return decode_write_and_verify


def _verifier(fields: _Fields) -> Handler:
    def decode_verify(cdb: bytes, device: ScsiDevice) -> Action:
        block, count = fields(cdb)
        check = cdb[1] >> 1 & 0x03
        if check == 2:
            return _INVALID_FIELD
        refused = _refuse(cdb, block, count, device, limits.MAX_TRANSFER_BLOCKS)
        return refused or Verify(block * SECTOR, count * SECTOR, VerifyMode(check))

    return decode_verify


def _same_writer(fields: _Fields, ndob_bit: int) -> Handler:
    """WRITE SAME 10 and 16; ANCHOR, PBDATA and LBDATA are refused, NDOB means zeros."""

    def decode_write_same(cdb: bytes, device: ScsiDevice) -> Action:
        block, count = fields(cdb)
        flags = cdb[1]
        if flags & (0x10 | 0x06) or count == 0:
            return _INVALID_FIELD
        if not ndob_bit and flags & 0x01:
            return _INVALID_FIELD
        refused = _refuse(cdb, block, count, device, limits.MAX_ZERO_BLOCKS)
        if refused:
            return refused
        if flags & ndob_bit:
            return Zero(((block * SECTOR, count * SECTOR),))
        return WriteSame(block * SECTOR, count * SECTOR)

    return decode_write_same


def _compare_and_write(cdb: bytes, device: ScsiDevice) -> Action:
    block, count = int.from_bytes(cdb[2:10], "big"), cdb[13]
    refused = _refuse(cdb, block, count, device, limits.MAX_COMPARE_BLOCKS)
    return refused or CompareAndWrite(block * SECTOR, count * SECTOR)


def _range_checker(fields: _Fields) -> Handler:
    """PRE-FETCH and SYNCHRONIZE CACHE: good at once (nothing volatile), if the range exists."""

    def decode_range(cdb: bytes, device: ScsiDevice) -> Action:
        block, count = fields(cdb)
        return _OUT_OF_RANGE if block + count > device.blocks else GOOD

    return decode_range


def _unmap(cdb: bytes, _device: ScsiDevice) -> Action:
    """UNMAP (42h); ANCHOR is refused, a parameter list length of 0 is no error."""
    if cdb[1] & 0x01:
        return _INVALID_FIELD
    length = cdb[7] << 8 | cdb[8]
    return Parameters(length, decode_unmap_list) if length else GOOD


def decode_unmap_list(parameters: bytes, device: ScsiDevice) -> Action:
    """Return the ranges of an UNMAP parameter list (SBC-3 5.28.2), refused as a whole if wrong."""
    if len(parameters) < 8:
        return Fail(sense.PARAMETER_LIST_LENGTH)
    described = int.from_bytes(parameters[2:4], "big")
    count = min(described, len(parameters) - 8) // 16
    if count > limits.MAX_UNMAP_DESCRIPTORS:
        return Fail(sense.INVALID_FIELD_IN_PARAMETERS)
    ranges = []
    total = 0
    for index in range(count):
        block, length = struct.unpack_from(">QI", parameters, 8 + 16 * index)
        if block + length > device.blocks:
            return _OUT_OF_RANGE
        total += length
        if length:
            ranges.append((block * SECTOR, length * SECTOR))
    if total > limits.MAX_ZERO_BLOCKS:
        return Fail(sense.INVALID_FIELD_IN_PARAMETERS)
    return Zero(tuple(ranges)) if ranges else GOOD


MEDIA_COMMANDS: dict[int, Handler] = {
    0x08: _read_6,
    0x28: _reader(_fields_10),
    0xA8: _reader(_fields_12),
    0x88: _reader(_fields_16),
    0x0A: _write_6,
    0x2A: _writer(_fields_10),
    0xAA: _writer(_fields_12),
    0x8A: _writer(_fields_16),
    0x2E: _write_verifier(_fields_10),
    0xAE: _write_verifier(_fields_12),
    0x8E: _write_verifier(_fields_16),
    0x2F: _verifier(_fields_10),
    0xAF: _verifier(_fields_12),
    0x8F: _verifier(_fields_16),
    0x41: _same_writer(_fields_10, ndob_bit=0),
    0x93: _same_writer(_fields_16, ndob_bit=0x01),
    0x42: _unmap,
    0x34: _range_checker(_fields_10),
    0x90: _range_checker(_fields_16),
    0x35: _range_checker(_fields_10),
    0x91: _range_checker(_fields_16),
    0x89: _compare_and_write,
}
