"""When to pull next: a pure function of named inputs (claims 2-6, 8, 11; 18-22, 24; 30-34, 36).

Each selected input proposes an interval within its own bounds, from what the last pull measured:

- a *want* says "no later than": ``records`` (how many a pull brings) and ``source`` (fill of the
  source's journal, from its page); more waiting at the source wants the next pull at once;
- a *brake* says "no sooner than": ``traffic`` (bytes a second on the link), ``capacity`` (use of
  the own journal), ``load`` (the own machine). A brake at its shortest brakes nothing.

The longer of the shortest want and the longest brake is taken. Three things stand above, the
first that applies wins: the own journal is full; the source's is nearly full; the traffic limit
has no allowance left. A target RPO is a ceiling below these. Every decision keeps all proposals
and the winner, so that ``replicatorctl pulls --explain`` can say why; ``replicatorctl policy
simulate`` calls this very function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from replicator.codec.topology import AdaptiveInterval, FixedInterval

RECORDS_TARGET = 256
"""Records that a pull should bring: more shorten the interval, fewer lengthen it."""

SOURCE_TARGET = 0.25
"""Fill of the source's journal when a pull comes: more shortens the interval, less lengthens it."""

SOURCE_URGENT = 0.8
SOURCE_CALM = 0.7
"""From the first fill on the source wins over everything but a full own journal, until it is
below the second again."""

CAPACITY_RELAXED = 0.5
CAPACITY_TIGHT = 0.9
"""Use of the own journal: up to the first it brakes nothing, from the second on most."""

LOAD_RELAXED = 0.5
"""Part of the load limit from which on the load brakes; at the limit it brakes most."""

MORE_WAITING = "more waiting"
OWN_FULL = "own journal full"
SOURCE_FULL = "source nearly full"
TRAFFIC_LIMIT = "traffic limit"
RPO = "rpo"

BRAKES = ("traffic", "capacity", "load")
_MOST_CHANGE = 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What the last pull measured: the inputs of a decision. Parts are 0 to 1."""

    interval_seconds: float
    """The interval that was in force before this pull."""
    records: int = 0
    more_waiting: bool = False
    """The pull ended at its byte limit with more to read."""
    elapsed_seconds: float = 0.0
    """From the pull before to this one; with the bytes it gives the traffic."""
    traffic: float = 0.0
    """Bytes a second that crossed the link in that time."""
    traffic_wait_seconds: float = 0.0
    """Until the traffic limit allows to read again."""
    used: float = 0.0
    """Part of the own journal that somebody still needed when this pull came."""
    full: bool = False
    """The source had more than the own journal has room for."""
    load: float = 0.0
    """Part of the own machine that is busy, or that work waits for."""
    source: float = 0.0
    """Part of the source's journal that somebody still needs, as its page says."""
    source_urgent: bool = False
    """The decision before was taken because the source was nearly full."""
    lag_seconds: float = 0.0
    """What is missing after this pull, on the primary's clock."""
    pull_seconds: float = 0.0
    """How long the pull took."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The next interval in seconds, what each input proposed, and which one won."""

    seconds: float
    winner: str
    proposals: Mapping[str, float]
    at: str = ""
    """``min`` or ``max`` if the winner stands at its bound."""

    @property
    def reason(self) -> str:
        """A few words for tables and pages."""
        return f"{self.winner}, at {self.at}" if self.at else self.winner


def propose_by_records(policy: AdaptiveInterval, measured: Measured) -> float:
    """Scale the interval so that the next pull brings about RECORDS_TARGET records (claim 2)."""
    return _scaled(measured.interval_seconds, RECORDS_TARGET, measured.records)


def propose_by_traffic(policy: AdaptiveInterval, measured: Measured) -> float:
    """Give the last pull's bytes the time that they may take at the limit (claim 3)."""
    assert policy.traffic_limit is not None
    return measured.elapsed_seconds * measured.traffic / policy.traffic_limit


def propose_by_capacity(policy: AdaptiveInterval, measured: Measured) -> float:
    """Pull less often as the own journal fills (claim 4)."""
    strength = (measured.used - CAPACITY_RELAXED) / (CAPACITY_TIGHT - CAPACITY_RELAXED)
    return _between(policy.bounds_of("capacity"), strength)


def propose_by_load(policy: AdaptiveInterval, measured: Measured) -> float:
    """Pull less often as the own machine gets busy (claim 5)."""
    relaxed = LOAD_RELAXED * policy.load_limit
    return _between(
        policy.bounds_of("load"), (measured.load - relaxed) / (policy.load_limit - relaxed)
    )


