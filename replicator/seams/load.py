"""The own machine's load: CPU time (proc_stat(5)) and pressure-stall information (proc(5)).

I/O pressure is left out: on an idle machine the replicator's own flushes are most of it, so a
pace that followed it would brake itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
SHORTEST_SPAN_SECONDS = 0.5
"""Between two looks; who asks sooner gets the last answer."""

_IDLE_COLUMNS = (3, 4)
"""idle and iowait of the ``cpu`` line."""
_GUEST_COLUMNS = 8
"""user and nice already contain the guests' time, which stands behind these."""


@dataclass(frozen=True, slots=True)
class Load:
    """Parts from 0 to 1: CPU time that was used, and time in which work waited for CPU or memory.

    ``pressure`` is the higher ``some avg10`` of the two, 0 where the kernel gives none.
    """

    cpu: float
    pressure: float

    @property
    def part(self) -> float:
        """The higher of the two: what a load limit is compared with."""
        return max(self.cpu, self.pressure)


class LoadMeter:
    """Reads the load of the time since it was read before; may be shared by threads.

    What cannot be read counts as no load: pacing must not stop because of that.
    """

    def __init__(self, proc: Path = PROC, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._proc = proc
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._ticks = self._cpu_ticks()
        self._read_at = monotonic()
        self._last = Load(0.0, self._pressure())

    def read(self) -> Load:
        """Return the load since the last look, but never of less than half a second."""
        with self._lock:
            now = self._monotonic()
            if now - self._read_at < SHORTEST_SPAN_SECONDS:
                return self._last
            busy, total = self._cpu_ticks()
            span = total - self._ticks[1]
            used = (busy - self._ticks[0]) / span if span > 0 else 0.0
            self._ticks, self._read_at = (busy, total), now
            self._last = Load(min(1.0, max(0.0, used)), self._pressure())
            return self._last

    def part(self) -> float:
        """Return ``read().part``, as a mover takes it."""
        return self.read().part

    def _cpu_ticks(self) -> tuple[int, int]:
        try:
            line = (self._proc / "stat").read_text().split("\n", 1)[0]
            ticks = [int(column) for column in line.split()[1 : 1 + _GUEST_COLUMNS]]
        except (OSError, ValueError):
            return 0, 0
        total = sum(ticks)
        return total - sum(ticks[column] for column in _IDLE_COLUMNS if column < len(ticks)), total

    def _pressure(self) -> float:
        return max(self._some_avg10("cpu"), self._some_avg10("memory"))

    def _some_avg10(self, resource: str) -> float:
        try:
            first = (self._proc / "pressure" / resource).read_text().split("\n", 1)[0]
            fields = dict(field.split("=") for field in first.split()[1:])
            return min(1.0, float(fields["avg10"]) / 100)
        except (OSError, ValueError, KeyError):
            return 0.0
