"""Each input moves the interval the right way, whatever the others are; it neither flaps nor
leaves its bounds."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from replicator.codec.topology import AdaptiveInterval, Bounds, PullInput
from replicator.codec.topology_interval import INPUTS
from replicator.movers.interval import Measured, decide

PARTS = st.floats(0, 1)
MOVES: dict[str, tuple[str, st.SearchStrategy[Any], int]] = {
    "records": ("records", st.integers(0, 100_000), -1),
    "traffic": ("traffic", st.floats(0, 1e9), +1),
    "capacity": ("used", PARTS, +1),
    "load": ("load", PARTS, +1),
    "source": ("source", PARTS, -1),
}
"""By input: what is measured for it, and which way the interval goes when that grows."""


@st.composite
def policies(draw: st.DrawFn) -> AdaptiveInterval:
    inputs = tuple(draw(st.lists(st.sampled_from(INPUTS), min_size=1, max_size=5, unique=True)))
    shortest = draw(st.floats(0.01, 10))
    longest = shortest * draw(st.floats(1, 1000))
    bounds: dict[PullInput, Bounds] = {}
    for name in draw(st.lists(st.sampled_from(inputs), max_size=2, unique=True)):
        low = shortest + draw(PARTS) * (longest - shortest)
        high = low + draw(PARTS) * (longest - low)
        bounds[name] = Bounds(min_seconds=low, max_seconds=high)
    return AdaptiveInterval(
        inputs=inputs,
        min_seconds=shortest,
        max_seconds=longest,
        bounds=bounds,
        traffic_limit=draw(st.floats(1e4, 1e9)) if "traffic" in inputs else None,
        load_limit=draw(st.floats(0.05, 1)),
        rpo_seconds=draw(st.none() | st.floats(shortest, 1000)),
    )


measurements = st.builds(
    Measured,
    interval_seconds=st.floats(0.001, 100),
    records=st.integers(0, 100_000),
    more_waiting=st.booleans(),
    elapsed_seconds=st.floats(0.001, 100),
    traffic=st.floats(0, 1e9),
    traffic_wait_seconds=st.just(0.0) | st.floats(0, 20),
    used=PARTS,
    full=st.booleans(),
    load=PARTS,
    source=PARTS,
    source_urgent=st.booleans(),
    lag_seconds=st.floats(0, 100),
    pull_seconds=st.floats(0, 10),
)


@given(policies(), measurements, st.data())
def test_interval_each_input_moves_it_the_right_way(
    policy: AdaptiveInterval, measured: Measured, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(policy.inputs))
    field, values, direction = MOVES[name]
    low, high = sorted([data.draw(values), data.draw(values)])
    at_low = decide(policy, dataclasses.replace(measured, **{field: low})).seconds
    at_high = decide(policy, dataclasses.replace(measured, **{field: high})).seconds
    assert (at_high - at_low) * direction >= -1e-9


@given(policies(), measurements)
def test_interval_stays_within_the_bounds(policy: AdaptiveInterval, measured: Measured) -> None:
    decision = decide(policy, measured)
    for name, seconds in decision.proposals.items():
        low, high = policy.bounds_of(name)
        assert low - 1e-9 <= seconds <= high + 1e-9
    if decision.winner == "traffic limit":
        assert decision.seconds == measured.traffic_wait_seconds
    elif decision.seconds == 0:
        assert measured.more_waiting
    else:
        assert policy.min_seconds - 1e-9 <= decision.seconds <= policy.max_seconds + 1e-9


@given(policies(), measurements)
def test_interval_nearly_full_source_loses_only_to_the_own_full_journal(
    policy: AdaptiveInterval, measured: Measured
) -> None:
    measured = dataclasses.replace(measured, source=0.9)
    decision = decide(policy, measured)
    if "source" in policy.inputs and not (measured.full and "capacity" in policy.inputs):
        assert decision.winner == "source nearly full"
        assert decision.seconds <= policy.bounds_of("source")[0]


@given(policies(), st.floats(1, 20_000), st.floats(512, 65_536), PARTS, PARTS)
def test_interval_under_a_steady_load_does_not_swing(
    policy: AdaptiveInterval, records_a_second: float, record_bytes: float, load: float, used: float
) -> None:
    interval, urgent = policy.min_seconds, False
    seen = []
    for _ in range(60):
        measured = Measured(
            interval,
            int(records_a_second * interval),
            elapsed_seconds=interval,
            traffic=records_a_second * record_bytes,
            load=load,
            used=used,
            source=min(0.7, records_a_second * record_bytes * interval / 1e9),
            source_urgent=urgent,
        )
        decision = decide(policy, measured)
        urgent = decision.winner == "source nearly full"
        interval = decision.seconds
        seen.append(interval)
    steps = [math.log(after / before) for before, after in itertools.pairwise(seen[-10:])]
    swings = [a for a, b in itertools.pairwise(steps) if a * b < 0 and min(abs(a), abs(b)) > 0.05]
    assert not swings, "it may still drift to where it settles, but not back and forth"
