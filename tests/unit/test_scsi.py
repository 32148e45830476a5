"""The SCSI codec: each command against the bytes that the standard asks for."""

from __future__ import annotations

import struct

import pytest

from replicator.codec.scsi import sense
from replicator.codec.scsi.actions import (
    GOOD,
    Answer,
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
from replicator.codec.scsi.device import AluaState, ScsiDevice
from replicator.codec.scsi.dispatch import cdb_length, decode
from replicator.codec.scsi.media import decode_unmap_list
from replicator.codec.scsi.opcodes import SUPPORTED

BLOCKS = 1 << 20
DEVICE = ScsiDevice(
    serial="0123456789abcdef0123456789abc",
    naa=bytes.fromhex("60014050123456789abcdef012345678"),
    blocks=BLOCKS,
    port_group=2,
    relative_port=2,
)
STANDBY = ScsiDevice(serial="s", naa=DEVICE.naa, blocks=BLOCKS, alua=AluaState.STANDBY)


def cdb_10(opcode: int, block: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIxHx", opcode, flags, block, count)


def cdb_12(opcode: int, block: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBII2x", opcode, flags, block, count)


def cdb_16(opcode: int, block: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQI2x", opcode, flags, block, count)


def content(cdb: bytes, device: ScsiDevice = DEVICE) -> bytes:
    action = decode(cdb, device)
    assert isinstance(action, Answer), action
    return action.content


@pytest.mark.parametrize(
    ("cdb", "expected"),
    [
        (bytes.fromhex("080000080400"), Read(8 * 512, 4 * 512)),
        (bytes.fromhex("080000080000"), Read(8 * 512, 256 * 512)),
        (cdb_10(0x28, 8, 4), Read(4096, 2048)),
        (cdb_12(0xA8, 8, 4), Read(4096, 2048)),
        (cdb_16(0x88, 8, 4), Read(4096, 2048)),
        (bytes.fromhex("0a0000080400"), Write(4096, 2048)),
        (cdb_10(0x2A, 8, 4, 0x18), Write(4096, 2048)),
        (cdb_12(0xAA, 8, 4), Write(4096, 2048)),
        (cdb_16(0x8A, 8, 0), Write(4096, 0)),
        (cdb_10(0x2E, 8, 4, 0x02), Write(4096, 2048)),
        (cdb_10(0x2F, 8, 4), Verify(4096, 2048, VerifyMode.READABLE)),
        (cdb_12(0xAF, 8, 4, 0x02), Verify(4096, 2048, VerifyMode.COMPARE)),
        (cdb_16(0x8F, 8, 4, 0x06), Verify(4096, 2048, VerifyMode.COMPARE_ONE_BLOCK)),
        (cdb_10(0x41, 8, 4, 0x08), WriteSame(4096, 2048)),
        (cdb_16(0x93, 8, 4), WriteSame(4096, 2048)),
        (cdb_16(0x93, 8, 4, 0x09), Zero(((4096, 2048),))),
        (cdb_10(0x35, 0, 0), GOOD),
        (cdb_16(0x91, 0, BLOCKS), GOOD),
        (cdb_10(0x34, 1, 1, 0x02), GOOD),
        (struct.pack(">BBQ3xB2x", 0x89, 0, 8, 2), CompareAndWrite(4096, 1024)),
        (bytes(6), GOOD),
    ],
)
def test_decode_media_command_gives_its_range(cdb: bytes, expected: object) -> None:
    assert decode(cdb, DEVICE) == expected


@pytest.mark.parametrize("opcode", [0x28, 0x2A, 0x2E, 0x2F, 0x41, 0x34, 0x35])
def test_decode_10_byte_range_past_the_end_is_out_of_range(opcode: int) -> None:
    assert decode(cdb_10(opcode, BLOCKS - 1, 2), DEVICE) == Fail(sense.LBA_OUT_OF_RANGE)
    assert decode(cdb_10(opcode, BLOCKS + 1, 1), DEVICE) == Fail(sense.LBA_OUT_OF_RANGE)


@pytest.mark.parametrize("opcode", [0x88, 0x8A, 0x8E, 0x8F, 0x93, 0x90, 0x91])
def test_decode_16_byte_range_that_wraps_is_out_of_range(opcode: int) -> None:
    assert decode(cdb_16(opcode, (1 << 64) - 1, 1), DEVICE) == Fail(sense.LBA_OUT_OF_RANGE)


@pytest.mark.parametrize("opcode", [0x28, 0x2A, 0x2E, 0x2F, 0x41])
def test_decode_protection_bits_are_refused(opcode: int) -> None:
    assert decode(cdb_10(opcode, 0, 1, 0x20), DEVICE) == Fail(sense.INVALID_FIELD_IN_CDB)


def test_decode_transfer_above_the_limit_is_an_invalid_field() -> None:
    assert decode(cdb_10(0x28, 0, 2049), DEVICE) == Fail(sense.INVALID_FIELD_IN_CDB)
    assert decode(cdb_16(0x93, 0, 65529), DEVICE) == Fail(sense.INVALID_FIELD_IN_CDB)


def test_decode_write_same_to_the_end_is_refused_as_wsnz_says() -> None:
    assert decode(cdb_16(0x93, 0, 0), DEVICE) == Fail(sense.INVALID_FIELD_IN_CDB)


def test_decode_unknown_opcode_is_invalid_opcode() -> None:
    known = {command.opcode for command in SUPPORTED}
    for opcode in set(range(256)) - known:
        cdb = bytes((opcode,)).ljust(cdb_length(opcode), b"\0")
        assert decode(cdb, DEVICE) == Fail(sense.INVALID_OPCODE), hex(opcode)


def test_decode_every_listed_command_but_the_kernels_is_known() -> None:
    for command in SUPPORTED:
        assert len(command.usage) == cdb_length(command.opcode)
        if command.opcode in (0x16, 0x17, 0x5E, 0x5F):  # answered by the kernel
            continue
        cdb = bytes((command.opcode, command.service_action or 0)).ljust(len(command.usage), b"\0")
        assert decode(cdb, DEVICE) != Fail(sense.INVALID_OPCODE), hex(command.opcode)


def test_decode_short_cdb_is_an_invalid_field() -> None:
    assert decode(cdb_10(0x28, 0, 1)[:9], DEVICE) == Fail(sense.INVALID_FIELD_IN_CDB)


def test_decode_naca_is_refused() -> None:
    assert decode(bytes.fromhex("000000000004"), DEVICE) == Fail(sense.INVALID_FIELD_IN_CDB)


def test_inquiry_standard_data_announces_implicit_alua_only() -> None:
    data = content(bytes.fromhex("120000ffff00"))
    assert len(data) == 96 and data[4] == 91
    assert data[2] == 6 and data[5] & 0x30 == 0x10
    assert data[8:16] == b"Towline " and data[16:32] == b"replicated disk "


def test_inquiry_pages_have_their_lengths_and_identities() -> None:
    assert content(bytes.fromhex("120100ffff00")) == bytes.fromhex("000000060080 83b0b1b2")
    assert content(bytes.fromhex("120180ffff00"))[4:] == DEVICE.serial.encode()
    identification = content(bytes.fromhex("120183ffff00"))
    assert struct.unpack_from(">H", identification, 2)[0] == len(identification) - 4
    assert identification[4:24] == bytes.fromhex("01030010") + DEVICE.naa
    assert identification.endswith(bytes.fromhex("6194000400000002 6195000400000002"))
    limits = content(bytes.fromhex("1201b0ffff00"))
    assert len(limits) == 64 and limits[4] == 1 and limits[5] == 255
    assert struct.unpack_from(">I", limits, 8)[0] == 2048
    assert len(content(bytes.fromhex("1201b1ffff00"))) == 64
    assert content(bytes.fromhex("1201b2ffff00")) == bytes.fromhex("00b2000400e40200")


def test_inquiry_allocation_length_cuts_the_answer() -> None:
    assert len(content(bytes.fromhex("120000000500"))) == 5
    assert content(bytes.fromhex("120000000000")) == b""


@pytest.mark.parametrize("cdb", ["120080ff0000", "1201ff00ff00", "12020000ff00"])
def test_inquiry_what_is_not_there_is_an_invalid_field(cdb: str) -> None:
    assert decode(bytes.fromhex(cdb), DEVICE) == Fail(sense.INVALID_FIELD_IN_CDB)


def test_mode_sense_says_write_through_and_fua() -> None:
    data = content(bytes.fromhex("1a0808 00ff00"))
    assert data[0] == len(data) - 1 and data[2] == 0x10 and data[3] == 0
    assert data[4] == 0x08 and data[6] & 0x04 == 0  # WCE
    long = content(bytes.fromhex("5a003f00000000ffff00"))
    assert struct.unpack_from(">H", long)[0] == len(long) - 2
    assert struct.unpack_from(">II", long, 8) == (BLOCKS, 512)
    assert [long[16], long[36], long[48]] == [0x08, 0x0A, 0x1C]


def test_mode_sense_changeable_values_are_none_and_saved_is_refused() -> None:
    assert not any(content(bytes.fromhex("1a084a00ff00"))[6:])
    assert decode(bytes.fromhex("1a08ca00ff00"), DEVICE) == Fail(sense.SAVING_NOT_SUPPORTED)
    assert decode(bytes.fromhex("1a080b00ff00"), DEVICE) == Fail(sense.INVALID_FIELD_IN_CDB)


def test_mode_select_takes_what_is_so_and_refuses_a_change() -> None:
    action = decode(bytes.fromhex("151000001000"), DEVICE)
    assert isinstance(action, Parameters) and action.length == 16
    control = content(bytes.fromhex("1a080a00ff00"))[4:]
    assert action.decode(bytes(4) + control, DEVICE) == GOOD
    changed = control[:4] + b"\x08" + control[5:]  # SWP
    refused = Fail(sense.INVALID_FIELD_IN_PARAMETERS)
    assert action.decode(bytes(4) + changed, DEVICE) == refused
    assert action.decode(bytes(4) + control[:5], DEVICE) == Fail(sense.PARAMETER_LIST_LENGTH)
    assert action.decode(b"\0", DEVICE) == Fail(sense.PARAMETER_LIST_LENGTH)


def test_read_capacity_gives_last_block_and_provisioning() -> None:
    assert content(cdb_10(0x25, 0, 0)) == struct.pack(">II", BLOCKS - 1, 512)
    huge = ScsiDevice(serial="s", naa=DEVICE.naa, blocks=1 << 33)
    assert content(cdb_10(0x25, 0, 0), huge)[:4] == b"\xff\xff\xff\xff"
    data = content(bytes.fromhex("9e10") + bytes(8) + bytes.fromhex("000000200000"))
    assert len(data) == 32
    assert struct.unpack_from(">QIBBH", data) == (BLOCKS - 1, 512, 0, 3, 0xC000)


def test_report_target_port_groups_states_the_own_group() -> None:
    cdb = bytes.fromhex("a30a00000000000000ff0000")
    assert content(cdb) == bytes.fromhex("0000000c 000f000200000001 00000002")
    assert content(cdb, STANDBY)[4] == 0x02


def test_standby_tells_identity_and_refuses_blocks() -> None:
    refused = Fail(sense.STANDBY)
    for cdb in (bytes(6), cdb_10(0x28, 0, 1), cdb_10(0x2A, 0, 1), cdb_16(0x93, 0, 1)):
        assert decode(cdb, STANDBY) == refused
    for cdb in (bytes.fromhex("120000ffff00"), cdb_10(0x25, 0, 0), bytes.fromhex("0300000012 00")):
        assert isinstance(decode(cdb, STANDBY), Answer)


def test_report_opcodes_lists_and_answers_for_one() -> None:
    listed = content(bytes.fromhex("a30c000000000000ffff0000"))
    assert struct.unpack_from(">I", listed)[0] == len(listed) - 4 == 8 * len(SUPPORTED)
    with_times = content(bytes.fromhex("a30c800000000000ffff0000"))
    assert len(with_times) == 4 + 20 * len(SUPPORTED)
    one = content(bytes.fromhex("a30c01280000000000ff0000"))
    assert one == bytes.fromhex("0003000a 28f8ffffffff00ffff00")
    assert content(bytes.fromhex("a30c01ff0000000000ff0000"))[1] == 0x01
    with_action = content(bytes.fromhex("a30c029e0010000000ff0000"))
    assert with_action[1] == 0x03 and with_action[4:6] == bytes.fromhex("9e10")
    wrong = decode(bytes.fromhex("a30c019e0000000000ff0000"), DEVICE)
    assert wrong == Fail(sense.INVALID_FIELD_IN_CDB)


def test_unmap_list_gives_ranges_and_refuses_as_a_whole() -> None:
    def listing(*ranges: tuple[int, int]) -> bytes:
        blocks = b"".join(struct.pack(">QI4x", *one) for one in ranges)
        return struct.pack(">HH4x", len(blocks) + 6, len(blocks)) + blocks

    assert decode_unmap_list(listing((8, 8), (0, 0)), DEVICE) == Zero(((4096, 4096),))
    assert decode_unmap_list(listing(), DEVICE) == GOOD
    outside = decode_unmap_list(listing((0, 8), (BLOCKS, 1)), DEVICE)
    assert outside == Fail(sense.LBA_OUT_OF_RANGE)
    many = decode_unmap_list(listing(*[(0, 1)] * 33), DEVICE)
    assert many == Fail(sense.INVALID_FIELD_IN_PARAMETERS)
    large = decode_unmap_list(listing((0, 65528), (0, 1)), DEVICE)
    assert large == Fail(sense.INVALID_FIELD_IN_PARAMETERS)
    assert decode_unmap_list(b"\0\0", DEVICE) == Fail(sense.PARAMETER_LIST_LENGTH)


def test_sense_is_18_bytes_with_information_when_known() -> None:
    plain = sense.encode_sense(sense.INVALID_OPCODE)
    assert len(plain) == 18 and plain[0] == 0x70 and plain[2] == 5 and plain[7] == 10
    assert plain[12:14] == bytes.fromhex("2000")
    miscompare = sense.encode_sense(sense.miscompare_at(513))
    assert miscompare[0] == 0xF0 and miscompare[3:7] == struct.pack(">I", 513)
