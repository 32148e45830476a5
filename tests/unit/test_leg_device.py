"""The near ring as its primary opens it: one writer, a session of its own, a connection told."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from replicator.errors import DeviceFailed
from replicator.seams.filedevice import DirectDevice, preallocate
from replicator.seams.legdevice import FileLeg, IscsiLeg, lock_writer

TARGET = "iqn.2026-11.org.example.towline:orders.b.leg"


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    path = tmp_path / "orders.journal"
    preallocate(path, 1 << 20)
    return path


def test_file_leg_has_one_writer_and_a_seal_can_tell(ring: Path) -> None:
    leg, other = FileLeg(ring), FileLeg(ring)
    leg.renew()
    with pytest.raises(DeviceFailed, match="another process writes or seals"):
        other.renew()
    with contextlib.closing(DirectDevice(ring, writable=True)) as owner:
        assert not lock_writer(owner.fileno())
        leg.close()
        assert lock_writer(owner.fileno())
        with pytest.raises(DeviceFailed):
            leg.renew()
    leg.renew()
    leg.close()


def test_file_leg_connection_is_the_open_file_and_changes_with_a_new_session(ring: Path) -> None:
    leg = FileLeg(ring)
    assert leg.connection() is None
    leg.renew()
    before = leg.connection()
    leg.write(8192, bytes(4096))
    leg.flush()
    assert leg.connection() is before
    leg.renew()
    assert leg.connection() is not before
    leg.close()
    with pytest.raises(DeviceFailed, match="not open"):
        leg.flush()


def test_iscsi_leg_new_session_is_a_restart_of_its_unit(ring: Path) -> None:
    ran: list[Sequence[str]] = []

    def run(words: Sequence[str]) -> int:
        ran.append(words)
        return 0 if len(ran) == 1 else 1

    leg = IscsiLeg(ring, TARGET, run)
    leg.renew()
    assert ran == [["systemctl", "restart", f"towline-session@{TARGET}.service"]]
    with pytest.raises(DeviceFailed, match="is the near site up"):
        leg.renew()
    with pytest.raises(DeviceFailed, match="not open"):
        leg.read(0, 4096)


def session(sysfs: Path, number: int, target: str, port: str | None) -> None:
    """Lay out a session as the kernel's scsi_transport_iscsi does."""
    folder = sysfs / f"session{number}"
    connection = f"connection{number}:0"
    place = folder / "device" / connection / "iscsi_connection" / connection
    place.mkdir(parents=True, exist_ok=True)
    (folder / "targetname").write_text(f"{target}\n")
    if port is not None:
        (place / "local_port").write_text(f"{port}\n")


def test_iscsi_leg_connection_changes_when_the_kernel_logs_in_again(
    ring: Path, tmp_path: Path
) -> None:
    sysfs = tmp_path / "iscsi_session"
    sysfs.mkdir()
    leg = IscsiLeg(ring, TARGET, lambda words: 0, sysfs)
    assert leg.connection() is None
    session(sysfs, 1, TARGET.replace("leg", "journal"), "40000")
    session(sysfs, 2, TARGET, "40001")
    before = leg.connection()
    assert before is not None
    assert leg.connection() == before
    session(sysfs, 2, TARGET, "40002")
    assert leg.connection() not in (None, before)


@pytest.mark.parametrize("port", [None, "0", "-1", "(null)"])
def test_iscsi_leg_connection_that_sysfs_does_not_tell_is_none(
    ring: Path, tmp_path: Path, port: str | None
) -> None:
    sysfs = tmp_path / "iscsi_session"
    sysfs.mkdir()
    session(sysfs, 2, TARGET, port)
    assert IscsiLeg(ring, TARGET, lambda words: 0, sysfs).connection() is None
