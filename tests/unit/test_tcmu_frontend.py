"""The TCMU front end with its thread, over a kernel ring on plain memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import pytest

from replicator.codec.scsi.device import ScsiDevice
from replicator.frontends.lone_client import STREAK
from replicator.frontends.tcmu import Export, TcmuFrontend
from replicator.model import HostWrite
from replicator.seams.uio import UserBackstore
from tests.fakes.tcmu_kernel import KernelRing, MemoryService, MemoryVolume

DEADLINE = 20.0
NAA = bytes.fromhex("60014050123456789abcdef012345678")
BLOCK = 512


class FakeDevice:
    """A UIO device (and its backstore): an eventfd for the interrupt, a doorbell that collects."""

    def __init__(self) -> None:
        self.kernel = KernelRing(ring_size=8192, data_size=4 << 20)
        self.memory = self.kernel.memory
        self.answered = threading.Condition()
        self._interrupt = os.eventfd(0, os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._interrupt

    def take_interrupt(self) -> None:
        try:
            os.eventfd_read(self._interrupt)
        except BlockingIOError:
            return

    def ring_doorbell(self) -> None:
        with self.answered:
            self.kernel.collect()
            self.answered.notify_all()

    def open(self) -> FakeDevice:
        return self

    def block(self) -> None: ...

    def let_go(self) -> None: ...

    def close(self) -> None:
        os.close(self._interrupt)

    def write(self, block: int, payload: bytes) -> int:
        """Queue a WRITE(10); return its id."""
        cdb = bytes([0x2A, 0, *block.to_bytes(4, "big"), 0, *(1).to_bytes(2, "big"), 0])
        command_id = self.kernel.append(cdb, payload)
        os.eventfd_write(self._interrupt, 1)
        return command_id

    def wait(self, *command_ids: int) -> list[int]:
        """Return the statuses when all are answered."""
        answers = self.kernel.answers
        with self.answered:
            assert self.answered.wait_for(lambda: all(i in answers for i in command_ids), DEADLINE)
        return [answers[each][0] for each in command_ids]


class LoneService(MemoryService):
    """Commits at once; counts what is submitted to be committed by the caller."""

    def __init__(self, volumes: Sequence[MemoryVolume]) -> None:
        super().__init__(volumes)
        self.alone = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def submit(self, requests: Sequence[HostWrite]) -> None:
        super().submit(requests)
        self.commit()

    def submit_alone(self, requests: Sequence[HostWrite]) -> None:
        self.alone += 1
        self.meanwhile()
        self.submit(requests)


class Site:
    def __init__(self) -> None:
        self.volumes = [MemoryVolume("db", 1), MemoryVolume("wal", 2)]
        self.devices = [FakeDevice(), FakeDevice()]
        self.service = LoneService(self.volumes)
        exports = [
            Export(
                volume,
                ScsiDevice(serial=volume.name, naa=NAA, blocks=volume.size_bytes // BLOCK),
                cast(UserBackstore, device),
            )
            for volume, device in zip(self.volumes, self.devices, strict=True)
        ]
        self.frontend = TcmuFrontend(self.service, exports)
        self.frontend.start()

    def write_alone(self, count: int) -> None:
        db = self.devices[0]
        for number in range(count):
            assert db.wait(db.write(number, bytes([number + 1]) * BLOCK)) == [0]


@pytest.fixture
def site() -> Iterator[Site]:
    served = Site()
    yield served
    served.frontend.stop()


def test_tcmu_writes_reach_their_volumes_and_are_answered(site: Site) -> None:
    db, wal = site.devices
    ids = [db.write(number, bytes([number]) * BLOCK) for number in range(8)]
    other = wal.write(3, b"w" * BLOCK)
    assert db.wait(*ids) == [0] * 8
    assert wal.wait(other) == [0]
    assert site.volumes[0].content[: 8 * BLOCK] == b"".join(bytes([n]) * BLOCK for n in range(8))
    assert site.volumes[1].content[3 * BLOCK : 4 * BLOCK] == b"w" * BLOCK


def test_tcmu_one_command_at_a_time_is_committed_by_the_ring_thread(site: Site) -> None:
    site.write_alone(STREAK + 3)
    assert site.service.alone == 3
    expected = b"".join(bytes([number + 1]) * BLOCK for number in range(STREAK + 3))
    assert site.volumes[0].content[: len(expected)] == expected


@pytest.mark.parametrize("ring", [0, 1])
def test_tcmu_a_command_before_the_answer_ends_that(site: Site, ring: int) -> None:
    early: list[int] = []
    site.write_alone(STREAK)
    site.service.meanwhile = lambda: early.append(site.devices[ring].write(9, b"e" * BLOCK))
    site.write_alone(1)
    site.service.meanwhile = lambda: None
    assert site.devices[ring].wait(*early) == [0]
    assert site.service.alone == 1
    site.write_alone(STREAK - 1)
    assert site.service.alone == 1
    site.write_alone(1)
    assert site.service.alone == 2
