"""Any CDB gives an action inside the volume, never an exception (fault F39)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.codec.scsi import device as limits
from replicator.codec.scsi.actions import (
    Action,
    Answer,
    CompareAndWrite,
    Fail,
    Parameters,
    Read,
    Verify,
    Write,
    WriteSame,
    Zero,
)
from replicator.codec.scsi.device import AluaState, ScsiDevice
from replicator.codec.scsi.dispatch import cdb_length, decode
from replicator.codec.scsi.sense import encode_sense
from replicator.model import SECTOR

NAA = bytes.fromhex("60014050123456789abcdef012345678")

devices = st.builds(
    ScsiDevice,
    serial=st.text("0123456789abcdef", max_size=29),
    naa=st.just(NAA),
    blocks=st.one_of(st.integers(1, 1 << 20), st.integers(1, 1 << 55)),
    alua=st.sampled_from(AluaState),
)


def assert_sound(action: Action, device: ScsiDevice, depth: int = 0) -> None:
    """Check that a front end can carry ``action`` out without looking further."""
    if isinstance(action, Answer):
        assert len(action.content) <= 4096
    elif isinstance(action, Fail):
        assert len(encode_sense(action.sense)) == 18
    elif isinstance(action, Read | Write | Verify):
        assert_range(action.offset, action.length, limits.MAX_TRANSFER_BLOCKS, device)
    elif isinstance(action, CompareAndWrite):
        assert_range(action.offset, action.length, limits.MAX_COMPARE_BLOCKS, device)
    elif isinstance(action, WriteSame):
        assert_range(action.offset, action.length, limits.MAX_ZERO_BLOCKS, device)
    elif isinstance(action, Zero):
        assert 0 < len(action.ranges) <= limits.MAX_UNMAP_DESCRIPTORS
        for offset, length in action.ranges:
            assert_range(offset, length, limits.MAX_ZERO_BLOCKS, device)
    else:
        assert isinstance(action, Parameters) and depth == 0
        assert 0 < action.length <= 65535


def assert_range(offset: int, length: int, limit: int, device: ScsiDevice) -> None:
    assert offset % SECTOR == 0 and length % SECTOR == 0
    assert offset >= 0 and 0 <= length <= limit * SECTOR
    assert offset + length <= device.size_bytes


@given(opcode=st.integers(0, 255), rest=st.binary(max_size=260), device=devices)
@settings(max_examples=2000, deadline=None)
def test_decode_any_bytes_gives_a_sound_action(
    opcode: int, rest: bytes, device: ScsiDevice
) -> None:
    cdb = bytes((opcode,)) + rest
    assert_sound(decode(cdb, device), device)
    exact = cdb.ljust(16, b"\0")[: cdb_length(opcode)]
    assert_sound(decode(exact, device), device)


@given(cdb=st.binary(max_size=300), device=devices)
def test_decode_any_cdb_of_any_length_gives_a_sound_action(cdb: bytes, device: ScsiDevice) -> None:
    assert_sound(decode(cdb, device), device)


@given(
    which=st.sampled_from(["151000001000", "42000000000000001000", "55100000000000001000"]),
    parameters=st.binary(max_size=600),
    device=devices.filter(lambda device: device.alua is AluaState.ACTIVE),
)
@settings(max_examples=500)
def test_decode_any_parameter_list_gives_a_sound_action(
    which: str, parameters: bytes, device: ScsiDevice
) -> None:
    action = decode(bytes.fromhex(which), device)
    assert isinstance(action, Parameters)
    assert_sound(action.decode(parameters, device), device, depth=1)
