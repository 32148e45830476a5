"""A peer's journal device that may not be there yet, may go away, and may come back.

An iSCSI LUN appears with its session and may come back as another disk node after a reconnect, so
the device is opened on first use and again after every failure. Only reads.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from replicator.errors import DeviceFailed, DeviceUnusable
from replicator.seams.blockdevice import Buffer
from replicator.seams.filedevice import DirectDevice


class RemoteJournalDevice:
    """A read-only journal device by path; every failure is a DeviceFailed that may be retried."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._device: DirectDevice | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The path, for messages."""
        return str(self._path)

    @property
    def size_bytes(self) -> int:
        """Size of the device that is open now."""
        return self._opened().size_bytes

    def read(self, offset: int, length: int) -> Buffer:
        """Return exactly ``length`` bytes; DeviceFailed if the device is away."""
        return self.read_ranges([(offset, length)])

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> Buffer:
        """Return the concatenated ranges; DeviceFailed if the device is away."""
        device = self._opened()
        try:
            return device.read_ranges(ranges)
        except DeviceFailed:
            self._forget(device)
            raise

    def write(self, offset: int, content: Buffer) -> None:
        """Refuse: nobody writes to another site's journal."""
        raise AssertionError(f"{self.name}: a peer's journal is read-only (offset {offset})")

    def flush(self) -> None:
        """Refuse, as write does."""
        raise AssertionError(f"{self.name}: a peer's journal is read-only")

    def close(self) -> None:
        """Close what is open; the next use opens again."""
        device = self._device
        if device is not None:
            self._forget(device)

    def _opened(self) -> DirectDevice:
        with self._lock:
            if self._device is None:
                try:
                    self._device = DirectDevice(self._path, writable=False)
                except DeviceUnusable as error:
                    raise DeviceFailed(f"{error}; is the iSCSI session up?") from error
            return self._device

    def _forget(self, device: DirectDevice) -> None:
        with self._lock:
            if self._device is device:
                self._device = None
        device.close()
