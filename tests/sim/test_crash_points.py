"""A crash after every device operation of commit, pull and restore, at all three sites."""

from __future__ import annotations

from tests import tally
from tests.sim.campaign import run_many

_PLACES = [
    f"crash points {site} {device} {operation}"
    for site in "abc"
    for device in ("journal", "volume")
    for operation in ("write", "flush")
]


def test_every_crash_point_recovers_to_a_promised_prefix_and_goes_on() -> None:
    points = tally.wanted("TOWLINE_CRASH_POINTS", 1000)
    counts = run_many("crash-points", range(points), enough=("crash points", points))
    assert counts["crash points"] >= points
    for place in (*_PLACES, "F4", "appended again", "pulled again"):
        assert counts[place] > 0, f"{place} was not exercised"
    for row in ("crash points", "F1", "F2", "F4"):
        tally.count(row, counts[row])
