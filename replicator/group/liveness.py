"""A primary that was stopped for a while looks before it answers again (F20).

While a process does not run (SIGSTOP, a suspended machine) another site may have been promoted. A
thread of the site notes again and again that it runs; whoever commits asks before it appends and
before it answers, and finds the gap whichever of the two comes first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from replicator.clock import Clock

TICK_SECONDS = 0.5
GAP_SECONDS = 5.0
"""Longer than a thread waits for its turn on a busy machine; a needless look is cheap."""


class Liveness:
    """Knows since when this process has run without a gap."""

    def __init__(self, clock: Clock, look: Callable[[], None]) -> None:
        """``look`` reads the other sites; it raises what forbids to answer."""
        self._clock = clock
        self._look = look
        self._ran_at = clock.monotonic()
        self._gap = False
        self._lock = threading.Lock()

    def tick(self) -> float:
        """Note that the process runs; return the seconds until the next tick."""
        self._note(self._clock.monotonic())
        return TICK_SECONDS

    def _note(self, now: float) -> None:
        if now - self._ran_at > GAP_SECONDS:
            self._gap = True  # before the time: whoever checks sees one or the other
        self._ran_at = now

    def check(self) -> None:
        """Return at once if there was no gap, else when the other sites have been looked at."""
        if not self._gap and self._clock.monotonic() - self._ran_at <= GAP_SECONDS:
            return
        with self._lock:
            self._note(self._clock.monotonic())
            if self._gap:
                self._look()
                self._gap = False
