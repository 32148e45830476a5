"""SCSI status codes and sense values in fixed format (SPC-4 4.5.3, SAM-5 5.3.1)."""

from __future__ import annotations

import struct
from typing import NamedTuple

STATUS_GOOD = 0x00
STATUS_CHECK_CONDITION = 0x02
STATUS_BUSY = 0x08

_FIXED = struct.Struct(">BxBIB4xBB4x")


class Sense(NamedTuple):
    """A sense key with its additional code, and for some the INFORMATION field."""

    key: int
    code: int
    qualifier: int
    information: int | None = None


def encode_sense(sense: Sense) -> bytes:
    """Return the 18 bytes of fixed-format sense data; INFORMATION above 32 bits is left out."""
    information = sense.information
    valid = information is not None and 0 <= information < 1 << 32
    return _FIXED.pack(
        0xF0 if valid else 0x70,
        sense.key,
        information if valid else 0,
        10,
        sense.code,
        sense.qualifier,
    )


def encode_sense_descriptor(sense: Sense) -> bytes:
    """Return the 8 bytes of descriptor-format sense data without descriptors."""
    return bytes((0x72, sense.key, sense.code, sense.qualifier, 0, 0, 0, 0))


NO_SENSE = Sense(0x00, 0x00, 0x00)
STANDBY = Sense(0x02, 0x04, 0x0B)
MEDIUM_READ_ERROR = Sense(0x03, 0x11, 0x00)
MEDIUM_WRITE_ERROR = Sense(0x03, 0x0C, 0x00)
PARAMETER_LIST_LENGTH = Sense(0x05, 0x1A, 0x00)
INVALID_OPCODE = Sense(0x05, 0x20, 0x00)
LBA_OUT_OF_RANGE = Sense(0x05, 0x21, 0x00)
INVALID_FIELD_IN_CDB = Sense(0x05, 0x24, 0x00)
INVALID_FIELD_IN_PARAMETERS = Sense(0x05, 0x26, 0x00)
LOGICAL_UNIT_NOT_SUPPORTED = Sense(0x05, 0x25, 0x00)
SAVING_NOT_SUPPORTED = Sense(0x05, 0x39, 0x00)
INFORMATION_UNIT_SHORT = Sense(0x05, 0x0E, 0x03)
CAPACITY_CHANGED = Sense(0x06, 0x2A, 0x09)
MISCOMPARE = Sense(0x0E, 0x1D, 0x00)


def miscompare_at(offset: int) -> Sense:
    """Return the MISCOMPARE whose INFORMATION is the first differing Data-Out byte."""
    return MISCOMPARE._replace(information=offset)
