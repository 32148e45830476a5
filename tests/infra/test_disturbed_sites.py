"""Reboots, restarts, kills, resets and jumping clocks, while the host writes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import pytest

from tests import tally
from tests.infra.lab import Lab, Node, Stamps, longest_write_seconds, until

pytestmark = pytest.mark.side_effect

DAY = 86400
PAUSE_SECONDS = 90.0
"""The longest that a write may wait for a restart here, where everything is emulated."""


def test_disturbed_restart_and_kill_at_a_under_load_are_pauses(lab: Lab, note: list[str]) -> None:
    """F19, F21: restart, then SIGKILL, at depth 64; the host verifies every block afterwards."""
    before = lab.app.kernel_errors()
    load = lab.start_load("restart", seconds=16, depth=64)
    head = lab.head("a")
    until(lambda: lab.head("a") > head, 30, "the load's first writes")
    lab["a"].ok(f"systemctl restart {lab.unit}", 240)
    served = lab.head("a")
    until(lambda: lab.head("a") > served, 60, "the load goes on after the restart")
    lab["a"].ok(f"systemctl kill --signal=KILL {lab.unit}")
    job = load.finish(240)
    longest = longest_write_seconds(job)
    note.append(f"err=0, {job['write']['total_ios']} writes, longest {longest:.1f} s")
    assert longest < PAUSE_SECONDS
    assert lab.app.kernel_errors() == before
    lab.assert_same_everywhere(["scratch"])
    tally.count("F19")
    tally.count("F21")


def test_disturbed_kill_at_a_leaves_its_journal_to_be_drained(lab: Lab, stamps: Stamps) -> None:
    """A source whose replicator is dead can still be drained: the kernel serves its journal."""
    lab.converge()
    lab["b"].ok(f"systemctl stop {lab.unit}")
    stamps.write(200)
    head = lab.head("a")
    until(lambda: int(lab.page("a")["head"].split(":")[0]) == head, 30, "a's page states its head")
    with lab.stays_dead("a"):
        lab["a"].ok(f"systemctl kill --signal=KILL {lab.unit}")
        until(lambda: not lab["a"].host.service(lab.unit).is_running, 20, "a's replicator is dead")
        lab["b"].ok(f"systemctl start {lab.unit}", 240)
        for site in ("b", "c"):
            until(partial(_has_all, lab, site, head), 120, f"{site} has what a had committed")
            assert stamps.held_by(site) == stamps.answered
        assert not lab["a"].host.service(lab.unit).is_running
    stamps.write(50)
    lab.assert_same_everywhere(["scratch"])
    tally.count("F19")


def _has_all(lab: Lab, site: str, head: int) -> bool:
    own = lab.seen_from(site)[site]
    return all((own[point] or {}).get("position") == head for point in ("received", "restored"))


def test_disturbed_reboot_of_b_catches_up(lab: Lab, stamps: Stamps, note: list[str]) -> None:
    stamps.write(100)
    lab["b"].ok("systemctl list-units --state=failed --no-legend")
    seconds = lab.reboot("b")
    stamps.write(100)
    begin = time.monotonic()
    lab.assert_same_everywhere(["scratch"])
    note.append(
        f"up after {seconds:.0f} s, caught up after another {time.monotonic() - begin:.0f} s"
    )
    assert lab["b"].ok("systemctl list-units --state=failed --no-legend").strip() == ""
    assert stamps.held_by("b") == stamps.held_by("c") == 200
    assert lab["b"].run("replicatorctl target plan --json").rc == 0
    tally.count("F2")


def test_disturbed_lun_reset_while_writing_leaves_the_right_data(lab: Lab, note: list[str]) -> None:
    """F22: a completion that comes late never overwrites newer data."""
    load = lab.start_load("reset", seconds=12, depth=32)
    head = lab.head("a")
    until(lambda: lab.head("a") > head, 30, "the load's first writes")
    generic = lab.sg_device(lab.app, lab.host_disk("scratch"))
    for _ in range(3):
        note.append(f"sg_reset: {lab.app.run(f'sg_reset --device {generic}', 60).rc}")
    job = load.finish(240)
    note.append(f"longest write {longest_write_seconds(job):.1f} s")
    lab.assert_same_everywhere(["scratch"])
    tally.count("F22")


@contextmanager
def _clock_ahead(node: Node, days: int) -> Iterator[None]:
    node.ok(f"date -s @$(( $(date +%s) + {days * DAY} ))")
    try:
        yield
    finally:
        node.ok(f"date -s @$(( $(date +%s) - {days * DAY} ))")


@pytest.mark.parametrize(("site", "days"), [("b", 3), ("a", 5), ("a", -5)])
def test_disturbed_clock_that_jumps_changes_no_order(
    lab: Lab, stamps: Stamps, site: str, days: int
) -> None:
    """F24: within an epoch the stream's time is the primary's monotonic clock."""
    stamps.write(20)
    lab.converge()
    start = lab.head("a")
    with _clock_ahead(lab[site], days):
        stamps.write(60)
        lab.converge()
        dump = lab["a"].ok(f"replicatorctl journal dump --json --from {start}")
    times = [datetime.fromisoformat(row["time"]) for row in json.loads(dump)]
    assert times == sorted(times)
    assert (times[-1] - times[0]).total_seconds() < DAY
    assert [stamps.held_by(each.name) for each in lab.sites] == [80, 80, 80]
    lab.assert_same_everywhere(["scratch"])
    tally.count("F24")
