"""A site's journal as other sites see it over a link that may be cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from replicator.errors import DeviceFailed
from replicator.model import BLOCK
from tests.sim.devices import SimDevice


class PeerView:
    """A site's journal as another site reads it: read-only, and gone when the link is cut.

    ``between`` runs before every read but the first of a step, so that the owner can go on while
    a slow reader reads (F30).
    """

    def __init__(
        self,
        device: Callable[[], SimDevice],
        reachable: Callable[[], bool],
        between: Callable[[], None] | None = None,
    ) -> None:
        self._device = device
        self._reachable = reachable
        self._between = between

    @property
    def name(self) -> str:
        """The name of the device behind the LUN."""
        return f"peer:{self._device().name}"

    @property
    def size_bytes(self) -> int:
        """Size of the LUN, bytes."""
        return self._device().size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """Return visible bytes, durable or not; DeviceFailed when the source is away."""
        assert offset % BLOCK == 0 and length % BLOCK == 0, (offset, length)
        if self._between is not None:
            self._between()
        if not self._reachable():
            raise DeviceFailed(f"{self.name}: read at {offset} failed: no connection")
        return self._device().seen_from_afar(offset, length)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> bytes:
        """Return the bytes of each (offset, length), each read at its own moment."""
        return b"".join(self.read(offset, length) for offset, length in ranges)

    def write(self, offset: int, content: memoryview | bytes) -> None:
        """Refuse: the LUN is mapped read-only."""
        raise AssertionError(f"{self.name}: a reader wrote at {offset}")

    def flush(self) -> None:
        """Refuse: a reader has nothing to flush."""
        raise AssertionError(f"{self.name}: a reader flushed")

    def close(self) -> None:
        """End the use of this handle."""
