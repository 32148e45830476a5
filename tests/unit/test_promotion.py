"""Promotion on simulated devices: every step again after a crash, and who stands in the way."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from replicator.codec.topology import FixedInterval
from replicator.errors import Refused
from replicator.group.promotion import UNCONFIRMED, Order, Promotion, Step
from replicator.journal.journal import FENCED, INCONSISTENT
from replicator.journal.meeting import step_down
from replicator.journal.peer import Peer
from replicator.movers.checkpoint import Checkpoint
from replicator.movers.pull import Pull
from replicator.movers.restore import Restore
from replicator.seams.volume import DataVolume
from tests.fakes.group_on_sim import VOLUMES, Primary, Secondary
from tests.sim.devices import SimulatedCrash, SimVolumeDevice
from tests.sim.views import PeerView


class Two:
    """Site a serves; b follows and has volumes."""

    def __init__(self) -> None:
        self.a = Primary()
        self.a.journal.restate(lambda body: replace(body, active_on=b"boot of a......."))
        self.b = Secondary(self.a)
        for entry in VOLUMES:
            SimVolumeDevice(self.b.machine, entry.name, entry.size_bytes)
        self.reachable = True
        self.a_sees_b = Peer("b", PeerView(lambda: self.b.device, lambda: True), self.a.journal)
        self.start_b()

    def start_b(self) -> None:
        """Start b again on what its devices hold."""
        self.b.open(self.a)
        self.b.reachable = self.reachable
        self.volumes = {
            entry.id: DataVolume(entry.id, entry.name, entry.size_bytes, self.b.machine[entry.name])
            for entry in VOLUMES
        }
        self.restore = Restore(self.b.journal, self.volumes)
        self.checkpoint = Checkpoint(self.b.journal, self.volumes, lambda: self.restore.applied)

    def write(self, count: int, *, publish: bool = True) -> None:
        for index in range(count):
            self.a.write(1, (index % 16) * 4096, bytes([index % 251 + 1]) * 4096)
            assert self.a.commit.step(0.0)
        if publish:
            self.a.journal.publish()

    def follow(self) -> None:
        Pull(self.b.journal, self.b.peer, FixedInterval(seconds=0.0), self.a.clock).step(0.0)

    def promotion(self, *without: str) -> Promotion:
        return Promotion(
            self.b.journal,
            {"a": self.b.peer},
            self.restore,
            self.checkpoint.run,
            self.a.clock,
            random.Random(7).randbytes,
            Order(without, "by a test"),
        )

    def promote(self, *without: str) -> Promotion:
        promotion = self.promotion(*without)
        while promotion.step(0.0) is not Step.DONE:
            pass
        return promotion

    def same_volumes(self) -> bool:
        def content(volumes: dict[int, DataVolume]) -> list[bytes]:
            return [bytes(v.device.content) for v in volumes.values()]  # type: ignore[attr-defined]

        return content(self.a.volumes) == content(self.volumes)


def hand_over(two: Two) -> None:
    two.a.journal.retire("b")


@pytest.fixture
def two() -> Two:
    two = Two()
    two.write(6)
    two.follow()
    two.write(3)
    return two


def test_promotion_after_a_handover_loses_nothing_and_holds_no_host(two: Two) -> None:
    hand_over(two)
    promotion = two.promote()
    body = two.b.journal.body
    assert promotion.drained.records == 3
    assert promotion.drained.nothing_lost
    assert (body.role, body.intent, body.marks) == ("primary", None, {})
    assert body.active_on == two.b.journal.owner.boot_id
    assert two.b.journal.catalog.history.last.forced is False
    assert dict(two.b.journal.catalog.history.last.upstreams) == {"a": "b"}
    assert two.same_volumes()


def test_promotion_while_the_primary_serves_is_refused_and_leaves_nothing(two: Two) -> None:
    with pytest.raises(Refused, match="site a serves hosts"):
        two.promote()
    assert two.b.journal.body.intent is None
    assert two.b.journal.catalog.history.last.number == 1
    two.follow()
    assert two.b.journal.head == two.a.journal.head


def test_promotion_with_an_unreadable_site_needs_force(two: Two) -> None:
    two.reachable = False
    two.start_b()
    with pytest.raises(Refused, match="cannot be read"):
        two.promote()
    two.promote("a")
    body = two.b.journal.body
    assert body.role == "primary"
    assert UNCONFIRMED in body.marks
    assert two.b.journal.catalog.history.last.forced


def test_promotion_forced_takes_the_valid_tail_of_a_dead_primary(two: Two) -> None:
    two.write(2, publish=False)
    promotion = two.promote("a")
    assert promotion.drained.tail_bytes > 0
    assert promotion.drained.records == 5
    assert two.same_volumes()
    assert UNCONFIRMED in two.b.journal.body.marks, "vouched for is not fenced"


def test_promotion_of_a_durably_fenced_primary_is_unforced_and_loses_nothing(two: Two) -> None:
    two.a.journal.publish(mark={FENCED: "by a test"})
    with pytest.raises(Refused, match="serves hosts"):
        two.promote()  # the mark is in one copy only
    two.a.journal.publish()
    promotion = two.promote()
    assert promotion.drained.nothing_lost
    assert UNCONFIRMED not in two.b.journal.body.marks
    assert two.same_volumes()


def test_promotion_sees_the_intent_of_another_site(two: Two) -> None:
    hand_over(two)
    intent = two.promotion()
    intent.step(0.0)
    published = two.b.journal.body.intent
    two.a.journal.restate(lambda body: replace(body, intent=published))
    with pytest.raises(Refused, match="is being promoted"):
        intent.step(0.0)
    assert two.b.journal.body.intent is None


def test_promotion_of_the_primary_or_an_inconsistent_site_is_refused(two: Two) -> None:
    two.b.journal.publish(mark={INCONSISTENT: "a test"})
    with pytest.raises(Refused, match="inconsistent"):
        two.promotion()
    two.b.journal.publish(unmark={INCONSISTENT})
    hand_over(two)
    two.promote()
    with pytest.raises(Refused, match="primary already"):
        two.promotion()


def test_promotion_second_look_holds_a_site_that_has_begun_its_epoch(two: Two) -> None:
    hand_over(two)
    promotion = two.promotion()
    while promotion.next is not Step.SECOND_LOOK:
        promotion.step(0.0)
    two.b.reachable = False
    with pytest.raises(Refused, match="answers nobody yet"):
        promotion.step(0.0)
    assert two.b.journal.body.active_on == b""
    two.b.reachable = True
    while promotion.step(0.0) is not Step.DONE:
        pass
    assert two.b.journal.body.active_on


def _crashing(two: Two, at: int, phase: str, crash: Callable[[], None]) -> bool:
    """Promote with a crash at operation ``at``; False if the promotion ended before."""
    machine = two.b.machine
    machine.crash_at, machine.crash_phase = machine.operations + at, phase
    try:
        two.promote()
    except SimulatedCrash:
        crash()
        return True
    machine.crash_at = None
    return False


@pytest.mark.parametrize("phase", ["before", "middle", "after"])
def test_promotion_with_a_crash_at_every_operation_is_taken_up_again(phase: str) -> None:
    at, crashes = 1, 0
    while True:
        two = Two()
        two.write(6)
        two.follow()
        two.write(3)
        hand_over(two)
        machine = two.b.machine
        lose = machine.lose_power if at % 2 else machine.kill
        crashed = _crashing(two, at, phase, lose)
        if not crashed:
            break
        crashes += 1
        machine.crash_at = None
        two.start_b()
        body = two.b.journal.body
        begun = two.b.journal.catalog.history.last.number == 2
        assert begun == (body.role == "primary")
        if body.role == "secondary" or body.intent is not None:
            while two.restore.step(0.0):
                pass
            two.promote()
        while two.restore.step(0.0):
            pass
        assert two.b.journal.catalog.history.last.number == 2
        assert two.b.journal.body.active_on == two.b.journal.owner.boot_id
        assert UNCONFIRMED not in two.b.journal.body.marks
        assert two.same_volumes()
        two.a_sees_b.look()
        back = Pull(two.a.journal, two.a_sees_b, FixedInterval(seconds=0.0), two.a.clock)
        back.step(0.0)
        assert two.a.journal.head == two.b.journal.head
        at += 1
    assert crashes > 10


def test_promotion_zombie_primary_steps_down_beyond_the_fork(two: Two) -> None:
    two.promote("a")
    two.write(2)
    two.a_sees_b.look()
    step_down(two.a.journal, two.a_sees_b)
    assert two.a.journal.body.role == "secondary"
    assert two.a.journal.catalog.history.last.number == 1
