"""A site's journal as other sites see it over a link that may be cut."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from replicator.errors import DeviceFailed
from replicator.model import BLOCK
from tests.sim.devices import Machine, SimDevice, SimulatedCrash


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


class LegView(PeerView):
    """The near ring as its primary writes it (``LegDevice``).

    A write whose connection is lost lands, lands in part, or arrives late, until ``renew`` has
    ended its session (F23). The near machine may lose its power between a write and the flush and
    be back at once: then the flush succeeds and has flushed nothing (m11).
    """

    def __init__(
        self,
        device: Callable[[], SimDevice],
        reachable: Callable[[], bool],
        between: Callable[[], None],
        connection: Callable[[], object],
        rng: random.Random,
    ) -> None:
        super().__init__(device, reachable, between)
        self._token = connection
        self._rng = rng
        self._late: list[tuple[int, bytes]] = []
        self.writer: Machine | None = None
        """Its machine stops at operations of the leg, too."""
        self.shut_out = False
        self.writes = 0
        self.flushes = 0

    def read(self, offset: int, length: int) -> bytes:
        """Return what its one writer sees: its own writes are over, none is seen torn."""
        assert self._between is not None
        self._between()
        self._check(f"read at {offset}")
        return bytes(self._device().content[offset : offset + length])

    def connection(self) -> object:
        """Return what names the present connection."""
        return self._token()

    def renew(self) -> None:
        """End the session and what it still had under way; DeviceFailed if there is no other."""
        self._check("login")
        self.end_session()

    def end_session(self) -> None:
        """Let each write that is under way land or be gone."""
        for offset, content in self._late:
            if self._rng.random() < 0.5:
                self._device().put_from_afar(offset, content)
        self._late.clear()

    def land(self) -> None:
        """Let the oldest late write arrive now."""
        if self._late:
            self._device().put_from_afar(*self._late.pop(0))

    def write(self, offset: int, content: memoryview | bytes) -> None:
        """Write over the link; durable after a flush over the same connection."""
        data = bytes(content)
        assert self._between is not None
        self._between()
        phase = self._begin()
        try:
            self._check(f"write at {offset}")
        except DeviceFailed:
            self._half_written(offset, data)
            raise
        if phase == "middle":
            self._half_written(offset, data)
        else:
            self._device().put_from_afar(offset, data)
        self.writes += 1
        self._end(phase)

    def _half_written(self, offset: int, data: bytes) -> None:
        draw = self._rng.random()
        if draw < 0.3:
            self._late.append((offset, data))
        elif draw < 0.6:
            blocks = len(data) // BLOCK
            kept = self._rng.sample(range(blocks), self._rng.randint(0, blocks))
            for at in kept:
                start = at * BLOCK
                self._device().put_from_afar(offset + start, data[start : start + BLOCK])

    def flush(self) -> None:
        """Flush the near disk; what lost its power before is not there to be flushed."""
        assert self._between is not None
        self._between()
        phase = self._begin()
        self._check("flush")
        if phase != "middle":
            self._device().flush_from_afar()
        self.flushes += 1
        self._end(phase)

    def _check(self, what: str) -> None:
        if self.shut_out or not self._reachable():
            raise DeviceFailed(f"{self.name}: {what} failed: no connection")

    def _begin(self) -> str | None:
        machine = self.writer
        assert machine is not None
        if machine.crashed:
            raise SimulatedCrash(machine.name)
        machine.operations += 1
        if machine.crash_at is None or machine.operations < machine.crash_at:
            return None
        if machine.crash_phase == "before":
            self._end("before")
        return machine.crash_phase

    def _end(self, phase: str | None) -> None:
        machine = self.writer
        if phase is not None and machine is not None:
            machine.crashed = True
            raise SimulatedCrash(f"{machine.name} at operation {machine.operations}, on the leg")
