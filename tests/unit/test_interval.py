"""The interval as a pure function of named inputs (claims 1, 2)."""

from __future__ import annotations

import pytest

from replicator.codec.topology import AdaptiveInterval, FixedInterval
from replicator.movers.interval import RECORDS_TARGET, Measured, decide, first_interval

POLICY = AdaptiveInterval(inputs=("records",), min_seconds=0.1, max_seconds=5.0)


def test_decide_fixed_interval_is_what_the_topology_says() -> None:
    policy = FixedInterval(seconds=0.5)
    assert first_interval(policy) == 0.5
    for records in (0, 1, 10**6):
        decision = decide(policy, Measured(3.0, records, more_waiting=False))
        assert (decision.seconds, decision.winner) == (0.5, "fixed")


@pytest.mark.parametrize(
    ("records", "factor"),
    [(0, 2.0), (RECORDS_TARGET // 4, 2.0), (RECORDS_TARGET, 1.0), (RECORDS_TARGET * 16, 0.5)],
)
def test_decide_by_records_scales_towards_the_target(records: int, factor: float) -> None:
    decision = decide(POLICY, Measured(1.0, records, more_waiting=False))
    assert decision.seconds == pytest.approx(factor)
    assert decision.winner == "records"
    assert decision.proposals == {"records": pytest.approx(factor)}


def test_decide_steady_load_settles_where_a_pull_brings_the_target() -> None:
    rate = 1000.0
    interval = first_interval(POLICY)
    for _ in range(30):
        measured = Measured(interval, int(rate * interval), more_waiting=False)
        interval = decide(POLICY, measured).seconds
    assert interval == pytest.approx(RECORDS_TARGET / rate, rel=0.05)


def test_decide_stays_inside_the_bounds_and_says_so() -> None:
    idle = decide(POLICY, Measured(4.0, 0, more_waiting=False))
    assert (idle.seconds, idle.reason) == (5.0, "records, at max")
    busy = decide(POLICY, Measured(0.11, 10**6, more_waiting=False))
    assert (busy.seconds, busy.reason) == (0.1, "records, at min")


def test_decide_more_waiting_at_the_source_pulls_at_once() -> None:
    assert decide(FixedInterval(seconds=9.0), Measured(9.0, 5, more_waiting=True)).seconds == 0.0
