"""Disks that fail, rot, lie and misplace: each scenario of faults.py under many seeds."""

from __future__ import annotations

from tests import tally
from tests.sim.campaign import run_many
from tests.sim.faults import SCENARIOS

ROWS = ("F6", "F7", "F8", "F10", "F11", "F13", "F30", "F33", "F34", "F35")
_ALSO = (
    "F6 refused once",
    "F8 noticed",
    "F8 found on volumes",
    "F10 during recovery",
    "F11 answers stand",
    "F30 overtaken",
)


def test_faulty_disks_never_lead_to_a_wrong_volume_or_answer() -> None:
    seeds = max(24 * len(SCENARIOS), tally.wanted("TOWLINE_SIM_SEEDS", 0))
    counts = run_many("fault", range(seeds))
    tally.count("three-site seeds with a faulty disk", counts["fault_seeds"])
    for row in (*ROWS, *_ALSO):
        assert counts[row] > 0, f"{row} was not exercised"
        if row in ROWS:
            tally.count(row, counts[row])
