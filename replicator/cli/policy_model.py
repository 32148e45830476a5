"""A small model of one puller: a workload, a link, two rings, a restore; the real ``decide``.

What it leaves out: batches (reads move any number of bytes), the source's checkpoint, readers
besides this one. Hosts are held while the source's ring is full. Times are seconds, sizes bytes.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from replicator.cli.workload import Workload
from replicator.codec.topology import AdaptiveInterval, FixedInterval
from replicator.movers.interval import (
    OWN_FULL,
    SOURCE_FULL,
    Decision,
    Measured,
    decide,
    first_interval,
)
from replicator.movers.pull import BYTE_LIMIT
from replicator.movers.traffic import TrafficAllowance

PAGES_BYTES = 8192
"""What a pull reads besides the log."""

MOST_PULLS = 1_000_000


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the policy works in."""

    link_bytes_per_second: float = 125e6
    delay_seconds: float = 0.0005
    source_ring_bytes: int = 1 << 30
    own_ring_bytes: int = 1 << 30
    restore_bytes_per_second: float = 100e6


@dataclass(frozen=True, slots=True)
class Moment:
    """One pull of the simulation: when it began, what it found, what was decided."""

    at: float
    records: int
    bytes: int
    lag_seconds: float
    """Age of the oldest write that was not here when the pull began: what an outage would lose."""
    source: float
    own: float
    load: float
    decision: Decision


