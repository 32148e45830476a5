"""A journal moves to a device of another size: nothing is lost at any crash, peers follow."""

from __future__ import annotations

import random

import pytest

from replicator.codec.batch import Point
from replicator.codec.page import PeerNote
from replicator.codec.topology import FixedInterval
from replicator.errors import DeviceFailed, DeviceUnusable, NotBlank, PeerRefused, WrongJournal
from replicator.journal.journal import Journal, Owner
from replicator.journal.layout import RING_AT
from replicator.journal.move import move_journal
from replicator.journal.pages import read_statement
from replicator.journal.recovery import recover
from replicator.journal.survey import Survey
from replicator.model import BLOCK, Pair
from replicator.movers.pull import Pull
from replicator.movers.restore import Restore
from replicator.seams.lio import held_device
from replicator.seams.movabledevice import MovableDevice
from tests.fakes.group_on_sim import BOOT, RING, Primary, Secondary
from tests.sim.devices import SimJournalDevice, SimulatedCrash
from tests.tally import count, wanted

OWNER = Owner("orders", "a", BOOT, ("b",))


class Mover(Primary):
    """A primary whose journal can be moved, and the device to move to."""

    def __init__(self, ring: int = 4 * RING) -> None:
        super().__init__()
        self.target = SimJournalDevice(self.machine, "next", RING_AT + ring)
        self.journal.device = MovableDevice(self.device)
        self.random = random.Random(7)

    def fill(self, count: int) -> None:
        for number in range(count):
            self.write(1, number % 8 * BLOCK, bytes([number % 250 + 1]) * BLOCK)
            while self.commit.step(0.0):
                pass

    def move(self) -> None:
        move_journal(self.journal, self.target, self.random.randbytes)


@pytest.mark.parametrize("ring", [RING, 4 * RING])
def test_move_keeps_every_batch_and_goes_on_there(ring: int) -> None:
    site = Mover(ring)
    site.fill(20)
    head = site.journal.head
    site.move()
    assert site.journal.head == head
    assert site.journal.body.ring_size == ring
    site.fill(20)
    survey = Survey(site.target)
    first = survey.first()
    assert first is not None and first.position == 0
    site.journal.publish()
    again = Journal.open(site.target, OWNER)
    assert recover(again).head == site.journal.head
    with pytest.raises(WrongJournal, match="was moved to next"):
        Journal.open(site.device, OWNER)


def test_move_under_a_wrapped_ring_to_a_larger_one_keeps_positions() -> None:
    site = Mover()
    rounds = 0
    while site.journal.head.position < RING + RING // 2:
        site.fill(50)
        point = site.journal.head.pair
        site.journal.peers["b"] = _note(point)
        site.journal.publish(restored=site.journal.head)
        site.journal.publish()
        rounds += 1
        assert rounds < 100
    held = site.journal.reclaim
    site.move()
    assert site.journal.body.reclaim == held
    site.fill(5)
    site.journal.publish()
    survey = Survey(site.target)
    first = survey.first()
    assert first is not None
    batches = list(survey.batches(first, survey.body.head.position))
    assert batches[-1].end == site.journal.head  # type: ignore[union-attr]


def test_move_takes_along_a_batch_that_waits_for_another_ring() -> None:
    site = Mover()
    site.fill(5)
    site.write(1, 0, b"w" * BLOCK)
    prepared = site.commit.prepare()
    assert prepared is not None
    length = prepared.end.position - site.journal.head.position
    site.journal.write_ahead([prepared.content[:length]], prepared.end)
    site.move()
    site.journal.advance(prepared.end)
    site.journal.publish()
    assert recover(Journal.open(site.target, OWNER)).head == prepared.end


def _note(point: Pair) -> PeerNote:
    at = (point.position, point.digest)
    return PeerNote(b"b" * 16, 2, at, at)


def test_move_to_a_ring_too_small_or_a_device_in_use_is_refused_and_nothing_changes() -> None:
    site = Mover()
    site.fill(5)
    page = site.journal.page
    small = SimJournalDevice(site.machine, "small", RING_AT + 4 * site.journal.body.batch_bound)
    with pytest.raises(DeviceUnusable, match="every ring has at least"):
        move_journal(site.journal, small, site.random.randbytes)
    site.target.content[0] = 1
    with pytest.raises(NotBlank, match="no unfinished move"):
        site.move()
    assert site.journal.page is page
    site.fill(5)


