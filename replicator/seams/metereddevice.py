"""A journal device that counts what is read from it: the traffic that a reader causes."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.seams.blockdevice import Buffer, JournalDevice


class MeteredDevice:
    """``device``, with ``read_bytes`` counted; a read that fails counts nothing."""

    def __init__(self, device: JournalDevice) -> None:
        self._device = device
        self.read_bytes = 0

    @property
    def name(self) -> str:
        """The device's name, for messages."""
        return self._device.name

    @property
    def size_bytes(self) -> int:
        """Size of the device."""
        return self._device.size_bytes

    def read(self, offset: int, length: int) -> Buffer:
        """Read as the device does."""
        content = self._device.read(offset, length)
        self.read_bytes += length
        return content

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> Buffer:
        """Read as the device does."""
        content = self._device.read_ranges(ranges)
        self.read_bytes += sum(length for _, length in ranges)
        return content

    def write(self, offset: int, content: Buffer) -> None:
        """Write as the device does."""
        self._device.write(offset, content)

    def flush(self) -> None:
        """Flush as the device does."""
        self._device.flush()

    def close(self) -> None:
        """Close the device."""
        self._device.close()
