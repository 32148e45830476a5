"""The interval as a pure function of named inputs (claims 2-6): each alone, and who wins."""

from __future__ import annotations

import pytest

from replicator.codec.topology import AdaptiveInterval, Bounds, FixedInterval, PullInput
from replicator.movers.interval import RECORDS_TARGET, Measured, decide, first_interval

MBIT_20 = 2.5e6


def policy(*inputs: PullInput, **changes: object) -> AdaptiveInterval:
    """Return a policy of ``inputs`` between 0.1 and 10 s."""
    limit = MBIT_20 if "traffic" in inputs else None
    fields: dict[str, object] = {"min_seconds": 0.1, "max_seconds": 10.0, "traffic_limit": limit}
    return AdaptiveInterval(inputs=inputs, **(fields | changes))  # type: ignore[arg-type]


RECORDS = policy("records")
EVERY = policy("records", "traffic", "capacity", "load", "source")


def test_decide_fixed_interval_is_what_the_topology_says() -> None:
    fixed = FixedInterval(seconds=0.5)
    assert first_interval(fixed) == 0.5
    for records in (0, 1, 10**6):
        decision = decide(fixed, Measured(3.0, records, load=1.0, used=1.0, source=1.0))
        assert (decision.seconds, decision.winner) == (0.5, "fixed")


@pytest.mark.parametrize(
    ("records", "factor"),
    [(0, 2.0), (RECORDS_TARGET // 4, 2.0), (RECORDS_TARGET, 1.0), (RECORDS_TARGET * 16, 0.5)],
)
def test_decide_by_records_scales_towards_the_target(records: int, factor: float) -> None:
    decision = decide(RECORDS, Measured(1.0, records))
    assert decision.seconds == pytest.approx(factor)
    assert decision.winner == "records"
    assert decision.proposals == {"records": pytest.approx(factor)}


def test_decide_steady_load_settles_where_a_pull_brings_the_target() -> None:
    rate = 1000.0
    interval = first_interval(RECORDS)
    for _ in range(30):
        interval = decide(RECORDS, Measured(interval, int(rate * interval))).seconds
    assert interval == pytest.approx(RECORDS_TARGET / rate, rel=0.05)


def test_decide_by_traffic_gives_the_bytes_their_time_at_the_limit() -> None:
    alone = policy("traffic")
    for traffic, expected in ((0.0, 0.1), (MBIT_20 / 2, 0.5), (MBIT_20 * 3, 3.0), (1e9, 10.0)):
        decision = decide(alone, Measured(1.0, 5, elapsed_seconds=1.0, traffic=traffic))
        assert decision.seconds == pytest.approx(expected)
        assert decision.winner == "traffic"


def test_decide_by_capacity_waits_longer_as_the_own_journal_fills() -> None:
    alone = policy("capacity")
    seconds = [decide(alone, Measured(1.0, used=used)).seconds for used in (0.5, 0.7, 0.9, 1.0)]
    assert seconds == [pytest.approx(each) for each in (0.1, 1.0, 10.0, 10.0)]


def test_decide_by_load_waits_longer_as_the_own_machine_gets_busy() -> None:
    alone = policy("load", load_limit=0.6)
    seconds = [decide(alone, Measured(1.0, load=load)).seconds for load in (0.3, 0.45, 0.6, 1.0)]
    assert seconds == [pytest.approx(each) for each in (0.1, 1.0, 10.0, 10.0)]


def test_decide_by_source_pulls_sooner_as_the_source_fills() -> None:
    alone = policy("source")
    for fill, expected in ((0.0, 2.0), (0.125, 2.0), (0.25, 1.0), (0.4, 0.625), (0.7, 0.5)):
        decision = decide(alone, Measured(1.0, source=fill))
        assert decision.seconds == pytest.approx(expected)
        assert decision.winner == "source"
    assert decide(alone, Measured(1.0, source=0.8)).seconds == 0.1


def test_decide_stays_inside_the_bounds_and_says_so() -> None:
    idle = decide(RECORDS, Measured(8.0, 0))
    assert (idle.seconds, idle.reason) == (10.0, "records, at max")
    busy = decide(RECORDS, Measured(0.11, 10**6))
    assert (busy.seconds, busy.reason) == (0.1, "records, at min")


def test_decide_each_input_has_its_own_bounds() -> None:
    own = policy("records", "load", bounds={"load": Bounds(min_seconds=0.2, max_seconds=3.0)})
    decision = decide(own, Measured(0.1, 10**6, load=1.0))
    assert (decision.seconds, decision.reason) == (3.0, "load, at max")
    assert decision.proposals == {"records": 0.1, "load": 3.0}


def test_decide_more_waiting_at_the_source_pulls_at_once() -> None:
    waiting = Measured(9.0, 5, more_waiting=True)
    assert decide(FixedInterval(seconds=9.0), waiting).seconds == 0.0
    decision = decide(EVERY, waiting)
    assert (decision.seconds, decision.winner) == (0.0, "more waiting")


def test_decide_a_brake_holds_back_what_is_wanted_sooner() -> None:
    decision = decide(EVERY, Measured(1.0, 10**4, more_waiting=True, load=0.7, source=0.5))
    assert (decision.seconds, decision.winner) == (10.0, "load")
    assert decision.proposals["records"] == pytest.approx(0.5)
    assert decision.proposals["source"] == pytest.approx(0.5)


def test_decide_nearly_full_source_wins_over_every_brake() -> None:
    busy = Measured(
        5.0, 9, used=0.95, load=1.0, source=0.8, elapsed_seconds=1, traffic=1e9,
        traffic_wait_seconds=7.0,
    )  # fmt: skip
    decision = decide(EVERY, busy)
    assert (decision.seconds, decision.winner) == (0.1, "source nearly full")


def test_decide_own_full_journal_wins_over_a_nearly_full_source() -> None:
    decision = decide(EVERY, Measured(1.0, 9, more_waiting=True, full=True, source=1.0))
    assert (decision.seconds, decision.winner) == (10.0, "own journal full")


def test_decide_nearly_full_source_does_not_flap_at_its_threshold() -> None:
    winners = []
    urgent = False
    for fill in (0.79, 0.81, 0.79, 0.71, 0.69, 0.79):
        decision = decide(EVERY, Measured(1.0, load=1.0, source=fill, source_urgent=urgent))
        urgent = decision.winner == "source nearly full"
        winners.append(urgent)
    assert winners == [False, True, True, True, False, False]


def test_decide_traffic_limit_without_allowance_waits_even_beyond_the_bounds() -> None:
    decision = decide(EVERY, Measured(0.1, 10**4, more_waiting=True, traffic_wait_seconds=12.0))
    assert (decision.seconds, decision.winner) == (12.0, "traffic limit")


def test_decide_target_rpo_alone_leaves_room_for_the_pull() -> None:
    alone = policy(rpo_seconds=5.0)
    assert decide(alone, Measured(1.0)).seconds == pytest.approx(2.5)
    late = decide(alone, Measured(1.0, lag_seconds=3.0, pull_seconds=1.0))
    assert (late.seconds, late.winner) == (pytest.approx(0.5), "rpo")
    assert decide(alone, Measured(1.0, lag_seconds=60.0)).seconds == 0.1


def test_decide_target_rpo_is_a_ceiling_over_brakes_but_below_a_full_journal() -> None:
    both = policy("load", "capacity", rpo_seconds=4.0)
    decision = decide(both, Measured(1.0, load=1.0))
    assert (decision.seconds, decision.winner) == (pytest.approx(2.0), "rpo")
    assert decide(both, Measured(1.0, full=True)).winner == "own journal full"
