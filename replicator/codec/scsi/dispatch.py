"""The one entry: ``decode(cdb, device)`` for all 256 operation codes.

Total: any bytes give an action, never an exception. What a standby port answers is decided here
as well (SPC-4 5.15.2.5): identity and state are told, blocks are refused with 02/04/0B.
"""

from __future__ import annotations

import struct

from replicator.codec.scsi import sense
from replicator.codec.scsi.actions import GOOD, Action, Answer, Fail
from replicator.codec.scsi.device import PHYSICAL_EXPONENT, AluaState, ScsiDevice
from replicator.codec.scsi.inquiry import decode_inquiry
from replicator.codec.scsi.media import MEDIA_COMMANDS, Handler
from replicator.codec.scsi.modes import (
    decode_mode_select_6,
    decode_mode_select_10,
    decode_mode_sense_6,
    decode_mode_sense_10,
)
from replicator.codec.scsi.opcodes import decode_report_opcodes
from replicator.model import SECTOR

CDB_LENGTHS = (6, 10, 10, None, 16, 12, None, None)
"""By the group code, the upper three bits of the operation code (SAM-5 5.2)."""
_LONGEST_CDB = 260
_INVALID_OPCODE = Fail(sense.INVALID_OPCODE)
_INVALID_FIELD = Fail(sense.INVALID_FIELD_IN_CDB)
_STANDBY = Fail(sense.STANDBY)


def cdb_length(opcode: int, additional: int = 0) -> int:
    """Return how many bytes a CDB takes; ``additional`` is byte 7 of a variable-length one.

    Vendor-specific groups count as the kernel's COMMAND_SIZE does (12 and 10 bytes).
    """
    if opcode == 0x7F:
        return min(8 + additional, _LONGEST_CDB)
    return (6, 10, 10, 12, 16, 12, 10, 10)[opcode >> 5]


def decode(cdb: bytes, device: ScsiDevice) -> Action:
    """Return what to do for ``cdb``; bytes beyond its length are ignored, missing ones refused."""
    if not cdb:
        return _INVALID_OPCODE
    opcode = cdb[0]
    handler = _HANDLERS[opcode]
    if handler is None:
        return _INVALID_OPCODE
    length = CDB_LENGTHS[opcode >> 5] or 0
    if len(cdb) != length:
        if len(cdb) < length:
            return _INVALID_FIELD
        cdb = cdb[:length]
    if cdb[length - 1] & 0x04:  # NACA: no auto contingent allegiance here (SAM-5 5.2)
        return _INVALID_FIELD
    if device.alua is not AluaState.ACTIVE and opcode not in _STANDBY_ALLOWS:
        return _STANDBY
    return handler(cdb, device)


def _good(_cdb: bytes, _device: ScsiDevice) -> Action:
    return GOOD


def _request_sense(cdb: bytes, _device: ScsiDevice) -> Action:
    encode = sense.encode_sense_descriptor if cdb[1] & 0x01 else sense.encode_sense
    return Answer(encode(sense.NO_SENSE)[: cdb[4]])


def _start_stop(cdb: bytes, _device: ScsiDevice) -> Action:
    """START STOP UNIT: nothing spins and nothing can be ejected; starting is always good."""
    power, load_eject, start = cdb[4] >> 4, cdb[4] & 0x02, cdb[4] & 0x01
    if power:
        return _INVALID_FIELD
    if load_eject and not start:
        return _INVALID_FIELD
    return GOOD


def _read_capacity_10(cdb: bytes, device: ScsiDevice) -> Action:
    if not cdb[8] & 0x01 and any(cdb[2:6]):  # PMI=0 with an address
        return _INVALID_FIELD
    return Answer(struct.pack(">II", min(device.blocks - 1, 0xFFFFFFFF), SECTOR))


def _service_action_in_16(cdb: bytes, device: ScsiDevice) -> Action:
    """READ CAPACITY 16: thin (LBPME), zeros after UNMAP (LBPRZ), 4 KiB physical blocks."""
    if cdb[1] & 0x1F != 0x10:
        return _INVALID_FIELD
    content = struct.pack(
        ">QIBBH16x", device.blocks - 1, SECTOR, 0, PHYSICAL_EXPONENT, 0x8000 | 0x4000
    )
    return Answer(content[: int.from_bytes(cdb[10:14], "big")])


def _report_luns(cdb: bytes, _device: ScsiDevice) -> Action:
    """Answer with LUN 0 alone; the kernel answers REPORT LUNS itself, this is for the rest."""
    allocation = int.from_bytes(cdb[6:10], "big")
    if allocation < 16:
        return _INVALID_FIELD
    return Answer((struct.pack(">I4x", 8) + bytes(8))[:allocation])


def _maintenance_in(cdb: bytes, device: ScsiDevice) -> Action:
    action = cdb[1] & 0x1F
    if action == 0x0A:
        return _report_target_port_groups(cdb, device)
    if action == 0x0C and device.alua is AluaState.ACTIVE:
        return decode_report_opcodes(cdb, device)
    return _INVALID_FIELD


def _report_target_port_groups(cdb: bytes, device: ScsiDevice) -> Action:
    """Answer with the own group alone (SPC-4 6.37): hosts ask each site for its own."""
    extended = cdb[1] >> 5 == 1
    group = struct.pack(
        ">BBHxBxBxxH",
        device.alua,
        0x0F,  # active, non-optimized, standby and unavailable can be reported
        device.port_group,
        0x02 if device.alua is not AluaState.ACTIVE else 0,  # changed by implicit means
        1,
        device.relative_port,
    )
    body = (bytes((0x10, 0, 0, 0)) if extended else b"") + group
    allocation = int.from_bytes(cdb[6:10], "big")
    return Answer((struct.pack(">I", len(body)) + body)[:allocation])


_STANDBY_ALLOWS = frozenset((0x03, 0x12, 0x15, 0x1A, 0x25, 0x55, 0x5A, 0x9E, 0xA0, 0xA3))

_OTHERS: dict[int, Handler] = {
    0x00: _good,
    0x03: _request_sense,
    0x12: decode_inquiry,
    0x15: decode_mode_select_6,
    0x1A: decode_mode_sense_6,
    0x1B: _start_stop,
    0x1E: _good,  # PREVENT ALLOW MEDIUM REMOVAL: not removable, nothing to prevent
    0x25: _read_capacity_10,
    0x55: decode_mode_select_10,
    0x5A: decode_mode_sense_10,
    0x9E: _service_action_in_16,
    0xA0: _report_luns,
    0xA3: _maintenance_in,
}

_HANDLERS: tuple[Handler | None, ...] = tuple(
    MEDIA_COMMANDS.get(opcode) or _OTHERS.get(opcode) for opcode in range(256)
)
