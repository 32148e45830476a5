"""When restore may go on: load, delay, an operator's pause and stops (claims 14, 27, 39)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replicator.codec.bookmarks import encode_bookmark
from replicator.codec.page import RestoreStop
from replicator.codec.points import parse_point
from replicator.codec.records import RecordKind
from replicator.codec.topology import FixedInterval, RestorePolicy
from replicator.model import ControlRecord
from replicator.movers.pull import Pull
from replicator.movers.restore import Restore
from replicator.movers.restore_pace import (
    LONGEST_PAUSE_SECONDS,
    RestorePace,
    next_pause,
)
from tests.fakes.group_on_sim import Primary, Secondary, blank_volumes


class Site:
    """Site b with a paced restore; ``load`` is what its meter says."""

    def __init__(self, policy: RestorePolicy) -> None:
        self.a = Primary()
        self.b = Secondary(self.a)
        self.volumes = blank_volumes(self.b.machine)
        self.load = 0.0
        self.pull = Pull(self.b.journal, self.b.peer, FixedInterval(seconds=0.0), self.a.clock)
        self.pace = RestorePace(self.b.journal, policy, lambda: self.load)
        self.restore = Restore(self.b.journal, self.volumes, window=4096, pace=self.pace)

    def write(self, fill: int) -> None:
        """One write in one batch at a, received at b."""
        self.a.write(1, fill * 4096, bytes([fill]) * 4096)
        self.commit()

    def commit(self) -> None:
        while self.a.commit.step(0.0):
            pass
        self.a.journal.publish()
        self.pull.due_at = float("-inf")
        self.pull.step(0.0)

    def restored(self, now: float) -> int:
        """Restore as far as it goes at ``now``; return the records applied so far."""
        while self.restore.step(now):
            pass
        return self.restore.applied.sequence


def test_pause_doubles_above_the_limit_and_halves_below() -> None:
    pause = 0.0
    grown = []
    for _ in range(12):
        pause = next_pause(pause, load=0.9, limit=0.7)
        grown.append(pause)
    assert grown == sorted(grown)
    assert grown[-1] == LONGEST_PAUSE_SECONDS
    for _ in range(12):
        pause = next_pause(pause, load=0.7, limit=0.7)
    assert pause == 0.0


def test_restore_at_a_loaded_site_waits_between_windows_and_says_why() -> None:
    site = Site(RestorePolicy(load_limit=0.7))
    for fill in range(1, 5):
        site.write(fill)
    site.load = 0.95
    assert site.restored(1.0) == 1, "one window, then a pause"
    assert site.pace.now.state == "slowed"
    assert "70%" in site.pace.now.reason
    assert 0 < site.pace.wait_seconds(1.0) <= LONGEST_PAUSE_SECONDS
    assert site.restored(1.0 + LONGEST_PAUSE_SECONDS) == 2
    site.load = 0.1
    now = 10.0
    for _ in range(10):
        now += LONGEST_PAUSE_SECONDS
        site.restored(now)
    assert site.restore.applied.sequence == 4
    assert site.pace.now.state == "running"


def test_restore_with_a_journal_nearly_full_heeds_neither_load_nor_delay() -> None:
    site = Site(RestorePolicy(load_limit=0.1, delay_seconds=3600.0))
    site.load = 1.0
    count = 0
    while site.b.journal.free_bytes >= site.b.journal.ring.place.size // 4:
        count += 1
        site.write(count % 60)
    assert site.restored(1.0) == count
    assert "nearly full" in site.pace.now.reason


def test_restore_with_a_journal_nearly_full_for_want_of_another_site_keeps_its_delay() -> None:
    site = Site(RestorePolicy(delay_seconds=3600.0))
    site.b.journal.owner = replace(site.b.journal.owner, peers=("a", "c"))
    count = 0
    while site.b.journal.free_bytes >= site.b.journal.ring.place.size // 4:
        count += 1
        site.write(count % 60)
    assert site.restored(1.0) == 0
    assert site.pace.now.state == "delayed", "c has received nothing: restore would free no space"


def test_restore_delay_keeps_back_what_is_younger_on_the_primarys_clock() -> None:
    site = Site(RestorePolicy(delay_seconds=60.0))
    site.write(1)
    assert site.restored(0.0) == 0
    assert site.pace.now.state == "delayed"
    site.a.clock.seconds += 50.0
    site.write(2)
    assert site.restored(50.0) == 0
    assert site.restored(61.0) == 1, "the first is a minute old, the second is not"
    assert site.restored(111.0) == 2


def test_restore_delay_trusts_no_clock_but_the_primarys() -> None:
    site = Site(RestorePolicy(delay_seconds=60.0))
    site.a.clock.wall_ns = 1  # what a clock that jumps back by decades says
    site.write(1)
    assert site.restored(30.0) == 0
    assert site.restored(95.0) == 1


def test_restore_paused_stays_so_over_a_restart_until_resumed() -> None:
    site = Site(RestorePolicy())
    site.write(1)
    site.b.journal.set_restore_stop(RestoreStop("paused"))
    assert site.restored(0.0) == 0
    assert site.pace.now.state == "paused"
    site.b.open(site.a)
    assert site.b.journal.body.restore_stop == RestoreStop("paused")
    site.b.journal.set_restore_stop(None)
    assert site.b.journal.body.restore_stop is None


def test_restore_stops_at_a_position_a_time_and_a_bookmark() -> None:
    site = Site(RestorePolicy())
    site.write(1)
    position, time_ns = site.a.journal.head.position, site.a.journal.head.time_ns
    site.a.clock.seconds += 1.0
    site.a.commit.submit_control([ControlRecord(RecordKind.BOOKMARK, encode_bookmark("here"))])
    site.commit()
    bookmark = site.a.journal.head
    site.a.clock.seconds += 1.0
    site.write(2)
    for stop in (
        RestoreStop("position", value=position),
        RestoreStop("position", value=position + 1),
        RestoreStop("time", value=time_ns),
    ):
        site.b.journal.set_restore_stop(stop)
        assert site.restored(0.0) == 1, stop
        assert site.restore.applied.position == position
        assert site.pace.now.state == "stopped"
    site.b.journal.set_restore_stop(RestoreStop("bookmark", name="here"))
    assert site.restored(0.0) == 2
    assert site.pace.now.state == "stopped"
    assert site.restore.applied == bookmark
    assert site.b.journal.body.restore_stop == RestoreStop(
        "position", value=bookmark.position, name="here"
    ), "known as a position before anything is applied, also after a restart"
    site.b.journal.set_restore_stop(RestoreStop("bookmark", name="elsewhere"))
    assert site.restored(0.0) == 3
    assert site.pace.now.state == "running"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4096", RestoreStop("position", value=4096)),
        ("2026-11-25T15:00:00Z", RestoreStop("time", value=1795618800_000_000_000)),
        ("2026-11-25T16:00:00+01:00", RestoreStop("time", value=1795618800_000_000_000)),
        ("2026-11-25T15:00:00", RestoreStop("time", value=1795618800_000_000_000)),
        ("before-upgrade", RestoreStop("bookmark", name="before-upgrade")),
    ],
)
def test_point_is_a_position_a_time_or_a_bookmark(text: str, expected: RestoreStop) -> None:
    assert parse_point(text) == expected


@pytest.mark.parametrize("text", ["", "a b", "x" * 64, "ä", "../x"])
def test_point_that_is_nothing_of_these_says_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="a bookmark's name"):
        parse_point(text)
