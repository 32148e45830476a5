"""What must hold of a puller's pace: who wins, within which bounds, and the traffic limit."""

from __future__ import annotations

from replicator.codec.topology import AdaptiveInterval, FixedInterval
from replicator.journal.peer import Peer
from replicator.movers.interval import (
    OWN_FULL,
    SOURCE_FULL,
    SOURCE_URGENT,
    TRAFFIC_LIMIT,
)
from replicator.movers.pull import Pull, PullReport
from replicator.movers.traffic import BURST_SECONDS
from replicator.status import used_bytes
from tests.sim.oracle import BrokenPromise

FORCED_BYTES = 32 << 10
"""What a pull that a test forces may read without an allowance: both pages, catalog, a header."""


class Pace:
    """Watches the pulls of one process of a site."""

    def __init__(self, policy: FixedInterval | AdaptiveInterval, largest_read: int) -> None:
        self._policy = policy
        self._largest_read = largest_read
        """Of a pull that finds some allowance: a batch, or what one second earns."""
        self._lowest: float | None = None

    def judge(self, pull: Pull, source: Peer, report: PullReport, now: float) -> None:
        """Raise BrokenPromise if the decision or the traffic is not what the policy says."""
        policy = self._policy
        if isinstance(policy, FixedInterval):
            return
        self._judge_winner(policy, source, report)
        if policy.traffic_limit is None:
            return
        owed = pull.link_bytes - policy.traffic_limit * now - FORCED_BYTES * pull.totals.pulls
        if report.measured.source_urgent or self._lowest is None:
            self._lowest = owed  # a nearly full source wins over the limit
        self._lowest = min(self._lowest, owed)
        if owed - self._lowest > policy.traffic_limit * BURST_SECONDS + self._largest_read:
            raise BrokenPromise(
                f"{pull.link_bytes} bytes over the link at {now:.2f} s, {owed - self._lowest:.0f} "
                f"above the limit of {policy.traffic_limit:.0f} a second"
            )

    @staticmethod
    def _judge_winner(policy: AdaptiveInterval, source: Peer, report: PullReport) -> None:
        measured, decision = report.measured, report.decision
        assert source.statement is not None
        body = source.statement.newer.body
        others = [name for name in ("a", "b", "c") if name != body.site]
        if measured.source < used_bytes(body, others) / body.ring_size - 1e-9:
            raise BrokenPromise(f"{body.site} says it is fuller than {measured.source:.2f}")
        if measured.full and "capacity" in policy.inputs:
            expected = (OWN_FULL,)
        elif measured.source >= SOURCE_URGENT and "source" in policy.inputs:
            expected = (SOURCE_FULL,)
        else:
            expected = (decision.winner,)
        if decision.winner not in expected:
            raise BrokenPromise(f"{decision.winner} won over {expected[0]}")
        if decision.winner == TRAFFIC_LIMIT or (measured.more_waiting and decision.seconds == 0):
            return
        if not policy.min_seconds <= decision.seconds <= policy.max_seconds:
            raise BrokenPromise(f"{decision.winner} decided {decision.seconds} s")
