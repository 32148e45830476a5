"""The TCMU ring codec: order, wrap-around, bounds, and strange values (fault F40)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.codec.tcmu import Ring
from replicator.errors import RingBroken
from tests.fakes.tcmu_kernel import RING_OFFSET, KernelRing

READ = bytes.fromhex("28000000000000000100")


def test_ring_take_gives_commands_in_order_with_their_memory() -> None:
    kernel = KernelRing()
    ring = Ring(kernel.memory)
    first = kernel.append(bytes(6))
    second = kernel.append(READ, data_out=b"x" * 512, pieces=2)
    commands = ring.take()
    assert [command.command_id for command in commands] == [first, second]
    assert commands[0].cdb == bytes(6) and commands[0].buffers == []
    assert commands[1].cdb == READ
    assert [bytes(piece) for piece in commands[1].buffers] == [b"x" * 256] * 2
    assert ring.outstanding == 2 and not ring.has_more() and ring.take() == []


def test_ring_answers_out_of_order_reach_their_commands_and_wrap() -> None:
    kernel = KernelRing(ring_size=1024)
    ring = Ring(kernel.memory)
    for _ in range(50):
        ids = [kernel.append(READ, room=512) for _ in range(3)]
        taken = [command.command_id for command in ring.take()]
        assert taken == ids
        ring.put(ids[2], 0)
        ring.put(ids[0], 2, sense=b"\x70\x00\x05")
        ring.publish()
        assert kernel.collect() == [ids[2], ids[0]]
        ring.put(ids[1], 0, read_length=100)
        ring.publish()
        assert kernel.collect() == [ids[1]]
        assert kernel.answers[ids[0]][2] == b"\x70\x00\x05".ljust(96, b"\0")
        assert len(kernel.answers[ids[1]][2]) == 100
    assert ring.outstanding == 0


def test_ring_answer_twice_is_our_own_mistake() -> None:
    kernel = KernelRing()
    ring = Ring(kernel.memory)
    command_id = kernel.append(bytes(6))
    ring.take()
    ring.put(command_id, 0)
    with pytest.raises(KeyError):
        ring.put(command_id, 0)


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [
        (0, "<H", 1),
        (2, "<H", 0),
        (4, "<I", 64),
        (4, "<I", 132),
        (8, "<I", 0),
        (8, "<I", 1 << 31),
        (12, "<I", 4096),
        (64, "<I", 7),
    ],
)
def test_ring_strange_control_page_is_refused(offset: int, layout: str, value: int) -> None:
    kernel = KernelRing()
    struct.pack_into(layout, kernel.memory, offset, value)
    with pytest.raises(RingBroken):
        Ring(kernel.memory)


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [
        (0, "<I", 1),  # no length
        (0, "<I", 16 | 1),  # too short for a command
        (0, "<I", 8000 | 1),  # past the head
        (0, "<I", 128 | 5),  # unknown operation
        (8, "<I", 1000),  # more iovecs than fit
        (8, "<I", 0xFFFFFFFF),
        (12, "<I", 1000),
        (24, "<Q", 0),  # CDB in the mailbox
        (24, "<Q", 1 << 63),
        (48, "<Q", RING_OFFSET),  # data in the command ring
        (48, "<Q", (1 << 64) - 1),
        (56, "<Q", 1 << 40),
    ],
)
def test_ring_strange_entry_is_refused(offset: int, layout: str, value: int) -> None:
    kernel = KernelRing()
    ring = Ring(kernel.memory)
    kernel.append(READ, room=512)
    struct.pack_into(layout, kernel.memory, RING_OFFSET + offset, value)
    with pytest.raises(RingBroken):
        ring.take()


def test_ring_head_outside_is_refused() -> None:
    for head in (4096, 9, 0xFFFFFFFF):
        kernel = KernelRing()
        ring = Ring(kernel.memory)
        kernel.set_head(head)
        with pytest.raises(RingBroken):
            ring.take()


def test_ring_id_used_twice_is_refused() -> None:
    kernel = KernelRing()
    ring = Ring(kernel.memory)
    kernel.append(bytes(6))
    ring.take()
    kernel._next_id = 1
    kernel.append(bytes(6))
    with pytest.raises(RingBroken):
        ring.take()


@given(garbage=st.binary(min_size=16, max_size=1024), head=st.integers(0, 1 << 10))
@settings(max_examples=1000, deadline=None)
def test_ring_garbage_is_refused_or_stays_inside(garbage: bytes, head: int) -> None:
    kernel = KernelRing(ring_size=1024, data_size=8192)
    kernel.memory[RING_OFFSET : RING_OFFSET + len(garbage)] = garbage
    ring = Ring(kernel.memory)
    kernel.set_head(head)
    try:
        commands = ring.take()
    except RingBroken:
        return
    for command in commands:
        assert len(command.cdb) <= 263
        assert all(len(piece) <= 8192 for piece in command.buffers)


@given(
    changes=st.lists(st.tuples(st.integers(0, 159), st.integers(0, 255)), min_size=1, max_size=4)
)
@settings(max_examples=1000, deadline=None)
def test_ring_entry_with_changed_bytes_is_refused_or_stays_inside(
    changes: list[tuple[int, int]],
) -> None:
    kernel = KernelRing(ring_size=1024, data_size=8192)
    ring = Ring(kernel.memory)
    kernel.append(READ, room=4096, pieces=3)
    for offset, value in changes:
        kernel.memory[RING_OFFSET + offset] = value
    try:
        commands = ring.take()
    except RingBroken:
        return
    for command in commands:
        ring.put(command.command_id, 0)
    ring.publish()
