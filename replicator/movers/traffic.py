"""The allowance under a traffic limit: what may be read from the link now, and when again.

A token bucket: over any time t the link carries at most limit x (t + BURST_SECONDS) bytes and
one batch, because a batch is read whole.
"""

from __future__ import annotations

BURST_SECONDS = 1.0


class TrafficAllowance:
    """Counts bytes against ``limit`` bytes a second; times are seconds of one clock."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._left = limit * BURST_SECONDS
        self._at: float | None = None

    def left_bytes(self, now: float) -> int:
        """Return what may be read now; 0 or less while earlier reads are not paid for."""
        if self._at is not None:
            earned = max(0.0, now - self._at) * self._limit
            self._left = min(self._limit * BURST_SECONDS, self._left + earned)
        self._at = now
        return int(self._left)

    def spend(self, count: int, *, excused: bool = False) -> None:
        """Note that ``count`` bytes were read; ``excused`` ones leave no debt to be waited for."""
        self._left -= count
        if excused:
            self._left = max(0.0, self._left)

    def wait_seconds(self) -> float:
        """Return how long after the last look the allowance for one read is there again."""
        enough = self._limit * BURST_SECONDS / 10
        return max(0.0, (enough - self._left) / self._limit)
