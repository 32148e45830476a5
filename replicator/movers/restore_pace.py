"""When restore may go on, and how far: own load, a delay, an operator's stop (claims 14, 27, 39).

Nothing here writes a volume. ``RestorePace`` is asked before a window is applied which of its
batches may be, and says why it holds the rest back. An own journal that is nearly full for want of
restore wins over load and delay, because a pull that finds no room costs more; not over an
operator, and not where another site is what the space waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from replicator.codec.batch import Batch
from replicator.codec.page import RestoreStop
from replicator.codec.topology import RestorePolicy
from replicator.journal.bookmarks import bookmarks_in
from replicator.journal.journal import Journal
from replicator.units import format_duration

SHORTEST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 2.0

PaceState = Literal["running", "slowed", "delayed", "paused", "stopped"]


class Pace(NamedTuple):
    """How restore is getting on, and why it is not simply running."""

    state: PaceState
    reason: str = ""


RUNNING = Pace("running")
PAUSED = Pace("paused", "by an operator: replicatorctl restore resume")


def next_pause(previous_seconds: float, load: float, limit: float) -> float:
    """Return the pause after a window: doubled while the load is above the limit, else halved."""
    if load > limit:
        return min(LONGEST_PAUSE_SECONDS, max(SHORTEST_PAUSE_SECONDS, previous_seconds * 2))
    halved = previous_seconds / 2
    return halved if halved >= SHORTEST_PAUSE_SECONDS else 0.0


class RestorePace:
    """Paces one site's restore; not for the redo of a start, which is never held back."""

    def __init__(self, journal: Journal, policy: RestorePolicy, load: Callable[[], float]) -> None:
        """``load`` returns the own machine's load, 0 to 1 (seams/load.py)."""
        self._journal = journal
        self._policy = policy
        self._load = load
        self._pause = 0.0
        self._due_at = float("-inf")
        self._anchor: tuple[int, float] | None = None
        self._found = RUNNING

    @property
    def now(self) -> Pace:
        """How restore is getting on, by what an operator has told it and what it found last."""
        stop = self._journal.body.restore_stop
        if stop is not None and stop.kind == "paused":
            return PAUSED
        return RUNNING if stop is None and self._found.state == "stopped" else self._found

    def allowed(self, now: float, batches: Sequence[Batch]) -> int:
        """Return how many of ``batches``, from the first, may be applied at ``now``."""
        self._found = RUNNING
        count = self._before_the_stop(batches)
        if count == 0 or self._short_of_space:
            return count
        count = min(count, self._old_enough(now, batches))
        if count and now < self._due_at:
            self._found = Pace("slowed", f"load above {self._policy.load_limit:.0%}")
            return 0
        return count

    def applied(self, now: float) -> None:
        """Note that a window was applied: the next one may have to wait."""
        if self._policy.load_limit is None:
            return
        self._pause = next_pause(self._pause, self._load(), self._policy.load_limit)
        self._due_at = now + self._pause

    def wait_seconds(self, now: float) -> float:
        """Return for how long restore should wait if it is slowed, else 0."""
        return max(0.0, self._due_at - now) if self._found.state == "slowed" else 0.0

    @property
    def _short_of_space(self) -> bool:
        journal = self._journal
        short = journal.free_bytes < journal.ring.place.size // 4 and journal.waits_for_restore
        if short and (self._policy.delay_seconds or self._policy.load_limit):
            self._found = Pace("running", "own journal nearly full: load and delay do not count")
        return short

    def _before_the_stop(self, batches: Sequence[Batch]) -> int:
        stop = self._journal.body.restore_stop
        if stop is None:
            return len(batches)
        if stop.kind == "paused":
            return 0
        if stop.kind == "bookmark":
            stop = self._met(stop, batches)
        count = next(
            (at for at, batch in enumerate(batches) if _is_beyond(batch, stop)), len(batches)
        )
        if count == 0:
            self._found = Pace("stopped", f"at {describe_stop(stop)}: replicatorctl restore resume")
        return count

    def _met(self, stop: RestoreStop, batches: Sequence[Batch]) -> RestoreStop:
        """Turn a stop at a bookmark into one at its position when the bookmark comes by.

        Durable before anything of the window is applied: a restart must know what it has passed.
        """
        for batch in batches:
            for bookmark in bookmarks_in(batch):
                if bookmark.name == stop.name:
                    stop = RestoreStop("position", value=bookmark.at.position, name=stop.name)
                    self._journal.set_restore_stop(stop)
                    return stop
        return stop

    def _old_enough(self, now: float, batches: Sequence[Batch]) -> int:
        """Count the batches that are older than the delay, on the primary's clock.

        Clocks of sites are never compared: the primary's time is at least that of the newest
        batch received, plus what the own monotonic clock has counted since it was received.
        """
        delay_ns = int(self._policy.delay_seconds * 1e9)
        head_ns = self._journal.head.time_ns
        if self._anchor is None or self._anchor[0] != head_ns:
            self._anchor = (head_ns, now)
        if not delay_ns:
            return len(batches)
        newest = self._anchor[0] + int((now - self._anchor[1]) * 1e9) - delay_ns
        count = next(
            (at for at, batch in enumerate(batches) if batch.header.time_ns > newest), len(batches)
        )
        if count == 0:
            self._found = Pace("delayed", f"by {format_duration(self._policy.delay_seconds)}")
        return count


def _is_beyond(batch: Batch, stop: RestoreStop) -> bool:
    """Whether ``batch`` is the first that a stop keeps back."""
    if stop.kind == "position":
        return batch.end.position > stop.value
    return stop.kind == "time" and batch.header.time_ns > stop.value


def describe_stop(stop: RestoreStop) -> str:
    """Return where an operator's stop is, in words."""
    if stop.kind == "bookmark":
        return f"bookmark {stop.name}"
    if stop.kind == "time":
        return f"time {stop.value / 1e9:.3f} (seconds since 1970)"
    if stop.kind == "position":
        return f"position {stop.value}" + (f" (bookmark {stop.name})" if stop.name else "")
    return "once"
