"""When to pull next: a pure function of named inputs (claims 1, 2; the other inputs come later).

Each input proposes an interval; the shortest proposal wins, inside the bounds. The decision keeps
every proposal, so that ``replicatorctl pulls`` can say why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from replicator.codec.topology import AdaptiveInterval, FixedInterval

RECORDS_TARGET = 256
"""Records that a pull should bring: more shorten the interval, fewer lengthen it."""

_MOST_CHANGE = 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What the last pull measured: the inputs of a decision."""

    interval_seconds: float
    records: int
    more_waiting: bool
    """The pull ended at its byte limit with more to read."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The next interval in seconds, what each input proposed, and which one won."""

    seconds: float
    winner: str
    proposals: Mapping[str, float]

    @property
    def reason(self) -> str:
        """One word or two for tables and pages."""
        return self.winner


def propose_by_records(measured: Measured) -> float:
    """Scale the interval so that the next pull brings about RECORDS_TARGET records (claim 2)."""
    if measured.records == 0:
        return measured.interval_seconds * _MOST_CHANGE
    factor = RECORDS_TARGET / measured.records
    return measured.interval_seconds * min(_MOST_CHANGE, max(1 / _MOST_CHANGE, factor))


PROPOSERS: Mapping[str, Callable[[Measured], float]] = {"records": propose_by_records}
"""Every selectable input; a topology names them by key."""


def first_interval(policy: FixedInterval | AdaptiveInterval) -> float:
    """Return the interval before anything was measured, seconds."""
    return policy.seconds if isinstance(policy, FixedInterval) else policy.min_seconds


def decide(policy: FixedInterval | AdaptiveInterval, measured: Measured) -> Decision:
    """Return the interval to wait before the next pull."""
    if measured.more_waiting:
        return Decision(0.0, "more waiting", {})
    if isinstance(policy, FixedInterval):
        return Decision(policy.seconds, "fixed", {"fixed": policy.seconds})
    proposals: dict[str, float] = {name: PROPOSERS[name](measured) for name in policy.inputs}
    winner = min(proposals, key=lambda name: proposals[name])
    seconds = proposals[winner]
    if seconds <= policy.min_seconds:
        return Decision(policy.min_seconds, f"{winner}, at min", proposals)
    if seconds >= policy.max_seconds:
        return Decision(policy.max_seconds, f"{winner}, at max", proposals)
    return Decision(seconds, winner, proposals)
