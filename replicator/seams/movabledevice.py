"""A journal device that can be changed for another one under those who hold it."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.seams.blockdevice import Buffer, JournalDevice


class MovableDevice:
    """Passes everything on to ``current``; rings keep the device that they were made on."""

    def __init__(self, current: JournalDevice) -> None:
        self.current = current
        self._left: list[JournalDevice] = []

    def switch(self, device: JournalDevice) -> None:
        """Pass on to ``device`` from now on; the old one stays open for those who read it."""
        self._left.append(self.current)
        self.current = device

    @property
    def name(self) -> str:
        """The name of the device in use."""
        return self.current.name

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return self.current.size_bytes

    def read(self, offset: int, length: int) -> Buffer:
        """Read from the device in use."""
        return self.current.read(offset, length)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> Buffer:
        """Read from the device in use."""
        return self.current.read_ranges(ranges)

    def write(self, offset: int, content: Buffer) -> None:
        """Write to the device in use."""
        self.current.write(offset, content)

    def flush(self) -> None:
        """Flush the device in use."""
        self.current.flush()

    def close(self) -> None:
        """Close it, and what was left behind."""
        for device in (self.current, *self._left):
            device.close()
