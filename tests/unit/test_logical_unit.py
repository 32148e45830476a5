"""A logical unit over a synthetic ring: every action carried out, every failure as sense."""

from __future__ import annotations

import struct

import pytest

from replicator.codec.scsi.device import AluaState, ScsiDevice
from replicator.codec.tcmu import Ring
from replicator.frontends.logical_unit import LogicalUnit
from replicator.model import HostFailure
from tests.fakes.tcmu_kernel import KernelRing, MemoryService, MemoryVolume

NAA = bytes.fromhex("60014050123456789abcdef012345678")


class Bench:
    """One unit with its ring, volume and service."""

    def __init__(self) -> None:
        self.kernel = KernelRing(ring_size=8192, data_size=4 << 20)
        self.volume = MemoryVolume()
        self.service = MemoryService([self.volume])
        self.doorbells = 0
        device = ScsiDevice(serial="s", naa=NAA, blocks=self.volume.size_bytes // 512)
        ring = Ring(self.kernel.memory)
        self.unit = LogicalUnit(self.volume, device, ring, self._ring_doorbell)

    def _ring_doorbell(self) -> None:
        self.doorbells += 1

    def serve(self) -> None:
        writes = self.unit.take()
        if writes:
            self.service.submit(writes)
        self.unit.carry_out()

    def run(self, cdb: bytes, data_out: bytes = b"", room: int = 0, pieces: int = 1) -> Answered:
        command_id = self.kernel.append(cdb, data_out, room, pieces)
        self.serve()
        self.service.commit()
        self.kernel.collect()
        return Answered(*self.kernel.answers[command_id])


class Answered:
    """An answer as the initiator sees it."""

    def __init__(self, status: int, read_length: int, content: bytes) -> None:
        self.status = status
        self.content = content
        self.sense = (content[2], content[12], content[13]) if status == 2 else None
        self.information = struct.unpack_from(">I", content, 3)[0] if status == 2 else 0


@pytest.fixture
def bench() -> Bench:
    return Bench()


def cdb_10(opcode: int, block: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIxHx", opcode, flags, block, count)


def test_unit_write_then_read_gives_the_bytes(bench: Bench) -> None:
    data = bytes(range(256)) * 16
    assert bench.run(cdb_10(0x2A, 8, 8), data, pieces=3).status == 0
    assert bench.volume.content[4096:8192] == data
    answered = bench.run(cdb_10(0x28, 8, 8), room=4096, pieces=2)
    assert (answered.status, answered.content) == (0, data)


def test_unit_batch_is_one_submission_and_one_doorbell_for_reads(bench: Bench) -> None:
    for block in range(4):
        bench.kernel.append(cdb_10(0x2A, block, 1), bytes(512))
        bench.kernel.append(cdb_10(0x28, block, 1), room=512)
    bench.serve()
    assert bench.service.submissions == 1 and bench.doorbells == 1
    assert len(bench.kernel.collect()) == 4  # reads do not wait for the flush
    bench.service.commit(order=-1)
    assert len(bench.kernel.collect()) == 4


def test_unit_short_inquiry_says_how_much_was_read(bench: Bench) -> None:
    answered = bench.run(bytes.fromhex("120000ffff00"), room=512)
    assert answered.status == 0 and len(answered.content) == 96
    empty = bench.run(bytes.fromhex("120000000000"), room=512)
    assert empty.content == bytes(512)  # nothing old leaks


def test_unit_read_with_other_room_than_its_length_never_passes_either(bench: Bench) -> None:
    bench.volume.content[:1024] = b"r" * 1024
    assert bench.run(cdb_10(0x28, 0, 2), room=512).content == b"r" * 512
    assert bench.run(cdb_10(0x28, 0, 1), room=2048).content == b"r" * 512
    assert bench.run(cdb_10(0x28, 0, 1)).status == 0


def test_unit_write_with_too_little_data_changes_nothing(bench: Bench) -> None:
    answered = bench.run(cdb_10(0x2A, 0, 2), b"w" * 512)
    assert answered.sense == (5, 0x0E, 3)
    assert not any(bench.volume.content)
    assert bench.run(cdb_10(0x2A, 0, 1), b"w" * 1024).status == 0
    assert bench.volume.content[:1024] == b"w" * 512 + bytes(512)


def test_unit_write_same_repeats_or_zeroes(bench: Bench) -> None:
    assert bench.run(cdb_10(0x41, 0, 2000), b"p" * 512).status == 0
    assert bench.volume.content == b"p" * 512 * 2000 + bytes((2048 - 2000) * 512)
    assert bench.run(cdb_10(0x41, 1, 2, 0x08), bytes(512)).status == 0
    assert bench.volume.content[512:1536] == bytes(1024)
    assert bench.run(cdb_10(0x41, 0, 1), b"p" * 1024).sense == (5, 0x0E, 3)


def test_unit_large_write_same_is_answered_once_after_its_last_part() -> None:
    bench = Bench()
    bench.volume.size_bytes = 4 << 20
    bench.volume.content = bytearray(4 << 20)
    device = ScsiDevice(serial="s", naa=NAA, blocks=8192)
    bench.unit.device = device
    answered = bench.run(cdb_10(0x41, 0, 8191), b"q" * 512)
    assert answered.status == 0
    assert bench.volume.content == b"q" * 512 * 8191 + bytes(512)


def test_unit_unmap_zeroes_every_range_and_is_answered_once(bench: Bench) -> None:
    bench.volume.content[:] = b"u" * bench.volume.size_bytes
    blocks = struct.pack(">QI4xQI4x", 0, 8, 16, 8)
    parameters = struct.pack(">HH4x", 6 + len(blocks), len(blocks)) + blocks
    cdb = bytes.fromhex("42000000000000") + struct.pack(">Hx", len(parameters))
    assert bench.run(cdb, parameters).status == 0
    content = bench.volume.content
    assert not any(content[:4096]) and not any(content[8192:12288])
    assert content[4096:8192] == b"u" * 4096
    assert bench.run(cdb, parameters[:8]).sense == (5, 0x0E, 3)


def test_unit_compare_and_write_says_where_it_differs(bench: Bench) -> None:
    cdb = struct.pack(">BBQ3xB2x", 0x89, 0, 0, 1)
    assert bench.run(cdb, bytes(512) + b"n" * 512).status == 0
    assert bench.volume.content[:512] == b"n" * 512
    wrong = b"n" * 100 + b"x" + b"n" * 411
    answered = bench.run(cdb, wrong + bytes(512))
    assert answered.sense == (0x0E, 0x1D, 0) and answered.information == 100
    assert bench.volume.content[:512] == b"n" * 512
    assert bench.run(cdb, bytes(512)).sense == (5, 0x0E, 3)


def test_unit_verify_compares_only_when_asked(bench: Bench) -> None:
    bench.volume.content[:1024] = b"v" * 1024
    assert bench.run(cdb_10(0x2F, 0, 2)).status == 0
    assert bench.run(cdb_10(0x2F, 0, 2, 0x02), b"v" * 1024).status == 0
    assert bench.run(cdb_10(0x2F, 0, 2, 0x06), b"v" * 512).status == 0
    answered = bench.run(cdb_10(0x2F, 0, 2, 0x02), b"v" * 700 + b"x" * 324)
    assert answered.sense == (0x0E, 0x1D, 0) and answered.information == 700
    assert bench.run(cdb_10(0x2F, 0, 2, 0x02), b"v" * 512).sense == (5, 0x0E, 3)


def test_unit_failed_read_is_a_medium_error(bench: Bench) -> None:
    bench.volume.broken = True
    assert bench.run(cdb_10(0x28, 0, 1), room=512).sense == (3, 0x11, 0)
    assert bench.run(cdb_10(0x2F, 0, 1)).sense == (3, 0x11, 0)


@pytest.mark.parametrize(
    ("failure", "alua", "expected"),
    [
        (HostFailure.MEDIUM_ERROR, AluaState.ACTIVE, (3, 0x0C, 0)),
        (HostFailure.NOT_READY, AluaState.ACTIVE, None),
        (HostFailure.NOT_READY, AluaState.STANDBY, (2, 4, 0x0B)),
    ],
)
def test_unit_failed_write_is_translated(
    bench: Bench, failure: HostFailure, alua: AluaState, expected: tuple[int, int, int] | None
) -> None:
    bench.service.failure = failure
    command_id = bench.kernel.append(cdb_10(0x2A, 0, 1), bytes(512))
    bench.serve()
    bench.unit.device = ScsiDevice(serial="s", naa=NAA, blocks=2048, alua=alua)
    bench.service.commit()
    bench.kernel.collect()
    answered = Answered(*bench.kernel.answers[command_id])
    assert answered.sense == expected
    if expected is None:
        assert answered.status == 0x08  # BUSY: sent again


def test_unit_late_answer_after_close_is_dropped(bench: Bench) -> None:
    bench.kernel.append(cdb_10(0x2A, 0, 1), bytes(512))
    bench.serve()
    bench.unit.close()
    bench.service.commit()
    assert bench.kernel.collect() == []


def test_unit_that_grew_says_so_once_and_then_has_the_new_capacity(bench: Bench) -> None:
    bench.unit.grow(4096)
    assert bench.run(bytes.fromhex("120000000000"), room=36).status == 0, "INQUIRY passes"
    capacity = bytes.fromhex("25000000000000000000")
    assert bench.run(capacity, room=8).sense == (6, 0x2A, 0x09)
    assert bench.run(capacity, room=8).content[:8] == struct.pack(">II", 4095, 512)


def test_unit_of_a_removed_volume_is_not_supported(bench: Bench) -> None:
    bench.unit.refuse()
    assert bench.run(bytes.fromhex("120000000000"), room=36).status == 0
    for cdb, data in ((cdb_10(0x2A, 0, 1), bytes(512)), (cdb_10(0x28, 0, 1), b"")):
        assert bench.run(cdb, data, room=0 if data else 512).sense == (5, 0x25, 0)
    assert not bench.service.submissions


def test_unit_write_that_met_the_removal_in_the_queue_is_not_supported(bench: Bench) -> None:
    bench.service.failure = HostFailure.NO_VOLUME
    assert bench.run(cdb_10(0x2A, 0, 1), bytes(512)).sense == (5, 0x25, 0)
