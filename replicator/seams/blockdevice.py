"""The block device seam: a journal or data volume on a file or a block device.

``JournalDevice`` is what the journal and the movers use for rings and pages (O_DIRECT);
``VolumeDevice`` is what commit and restore use for data volumes (page cache). The simulator
implements both (``tests/sim/devices.py``). Every OSError becomes DeviceFailed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class JournalDevice(Protocol):
    """A journal volume; offsets and lengths are bytes, multiples of 4096."""

    @property
    def name(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...

    def read(self, offset: int, length: int) -> Buffer:
        """Return exactly ``length`` bytes from the device, past any page cache."""

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> Buffer:
        """Return the concatenated bytes of each (offset, length), several reads in flight."""

    def write(self, offset: int, content: Buffer) -> None:
        """Write ``content``; it is visible to readers on return and durable after ``flush``.

        Raises DeviceFailed; the state of the range is then unknown and the device distrusted.
        """

    def flush(self) -> None:
        """Make every completed write durable; a failure is final (DeviceFailed from then on)."""

    def close(self) -> None: ...


class VolumeDevice(Protocol):
    """A data volume; offsets and lengths are bytes, multiples of 512."""

    @property
    def name(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Fill ``buffers`` in order, through the page cache; DeviceFailed on a read error."""

    def write_from(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write ``buffers`` in order from ``offset``, through the page cache (one system call
        for as many buffers as the kernel takes)."""

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros, by punching a hole where the storage can."""

    def next_content(self, offset: int) -> int:
        """Return the first place from ``offset`` on that may hold anything but zeros.

        That is ``offset`` itself where the storage cannot tell, and the device's size if there
        is none; every write that has returned is counted.
        """

    def flush(self) -> None:
        """Write back and make durable; after a failure reads fail too (DeviceFailed)."""

    def measure(self) -> int:
        """Return the device's size now, bytes: it may have been grown since it was opened."""

    def retire(self) -> None:
        """Let go of the device while others may still use this object: they get DeviceFailed."""

    def close(self) -> None: ...
