"""Read the next bytes of a source's ring while the last ones are being stored.

What was read ahead is only ever used at the position that it was read for, in the ring that it was
read from, and goes through the same checks as any other bytes. A failed read leaves nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from replicator.errors import DeviceFailed
from replicator.journal.ring import Ring

Start = Callable[[Callable[[], None]], Callable[[], None]]
"""Begins some work, perhaps in another thread; returns what waits until it is done."""


def at_once(work: Callable[[], None]) -> Callable[[], None]:
    """Do ``work`` now: the earliest moment at which a thread could have done it."""
    work()
    return lambda: None


class ReadAhead:
    """At most one read under way; its owner's thread calls everything here."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._wait: Callable[[], None] | None = None
        self._ring: Ring | None = None
        self._position = 0
        self._content: memoryview | None = None

    def begin(self, ring: Ring, position: int, length: int) -> None:
        """Start to read ``length`` bytes; they must lie below the source's limit."""
        self.wait()
        self._ring, self._position, self._content = ring, position, None

        def read() -> None:
            try:
                self._content = ring.read(position, length)
            except DeviceFailed:
                return  # who needs the bytes reads again, and sees the error

        self._wait = self._start(read)

    def wait(self) -> None:
        """Wait until nothing is under way; a read that hangs is waited for as any other."""
        if self._wait is not None:
            self._wait()
            self._wait = None

    def take(self, ring: Ring, position: int) -> memoryview | None:
        """Return what was read for ``position`` of ``ring``, once; anything else is dropped."""
        self.wait()
        content, self._content = self._content, None
        known = self._ring
        if known is None or (known.device, known.place) != (ring.device, ring.place):
            return None
        return content if position == self._position else None