class _Log:
    """The workload as a log that hosts write, which may be held: bytes and records over time."""

    def __init__(self, workload: Workload) -> None:
        self._samples = workload.samples
        self._ends = list(itertools.accumulate(sample.seconds for sample in workload.samples))
        self._used = 0.0
        """How far into the workload the hosts are; behind the clock while they are held."""
        self.bytes = 0.0
        self.records = 0.0
        self.held_seconds = 0.0
        self._written: list[tuple[float, float, float]] = [(0.0, 0.0, 0.0)]
        """(bytes, time, records) at each change of rate: what a position is worth."""

    @property
    def ended(self) -> bool:
        """Whether hosts have written everything."""
        return self._used >= self._ends[-1] - 1e-9

    def load_at(self, now: float) -> float:
        """Return how busy the machine is with other things."""
        at = bisect.bisect_right(self._ends, now)
        return self._samples[min(at, len(self._samples) - 1)].load

    def advance(self, start: float, end: float, limit: float) -> None:
        """Let hosts write from ``start`` to ``end``, up to ``limit`` bytes of log in all."""
        now = start
        while now < end - 1e-12:
            if self.ended:
                break
            at = min(bisect.bisect_right(self._ends, self._used + 1e-9), len(self._ends) - 1)
            sample = self._samples[at]
            step = min(end - now, self._ends[at] - self._used)
            rate = sample.bytes / sample.seconds
            room = max(0.0, limit - self.bytes)
            if rate * step > room:
                writes = room / rate
                self.held_seconds += step - writes
            else:
                writes = step
            self._written.append((self.bytes, now, self.records))
            self.bytes += rate * writes
            self.records += sample.records / sample.seconds * writes
            self._written.append((self.bytes, now + writes, self.records))
            self._used += writes
            now += step

    def age(self, position: float, now: float) -> float:
        """Return for how long the first byte after ``position`` has been there."""
        if position >= self.bytes - 1e-6:
            return 0.0
        return max(0.0, now - self._at(position + 1e-6)[0])

    def records_at(self, position: float) -> int:
        """Return how many records end at or below ``position``."""
        return round(self.records if position >= self.bytes else self._at(position)[1])

    def _at(self, position: float) -> tuple[float, float]:
        """Return when ``position`` was written, and the records up to it."""
        at = bisect.bisect_right(self._written, (position, float("inf"), 0.0))
        low, high = self._written[at - 1], self._written[at]
        part = (position - low[0]) / (high[0] - low[0]) if high[0] > low[0] else 1.0
        return low[1] + part * (high[1] - low[1]), low[2] + part * (high[2] - low[2])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy made of a workload."""

    moments: Sequence[Moment]
    seconds: float
    held_seconds: float
    link_bytes: float

    @property
    def worst_lag_seconds(self) -> float:
        """The most that an outage would have lost."""
        return max(moment.lag_seconds for moment in self.moments)

    def lag_percentile(self, part: float) -> float:
        """Return the lag that ``part`` of the time did not exceed.

        A pull stands for the time since the one before: its lag is the most of that time.
        """
        spans = [
            (after.lag_seconds, after.at - before.at)
            for before, after in itertools.pairwise(self.moments)
        ]
        left = part * sum(span for _, span in spans)
        for lag, span in sorted(spans):
            left -= span
            if left <= 0:
                return lag
        return self.worst_lag_seconds


def simulate(
    policy: FixedInterval | AdaptiveInterval, workload: Workload, around: Surroundings
) -> Outcome:
    """Run ``policy`` over ``workload`` until everything is pulled (at most MOST_PULLS pulls)."""
    run = _Run(policy, workload, around)
    while len(run.moments) < MOST_PULLS and not run.pull():
        pass
    return Outcome(run.moments, run.now, run.log.held_seconds, run.link_bytes)


class _Run:
    """One simulation, a pull at a time."""

    def __init__(
        self, policy: FixedInterval | AdaptiveInterval, workload: Workload, around: Surroundings
    ) -> None:
        self.log = _Log(workload)
        self.moments: list[Moment] = []
        self.now = 0.0
        self.link_bytes = 0.0
        self._policy = policy
        self._around = around
        self._allowance: TrafficAllowance | None = None
        if isinstance(policy, AdaptiveInterval) and policy.traffic_limit is not None:
            self._allowance = TrafficAllowance(policy.traffic_limit)
        self._interval = first_interval(policy)
        self._winner = ""
        self._before = 0.0
        self._pulled = self._restored = 0.0
        self._records = 0

    def pull(self) -> bool:
        """Pull once and go on to the next pull; True when everything is written and pulled."""
        around, elapsed = self._around, self._pass_time()
        waiting = self.log.bytes - self._pulled
        room = around.own_ring_bytes - (self._pulled - self._restored)
        lag = self.log.age(self._pulled, self.now)
        used = (self._pulled - self._restored) / around.own_ring_bytes
        source = min(1.0, waiting / around.source_ring_bytes)
        budget = self._budget()
        moved = min(waiting, budget, room)
        crossed, records = moved + PAGES_BYTES, self._move(moved)
        more = self._pulled < self.log.bytes - 1
        took = 2 * around.delay_seconds + crossed / around.link_bytes_per_second
        measured = Measured(
            interval_seconds=max(self._interval, 0.001),
            records=records,
            more_waiting=more and (moved > 0 or moved < room),
            elapsed_seconds=elapsed,
            traffic=crossed / max(elapsed, took),
            traffic_wait_seconds=self._allowance.wait_seconds() if self._allowance else 0.0,
            used=used,
            full=more and room < budget,
            load=self.log.load_at(self.now),
            source=source,
            source_urgent=self._winner == SOURCE_FULL,
            lag_seconds=self.log.age(self._pulled, self.now),
            pull_seconds=took,
        )
        decision = decide(self._policy, measured)
        self.moments.append(
            Moment(self.now, records, int(moved), lag, source, used, measured.load, decision)
        )
        if self.log.ended and not more:
            return True
        self._interval, self._winner = decision.seconds, decision.winner
        wait = max(decision.seconds, took)
        if decision.winner == OWN_FULL:  # as Pull.has_room_again
            wait = min(wait, max(took, _until_room(self._pulled - self._restored, around)))
        self.now += wait
        return False

    def _pass_time(self) -> float:
        """Let hosts write and restore go on since the last pull; return how long ago it was."""
        around, span = self._around, self.now - self._before
        self.log.advance(self._before, self.now, self._pulled + around.source_ring_bytes)
        done = self._restored + around.restore_bytes_per_second * span
        self._restored = min(self._pulled, done)
        self._before = self.now
        return max(span, 0.001) if self.moments else self._interval

    def _budget(self) -> float:
        if self._allowance is None:
            return float(BYTE_LIMIT)
        left = max(0, self._allowance.left_bytes(self.now))
        return float(BYTE_LIMIT if self._winner == SOURCE_FULL else min(BYTE_LIMIT, left))

    def _move(self, moved: float) -> int:
        """Bring ``moved`` bytes of the log over the link; return the records that they hold."""
        self._pulled += moved
        self.link_bytes += moved + PAGES_BYTES
        if self._allowance is not None:
            excused = self._winner == SOURCE_FULL
            self._allowance.spend(int(moved) + PAGES_BYTES, excused=excused)
        before, self._records = self._records, self.log.records_at(self._pulled)
        return self._records - before


def _until_room(unrestored: float, around: Surroundings) -> float:
    """Return how long it takes until a quarter of the own ring is free."""
    over = unrestored - around.own_ring_bytes * 3 / 4
    return max(0.0, over / around.restore_bytes_per_second)