def propose_by_source(policy: AdaptiveInterval, measured: Measured) -> float:
    """Scale the interval so that the source is no fuller than SOURCE_TARGET when a pull comes, by
    its page (claims 6, 8, 11).

    Scaled and not looked up in a curve: the fill follows the interval, so a steep curve swings.
    """
    return _scaled(measured.interval_seconds, SOURCE_TARGET, measured.source)


PROPOSERS: Mapping[str, Callable[[AdaptiveInterval, Measured], float]] = {
    "records": propose_by_records,
    "traffic": propose_by_traffic,
    "capacity": propose_by_capacity,
    "load": propose_by_load,
    "source": propose_by_source,
}
"""Every selectable input; a topology names them by key."""


def first_interval(policy: FixedInterval | AdaptiveInterval) -> float:
    """Return the interval before anything was measured, seconds."""
    return policy.seconds if isinstance(policy, FixedInterval) else policy.min_seconds


def is_urgent(measured: Measured) -> bool:
    """Whether the source's journal is nearly full, with hysteresis so that it does not flap."""
    return measured.source >= (SOURCE_CALM if measured.source_urgent else SOURCE_URGENT)


def decide(policy: FixedInterval | AdaptiveInterval, measured: Measured) -> Decision:
    """Return the interval to wait before the next pull, from this one's begin on.

    Within the policy's bounds, except that it is 0 while more waits at the source, and longer
    than the bounds only where the traffic limit has no allowance yet.
    """
    if isinstance(policy, FixedInterval):
        proposals: dict[str, float] = {"fixed": policy.seconds}
        if measured.more_waiting:
            return Decision(0.0, MORE_WAITING, proposals)
        return Decision(policy.seconds, "fixed", proposals)
    proposals = {
        name: _clip(PROPOSERS[name](policy, measured), policy.bounds_of(name))
        for name in policy.inputs
    }
    if policy.rpo_seconds is not None:
        spare = policy.rpo_seconds - measured.lag_seconds - measured.pull_seconds
        proposals[RPO] = _clip(spare / 2, (policy.min_seconds, policy.max_seconds))
    if measured.full and "capacity" in proposals:
        return Decision(policy.bounds_of("capacity")[1], OWN_FULL, proposals)
    if "source" in proposals and is_urgent(measured):
        at_once = 0.0 if measured.more_waiting else policy.min_seconds
        return Decision(at_once, SOURCE_FULL, proposals)
    winner, seconds = _weigh(policy, measured, proposals)
    if measured.traffic_wait_seconds > seconds:
        return Decision(measured.traffic_wait_seconds, TRAFFIC_LIMIT, proposals)
    return Decision(seconds, winner, proposals, _bound_of(policy, winner, seconds))


def _weigh(
    policy: AdaptiveInterval, measured: Measured, proposals: Mapping[str, float]
) -> tuple[str, float]:
    """Return the winner of wants, brakes and the RPO, and its interval."""
    wants = {name: s for name, s in proposals.items() if name not in (*BRAKES, RPO)}
    if measured.more_waiting:
        wants[MORE_WAITING] = 0.0
    brakes = {name: proposals[name] for name in BRAKES if name in proposals}
    if wants:  # brakes at their shortest do not hold back what is wanted sooner
        brakes = {name: s for name, s in brakes.items() if s > policy.bounds_of(name)[0]}
    want = min(wants, key=lambda name: wants[name], default=None)
    brake = max(brakes, key=lambda name: brakes[name], default=None)
    if want is None and brake is None:
        return RPO, proposals[RPO]
    if brake is None or (want is not None and wants[want] >= brakes[brake]):
        assert want is not None
        winner, seconds = want, wants[want]
    else:
        winner, seconds = brake, brakes[brake]
    if RPO in proposals and proposals[RPO] < seconds:
        return RPO, proposals[RPO]
    return winner, seconds


def _bound_of(policy: AdaptiveInterval, winner: str, seconds: float) -> str:
    if winner == MORE_WAITING:
        return ""
    shortest, longest = policy.bounds_of(winner)
    if seconds <= shortest:
        return "min"
    return "max" if seconds >= longest else ""


def _clip(seconds: float, bounds: tuple[float, float]) -> float:
    return min(bounds[1], max(bounds[0], seconds))


def _scaled(seconds: float, target: float, found: float) -> float:
    """Return the interval at which ``found`` would be ``target``, at most a factor of 2 away."""
    factor = target / found if found > 0 else _MOST_CHANGE
    return seconds * min(_MOST_CHANGE, max(1 / _MOST_CHANGE, factor))


def _between(bounds: tuple[float, float], strength: float) -> float:
    """Return the interval at ``strength`` (0 shortest, 1 longest) on a logarithmic scale."""
    shortest, longest = bounds
    part = min(1.0, max(0.0, strength))
    return float(shortest * (longest / shortest) ** part)