def test_move_crash_at_every_operation_leaves_one_journal_with_everything() -> None:
    """One of the two devices is the journal, and it holds all that was durable."""
    counted = Mover()
    counted.fill(12)
    before = counted.machine.operations
    counted.move()
    operations = counted.machine.operations - before
    rng = random.Random(3)
    outcomes = set()
    for at in range(1, operations + 1):
        for phase in ("before", "middle", "after"):
            for _ in range(wanted("TOWLINE_MOVE_CRASHES", 2)):
                site = Mover()
                site.fill(12)
                head = site.journal.head
                site.machine.crash_at = site.machine.operations + at
                site.machine.crash_phase = phase
                with pytest.raises(SimulatedCrash):
                    site.move()
                site.machine.lose_power() if rng.random() < 0.7 else site.machine.kill()
                outcomes.add(_after_a_crash(site, head))
                count("journal move crashes")
    assert outcomes == {"old", "new"}


def _after_a_crash(site: Mover, head: Point) -> str:
    """Open what a start opens; return which journal that was."""
    moved = read_statement(site.device).newer.body.moved_to is not None
    device = site.target if moved else site.device
    journal = Journal.open(device, OWNER)
    recovered = recover(journal)
    assert recovered.head == head
    restore = Restore(journal, site.volumes)
    while restore.step(0.0):
        pass
    assert restore.applied == head
    if not moved:  # the move can be made again, over what the first try left
        journal.device = MovableDevice(device)
        move_journal(journal, site.target, random.Random(8).randbytes)
        assert recover(Journal.open(site.target, OWNER)).head == head
    return "new" if moved else "old"


def test_move_is_followed_by_a_reader_and_a_foreign_journal_is_not() -> None:
    site = Mover()
    reader = Secondary(site)
    pull = Pull(reader.journal, reader.peer, FixedInterval(seconds=0.0), site.clock)
    site.fill(10)
    site.journal.publish()
    assert pull.step(1.0) is not None
    site.move()
    site.fill(10)
    site.journal.publish()
    with pytest.raises(DeviceFailed, match="has moved its journal"):
        pull.step(2.0)
    old, site.device = site.device, site.target  # the new one takes the old one's place
    assert pull.step(3.0) is not None
    while (report := pull.step(4.0)) is not None and report.bytes:
        pass
    assert reader.journal.head == site.journal.head
    site.device = old
    with pytest.raises(DeviceFailed, match="has moved its journal"):
        pull.step(5.0)
    stranger = Primary()
    site.device = stranger.device
    with pytest.raises(PeerRefused):
        pull.step(6.0)


def test_move_at_a_secondary_keeps_what_it_received() -> None:
    source = Primary()
    reader = Secondary(source)
    reader.journal.device = MovableDevice(reader.device)
    pull = Pull(reader.journal, reader.peer, FixedInterval(seconds=0.0), source.clock)
    for number in range(12):
        source.write(1, number % 8 * BLOCK, bytes([number + 1]) * BLOCK)
        while source.commit.step(0.0):
            pass
    source.journal.publish()
    assert pull.step(1.0) is not None
    target = SimJournalDevice(reader.machine, "next", RING_AT + 2 * RING)
    move_journal(reader.journal, target, random.Random(1).randbytes)
    head = reader.journal.head
    again = Journal.open(target, Owner("orders", "b", BOOT, ("a",)))
    assert recover(again).head == head
    assert again.catalog == source.journal.catalog


def test_held_device_tells_a_replaced_journal() -> None:
    info = "Status: ACTIVATED\n        iBlock device: dm-3  UDEV PATH: /dev/vg/j  readonly: 0\n"
    assert held_device(info, "/dev/vg/j", "/dev/dm-3") == "/dev/vg/j"
    assert held_device(info, "/dev/vg/j", "/dev/dm-7") == "dm-3 (no longer /dev/vg/j)"
    assert held_device("nothing", "/dev/vg/j", "/dev/dm-7") == "/dev/vg/j"
