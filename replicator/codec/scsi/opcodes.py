"""REPORT SUPPORTED OPERATION CODES (SPC-4 6.35): which commands there are, with usage data.

Usage data is the CDB with a 1 for each bit that is looked at. Persistent reservations and
RESERVE/RELEASE are answered by the kernel's target core, and listed because hosts can use them.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from replicator.codec.scsi import sense
from replicator.codec.scsi.actions import Action, Answer, Fail
from replicator.codec.scsi.device import ScsiDevice

_TIMEOUTS = bytes((0x00, 0x0A)) + bytes(10)


class Supported(NamedTuple):
    """A command with its usage data, and its service action if it has one."""

    opcode: int
    service_action: int | None
    usage: bytes


def _usage(text: str) -> bytes:
    return bytes.fromhex(text)


def _persistent_in(action: int) -> Supported:
    return Supported(0x5E, action, _usage(f"5e{action:02x}0000000000ffff00"))


def _persistent_out(action: int) -> Supported:
    return Supported(0x5F, action, _usage(f"5f{action:02x}ff0000ffffffff00"))


SUPPORTED: tuple[Supported, ...] = (
    Supported(0x00, None, _usage("000000000000")),
    Supported(0x03, None, _usage("03010000ff00")),
    Supported(0x08, None, _usage("081fffffff00")),
    Supported(0x0A, None, _usage("0a1fffffff00")),
    Supported(0x12, None, _usage("1201ffffff00")),
    Supported(0x15, None, _usage("15110000ff00")),
    Supported(0x16, None, _usage("160000000000")),
    Supported(0x17, None, _usage("170000000000")),
    Supported(0x1A, None, _usage("1a08ffffff00")),
    Supported(0x1B, None, _usage("1b01000ff300")),
    Supported(0x1E, None, _usage("1e0000000300")),
    Supported(0x25, None, _usage("25000000000000000000")),
    Supported(0x28, None, _usage("28f8ffffffff00ffff00")),
    Supported(0x2A, None, _usage("2af8ffffffff00ffff00")),
    Supported(0x2E, None, _usage("2ef6ffffffff00ffff00")),
    Supported(0x2F, None, _usage("2ff6ffffffff00ffff00")),
    Supported(0x34, None, _usage("3402ffffffff00ffff00")),
    Supported(0x35, None, _usage("3502ffffffff00ffff00")),
    Supported(0x41, None, _usage("41f8ffffffff00ffff00")),
    Supported(0x42, None, _usage("42010000000000ffff00")),
    Supported(0x55, None, _usage("55110000000000ffff00")),
    Supported(0x5A, None, _usage("5a18ffff000000ffff00")),
    *(_persistent_in(action) for action in range(4)),
    *(_persistent_out(action) for action in range(8)),
    Supported(0x88, None, _usage("88f8ffffffffffffffffffffffff0000")),
    Supported(0x89, None, _usage("89f8ffffffffffffffff000000ff0000")),
    Supported(0x8A, None, _usage("8af8ffffffffffffffffffffffff0000")),
    Supported(0x8E, None, _usage("8ef6ffffffffffffffffffffffff0000")),
    Supported(0x8F, None, _usage("8ff6ffffffffffffffffffffffff0000")),
    Supported(0x90, None, _usage("9002ffffffffffffffffffffffff0000")),
    Supported(0x91, None, _usage("9102ffffffffffffffffffffffff0000")),
    Supported(0x93, None, _usage("93f9ffffffffffffffffffffffff0000")),
    Supported(0x9E, 0x10, _usage("9e100000000000000000ffffffff0000")),
    Supported(0xA0, None, _usage("a000ff000000ffffffff0000")),
    Supported(0xA3, 0x0A, _usage("a3ea00000000ffffffff0000")),
    Supported(0xA3, 0x0C, _usage("a30c87ffffffffffffff0000")),
    Supported(0xA8, None, _usage("a8f8ffffffffffffffff0000")),
    Supported(0xAA, None, _usage("aaf8ffffffffffffffff0000")),
    Supported(0xAE, None, _usage("aef6ffffffffffffffff0000")),
    Supported(0xAF, None, _usage("aff6ffffffffffffffff0000")),
)


def decode_report_opcodes(cdb: bytes, _device: ScsiDevice) -> Action:
    """Answer REPORT SUPPORTED OPERATION CODES (A3h/0Ch)."""
    timeouts = bool(cdb[2] & 0x80)
    option, opcode = cdb[2] & 0x07, cdb[3]
    service_action = cdb[4] << 8 | cdb[5]
    allocation = int.from_bytes(cdb[6:10], "big")
    if option == 0:
        return Answer(_all_commands(timeouts)[:allocation])
    matching = [command for command in SUPPORTED if command.opcode == opcode]
    with_actions = any(command.service_action is not None for command in matching)
    if option > 3 or (option == 1 and with_actions):
        return Fail(sense.INVALID_FIELD_IN_CDB)
    if option == 2 and matching and not with_actions:
        return Fail(sense.INVALID_FIELD_IN_CDB)
    if with_actions or option == 2:
        matching = [command for command in matching if command.service_action == service_action]
    elif service_action:
        matching = []
    return Answer(_one_command(matching, timeouts)[:allocation])


def _all_commands(timeouts: bool) -> bytes:
    descriptors = b"".join(_descriptor(command, timeouts) for command in SUPPORTED)
    return struct.pack(">I", len(descriptors)) + descriptors


def _descriptor(command: Supported, timeouts: bool) -> bytes:
    flags = (0x02 if timeouts else 0) | (0x01 if command.service_action is not None else 0)
    head = struct.pack(
        ">BxHxBH", command.opcode, command.service_action or 0, flags, len(command.usage)
    )
    return head + (_TIMEOUTS if timeouts else b"")


def _one_command(matching: list[Supported], timeouts: bool) -> bytes:
    if not matching:
        return bytes((0, 0x01, 0, 0))
    usage = matching[0].usage
    head = struct.pack(">BBH", 0, (0x80 if timeouts else 0) | 0x03, len(usage))
    return head + usage + (_TIMEOUTS if timeouts else b"")
