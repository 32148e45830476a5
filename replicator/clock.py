"""The clock seam: movers get the time through their constructor."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where a mover learns the time."""

    def monotonic(self) -> float:
        """Return seconds that never go back within one boot."""

    def realtime_ns(self) -> int:
        """Return nanoseconds since 1970 by the site's own clock; it may jump."""


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Return CLOCK_MONOTONIC in seconds."""
        return time.monotonic()

    def realtime_ns(self) -> int:
        """Return CLOCK_REALTIME in nanoseconds."""
        return time.time_ns()
