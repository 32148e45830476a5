"""A cable between two sites is cut: hosts do not notice, and the site catches up (F17, F47)."""

from __future__ import annotations

import pytest

from tests import tally
from tests.infra.lab import Lab, Stamps, longest_write_seconds, until

pytestmark = pytest.mark.side_effect

UNNOTICED_SECONDS = 10.0


def test_disturbed_cut_and_heal_of_a_b_leaves_the_host_alone(
    lab: Lab, stamps: Stamps, note: list[str]
) -> None:
    lab.converge()
    received = lab.head("b")
    load = lab.start_load("cut", seconds=20)
    with lab.cut("a-b"):
        held = until(lambda: _stands_still(lab, "b"), 60, "b's head stands while a's moves")
        assert held >= received
        assert lab.seen_from("c")["c"]["state"] == "following"
        job = load.finish(240)
        stamps.write(20)
    longest = longest_write_seconds(job)
    note.append(f"longest write {longest:.2f} s")
    assert longest < UNNOTICED_SECONDS
    lab.assert_same_everywhere(["scratch"])
    assert stamps.held_by("b") == stamps.held_by("c") == 20
    _assert_nothing_twice(lab)
    tally.count("F17")


def _stands_still(lab: Lab, site: str) -> int:
    """Return the site's head when it has not moved while the primary's moved by a megabyte."""
    own, primary = lab.head(site), lab.head("a")
    until(lambda: lab.head("a") > primary + (1 << 20), 60, "a's head moves")
    return own if lab.head(site) == own else 0


def _assert_nothing_twice(lab: Lab) -> None:
    """The same count of records at the same position everywhere, each batch chained to its last."""
    rows = [lab.seen_from(site.name)[site.name]["received"] for site in lab.sites]
    assert len({(row["position"], row["sequence"]) for row in rows}) == 1, rows
    for site in lab.sites[1:]:
        site.ok("replicatorctl journal check", 300)


def test_disturbed_flapping_cable_between_b_and_c_ends_equal(lab: Lab, stamps: Stamps) -> None:
    for _ in range(3):
        with lab.cut("b-c"):
            stamps.write(30)
        stamps.write(30)
    lab.assert_same_everywhere(["scratch"])
    assert stamps.held_by("c") == 180
    tally.count("F17")
