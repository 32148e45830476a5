"""The simulated devices do what their fault model says."""

from __future__ import annotations

import pytest

from replicator.errors import DeviceFailed
from tests.sim.devices import Fault, Machine, SimJournalDevice, SimulatedCrash, SimVolumeDevice
from tests.sim.views import PeerView


def _journal(seed: int = 1) -> SimJournalDevice:
    return SimJournalDevice(Machine("a", seed), "journal", 16 * 4096)


def test_device_power_loss_keeps_any_subset_of_unflushed_sectors() -> None:
    seen = set()
    for seed in range(40):
        device = _journal(seed)
        device.write(0, b"\x01" * 4096)
        device.flush()
        device.write(0, b"\x02" * 4096)
        device.machine.lose_power("some")
        content = device.read(0, 4096)
        assert all(len(set(content[at : at + 512])) == 1 for at in range(0, 4096, 512))
        seen.add(content[::512])
    assert len(seen) > 10


def test_device_power_loss_after_flush_keeps_everything() -> None:
    device = _journal()
    device.write(4096, b"\x07" * 8192)
    device.flush()
    device.machine.lose_power("none")
    assert device.read(4096, 8192) == b"\x07" * 8192


@pytest.mark.parametrize("phase", ["before", "middle", "after"])
def test_device_crash_at_operation_stops_the_machine_there(phase: str) -> None:
    device = _journal()
    device.machine.crash_at, device.machine.crash_phase = 2, phase
    device.write(0, b"\x01" * 4096)
    with pytest.raises(SimulatedCrash):
        device.write(0, b"\x02" * 4096)
    with pytest.raises(SimulatedCrash):
        device.read(0, 4096)
    device.machine.kill()
    found = set(device.read(0, 4096))
    assert found <= {1, 2}
    assert phase == "middle" or found == {1 if phase == "before" else 2}


def test_device_failed_flush_never_makes_the_dropped_sectors_durable() -> None:
    lost = 0
    for seed in range(20):
        device = _journal(seed)
        device.faults.append(Fault("flush"))
        device.write(0, b"\x01" * 4096)
        with pytest.raises(DeviceFailed):
            device.flush()
        with pytest.raises(DeviceFailed):
            device.flush()
        device.distrusted = False
        device.flush()
        device.machine.lose_power("all")
        lost += device.read(0, 4096) != b"\x01" * 4096
    assert lost > 10


def test_device_fork_after_power_loss_leaves_the_original_alone() -> None:
    device = _journal()
    device.write(0, b"\x01" * 4096)
    fork = device.machine.fork_after_power_loss(3, "none")
    assert fork["journal"].content[:4096] == bytes(4096)
    assert device.read(0, 4096) == b"\x01" * 4096


def test_peer_view_sees_visible_bytes_and_fails_when_cut() -> None:
    device = _journal()
    up = True
    view = PeerView(lambda: device, lambda: up)
    device.write(0, b"\x01" * 4096)
    device.flush()
    assert view.read(0, 4096) == b"\x01" * 4096
    up = False
    with pytest.raises(DeviceFailed):
        view.read(0, 4096)


def test_volume_after_failed_flush_refuses_reads() -> None:
    device = SimVolumeDevice(Machine("a", 1), "db", 65536)
    device.write_from(512, [b"\x01" * 512])
    device.faults.append(Fault("flush"))
    with pytest.raises(DeviceFailed):
        device.flush()
    with pytest.raises(DeviceFailed):
        device.read_into(512, [memoryview(bytearray(512))])
