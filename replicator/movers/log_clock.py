"""The time in batch headers: it never goes back, whatever the site's clock does (F24)."""

from __future__ import annotations

from replicator.clock import Clock


class LogClock:
    """The site's wall clock at the start, and the monotonic clock from there on."""

    def __init__(self, clock: Clock, floor_ns: int) -> None:
        """``floor_ns`` is the time of the last batch in the log."""
        self._clock = clock
        self._base_ns = max(clock.realtime_ns(), floor_ns)
        self._base_monotonic = clock.monotonic()

    def now_ns(self) -> int:
        """Return nanoseconds since 1970 on the log's clock."""
        elapsed = self._clock.monotonic() - self._base_monotonic
        return self._base_ns + int(elapsed * 1e9)
