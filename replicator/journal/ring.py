"""The ring: a log range on a device, read and written by position."""

from __future__ import annotations

from replicator.journal.layout import RingPlace
from replicator.seams.blockdevice import Buffer, JournalDevice

_READ_PIECE = 1 << 20


class Ring:
    """Log positions mapped to a device; keeps no state but its place."""

    def __init__(self, device: JournalDevice, place: RingPlace) -> None:
        self.device = device
        self.place = place

    def read(self, position: int, length: int) -> memoryview:
        """Return the bytes of ``[position, position + length)``, several reads in flight."""
        pieces = [
            (start, min(_READ_PIECE, offset + size - start))
            for offset, size in self.place.segments(position, length)
            for start in range(offset, offset + size, _READ_PIECE)
        ]
        return memoryview(self.device.read_ranges(pieces)) if pieces else memoryview(b"")

    def write(self, position: int, content: Buffer) -> None:
        """Write ``content`` at ``position``; durable after the device's next flush."""
        view = memoryview(content)
        done = 0
        for offset, size in self.place.segments(position, len(view)):
            self.device.write(offset, view[done : done + size])
            done += size
