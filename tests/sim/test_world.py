"""Three sites from many seeds: promises 1 and 2 after every step, equal volumes at the end."""

from __future__ import annotations

import pytest

from tests import tally
from tests.sim.campaign import run_many
from tests.sim.plans import PLANS

ROWS = ("F1", "F2", "F3", "F4", "F24", "F30")
"""Fault rows that every campaign must have exercised."""


@pytest.mark.parametrize("plan", PLANS)
def test_three_sites_under_many_seeds_keep_their_promises(plan: str) -> None:
    seeds = max(16, tally.wanted("TOWLINE_SIM_SEEDS", 20) // len(PLANS))
    counts = run_many(plan, range(seeds))
    tally.count("three-site seeds", counts["seeds"])
    tally.count(f"three-site seeds, {plan}", counts["seeds"])
    changes: tuple[str, ...] = ("volume add",)
    if seeds >= 100 and PLANS[plan].near is None:
        changes += ("volume grow", "volume remove")
    for row in (*ROWS, "kills", "recoveries", "held", "steps between reads", *changes):
        assert counts[row] > 0, f"{row} was not exercised"
        tally.count(row, counts[row])
