"""The kernel's side of a TCMU device: its UIO device, and its switches in configfs.

``UserBackstore`` finds a device by the end of its UIO name (``tcm-user/HBA/NAME/CONFIG``) and
holds or lets go the commands in the kernel; ``UioMapping`` is the mapped ring with its doorbell.
Every OSError becomes DeviceUnusable here.
"""

from __future__ import annotations

import errno
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from replicator.errors import DeviceBusy, DeviceUnusable

SYSFS_UIO = Path("/sys/class/uio")
CONFIGFS_CORE = Path("/sys/kernel/config/target/core")
DEVICES = Path("/dev")

_DOORBELL = bytes((1, 0, 0, 0))


@dataclass(frozen=True, slots=True)
class UserBackstore:
    """A TCMU device that exists in the kernel."""

    name: str
    uio: Path
    sysfs: Path
    configfs: Path

    @classmethod
    def find(cls, name_suffix: str) -> UserBackstore:
        """Return the device whose UIO name ends so; DeviceUnusable names what there is."""
        found = user_backstores()
        for device in found:
            if device.name.endswith(name_suffix):
                return device
        names = ", ".join(device.name for device in found)
        raise DeviceUnusable(
            f"no TCMU device is called *{name_suffix}; found: {names or 'none'}; "
            "run 'replicatorctl target apply' first"
        )

    @property
    def backstore_name(self) -> str:
        """Return the name that LIO knows it by."""
        return self.configfs.name

    def hold(self) -> None:
        """Stop the kernel from handing commands out and give back those of a handler that died.

        Initiators send again what was given back (it is answered BUSY), so an unanswered write
        of before may take effect 0, 1 or 2 times; nothing that was answered is touched. Call it
        before the journal is recovered. (That commands never time out meanwhile is set with the
        target, before it is exported: the kernel refuses it later.)
        """
        _write_text(self.configfs / "action" / "block_dev", "1")
        _write_text(self.configfs / "action" / "reset_ring", "1")

    def block(self) -> None:
        """Stop the kernel from handing commands out; they wait."""
        _write_text(self.configfs / "action" / "block_dev", "1")

    def let_go(self) -> None:
        """Hand commands out again."""
        _write_text(self.configfs / "action" / "block_dev", "0")

    def open(self) -> UioMapping:
        """Map the ring; DeviceBusy if another process serves it."""
        size_text = _read_text(self.sysfs / "maps" / "map0" / "size")
        try:
            descriptor = os.open(self.uio, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise DeviceBusy(
                    f"{self.uio} ({self.name}) is served by another process"
                ) from error
            raise DeviceUnusable(f"cannot open {self.uio} ({self.name}): {error}") from error
        try:
            return UioMapping(descriptor, mmap.mmap(descriptor, int(size_text, 16)))
        except (OSError, ValueError) as error:
            os.close(descriptor)
            raise DeviceUnusable(f"cannot map {self.uio} ({self.name}): {error}") from error


def user_backstores() -> list[UserBackstore]:
    """Return every TCMU device of this machine."""
    found = []
    for entry in sorted(SYSFS_UIO.glob("uio*")):
        name = _read_text(entry / "name")
        parts = name.split("/")
        if len(parts) >= 3 and parts[0] == "tcm-user":
            configfs = CONFIGFS_CORE / f"user_{parts[1]}" / parts[2]
            found.append(UserBackstore(name, DEVICES / entry.name, entry, configfs))
    return found


class UioMapping:
    """The mapped memory of a UIO device, its interrupt and its doorbell."""

    __slots__ = ("_descriptor", "_map", "memory")

    def __init__(self, descriptor: int, mapped: mmap.mmap) -> None:
        """Own ``descriptor`` and the map until ``close``."""
        self._descriptor = descriptor
        self._map: mmap.mmap | None = mapped
        self.memory = memoryview(mapped)

    def fileno(self) -> int:
        """Return what to poll for reading."""
        return self._descriptor

    def take_interrupt(self) -> None:
        """Note that the ring is looked at now: a later command makes it readable again."""
        try:
            os.read(self._descriptor, 4)
        except BlockingIOError:
            return
        except OSError as error:
            raise DeviceUnusable(f"TCMU device is gone: {error}") from error

    def ring_doorbell(self) -> None:
        """Tell the kernel that answers were published."""
        try:
            os.write(self._descriptor, _DOORBELL)
        except OSError as error:
            raise DeviceUnusable(f"TCMU device is gone: {error}") from error

    def close(self) -> None:
        """Unmap and close; memory that is still referred to stays mapped until it is let go."""
        try:
            self.memory.release()
            if self._map is not None:
                self._map.close()
        except BufferError:
            self._map = None  # unmapped with its last view
        os.close(self._descriptor)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise DeviceUnusable(f"cannot read {path}: {error}") from error


def _write_text(path: Path, text: str) -> None:
    """Write one configfs attribute with one system call."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DeviceUnusable(f"cannot write {text!r} to {path}: {error}") from error
