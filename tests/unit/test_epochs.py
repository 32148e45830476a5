"""A group's history with several epochs: who follows whom, and what stands beyond a fork."""

from __future__ import annotations

import msgspec
import pytest

from replicator.codec.batch import LOG_START, Context, batch_length, build_batch
from replicator.codec.history import Comparison, Epoch, History, Relation, encode_epoch
from replicator.codec.records import RecordKind
from replicator.codec.topology import FixedInterval
from replicator.errors import Overtaken, PeerRefused, SplitBrain, WentOn
from replicator.journal.journal import Journal, Owner
from replicator.journal.meeting import meet, step_down
from replicator.journal.peer import Peer
from replicator.journal.recovery import recover
from replicator.model import NO_DIGEST, ORIGIN, Pair
from replicator.movers.pull import Pull
from replicator.movers.restore import Restore
from tests.fakes.group_on_sim import BOOT, Primary, Secondary
from tests.sim.views import PeerView

EVERY_SECOND = FixedInterval(seconds=1.0)


def epoch(number: int, fork: int, site: str = "a", name: str = "") -> Epoch:
    return Epoch((name or str(number)).encode().ljust(16, b"."), number, fork, NO_DIGEST, site)


FIRST = epoch(1, 0)


@pytest.mark.parametrize(
    ("own", "theirs", "expected"),
    [
        ([FIRST], [FIRST], Comparison(Relation.SAME, None)),
        ([FIRST], [FIRST, epoch(2, 80)], Comparison(Relation.NEWER, Pair(80, NO_DIGEST))),
        (
            [FIRST],
            [FIRST, epoch(2, 80), epoch(3, 160)],
            Comparison(Relation.NEWER, Pair(80, NO_DIGEST)),
        ),
        ([FIRST, epoch(2, 80)], [FIRST], Comparison(Relation.OLDER, Pair(80, NO_DIGEST))),
        (
            [FIRST, epoch(2, 80, name="b")],
            [FIRST, epoch(2, 40, name="c"), epoch(3, 200, name="c")],
            Comparison(Relation.UNRELATED, Pair(40, NO_DIGEST)),
        ),
        ([FIRST], [epoch(1, 0, name="x")], Comparison(Relation.UNRELATED, ORIGIN)),
    ],
)
def test_history_compare_finds_relation_and_fork(
    own: list[Epoch], theirs: list[Epoch], expected: Comparison
) -> None:
    assert History(tuple(own)).compare(History(tuple(theirs))) == expected


def test_history_of_the_first_version_is_read_and_has_no_upstreams() -> None:
    old = msgspec.msgpack.encode([b"i" * 16, 1, 0, NO_DIGEST, "a"])
    assert msgspec.msgpack.decode(old, type=Epoch) == Epoch(b"i" * 16, 1, 0, NO_DIGEST, "a")


def begin_epoch(journal: Journal, name: str) -> Epoch:
    """Let a site begin an epoch at its head, as a promotion does."""
    history, head = journal.catalog.history, journal.head
    new = Epoch(
        name.encode().ljust(16, b"."),
        history.last.number + 1,
        head.position,
        head.digest,
        journal.owner.site,
        old_time_ns=head.time_ns,
    )
    payload = encode_epoch(new)
    context = Context(journal.catalog.group_id, new.id, head, head.time_ns, head.position)
    batch = memoryview(bytearray(batch_length(1, len(payload))))
    end = build_batch(context, [(RecordKind.EPOCH, 0, 0, len(payload), [payload])], batch)
    journal.begin_epoch(batch, end, History((*history.epochs, new)))
    return new


class Both:
    """Site a, primary of epoch 1, and b, which follows; each reads the other."""

    def __init__(self) -> None:
        self.a = Primary()
        self.b = Secondary(self.a)
        self.pull = Pull(self.b.journal, self.b.peer, EVERY_SECOND, self.a.clock)
        self.b_seen_from_a = Peer(
            "b", PeerView(lambda: self.b.device, lambda: True), self.a.journal
        )

    def commit(self, count: int) -> None:
        for index in range(count):
            self.a.write(1, (index % 16) * 4096, bytes([index % 251]) * 4096)
            assert self.a.commit.step(0.0)
        self.a.journal.publish()

    def follow(self) -> None:
        self.pull.due_at = 0.0
        self.pull.step(self.a.clock.monotonic())


@pytest.fixture
def two() -> Both:
    pair = Both()
    pair.commit(4)
    pair.follow()
    assert pair.b.journal.head == pair.a.journal.head != LOG_START
    return pair


def test_begin_epoch_a_crash_before_the_entry_leaves_a_secondary_as_it_was(two: Both) -> None:
    before = two.b.journal.head
    two.b.machine.crash_at = two.b.machine.operations + 3  # batch, flush, then the catalog
    two.b.machine.crash_phase = "before"
    with pytest.raises(BaseException, match="b"):
        begin_epoch(two.b.journal, "b2")
    two.b.machine.lose_power()
    two.b.open(two.a)
    assert two.b.journal.head == before
    assert two.b.journal.body.role == "secondary"
    assert two.b.journal.catalog.history.last.number == 1
    two.commit(1)
    two.pull = Pull(two.b.journal, two.b.peer, EVERY_SECOND, two.a.clock)
    two.follow()  # over the bytes of the epoch that never began
    assert two.b.journal.head == two.a.journal.head


def test_begin_epoch_is_durable_and_its_site_recovers_as_primary(two: Both) -> None:
    new = begin_epoch(two.b.journal, "b2")
    head = two.b.journal.head
    two.b.machine.lose_power()
    journal = Journal.open(two.b.device, Owner("orders", "b", BOOT, ("a",)))
    recover(journal)
    assert journal.head == head
    assert (journal.body.role, journal.body.upstream) == ("primary", None)
    assert journal.catalog.history.last == new


def test_meet_a_primary_that_was_replaced_serves_no_more_and_follows(two: Both) -> None:
    begin_epoch(two.b.journal, "b2")
    two.b_seen_from_a.look()
    with pytest.raises(WentOn, match="epoch 2, begun by b"):
        meet(two.a.journal, two.b_seen_from_a)
    step_down(two.a.journal, two.b_seen_from_a)
    assert (two.a.journal.body.role, two.a.journal.body.upstream) == ("secondary", "b")
    assert two.a.journal.catalog.history.last.number == 2
    back = Pull(two.a.journal, two.b_seen_from_a, EVERY_SECOND, two.a.clock)
    back.step(0.0)
    assert two.a.journal.head == two.b.journal.head
    restore = Restore(two.a.journal, two.a.volumes)
    while restore.step(0.0):
        pass
    assert restore.applied == two.b.journal.head


def test_meet_beyond_the_fork_nothing_is_followed_or_thrown_away(two: Both) -> None:
    fork = two.b.journal.head
    begin_epoch(two.b.journal, "b2")
    two.commit(2)
    head, old = two.a.journal.head, two.a.journal.catalog.history
    two.b_seen_from_a.look()
    step_down(two.a.journal, two.b_seen_from_a)
    assert two.a.journal.body.role == "secondary"
    beyond = head.position - fork.position
    with pytest.raises(Overtaken, match=f"holds {beyond} bytes beyond it"):
        meet(two.a.journal, two.b_seen_from_a)
    assert (two.a.journal.head, two.a.journal.catalog.history) == (head, old)
    two.a.machine.lose_power()
    journal = Journal.open(two.a.device, Owner("orders", "a", BOOT, ("b",)))
    recover(journal)
    assert journal.head == head


def test_meet_both_went_on_is_split_brain_with_the_exact_fork(two: Both) -> None:
    fork = two.b.journal.head
    begin_epoch(two.b.journal, "b2")
    begin_epoch(two.a.journal, "a2")
    two.b_seen_from_a.look()
    with pytest.raises(SplitBrain, match=f"alone from position {fork.position}"):
        meet(two.a.journal, two.b_seen_from_a)


def test_meet_a_source_in_an_older_epoch_is_not_read(two: Both) -> None:
    begin_epoch(two.b.journal, "b2")
    two.commit(1)
    with pytest.raises(PeerRefused, match="until it has followed"):
        two.follow()


def test_received_of_an_older_epoch_counts_up_to_the_fork(two: Both) -> None:
    fork = two.b.journal.head
    two.commit(2)
    two.a.journal.publish()  # the older copy of its page counts
    two.b.peer.look()
    beyond = two.b.journal.peers["a"].received[0]
    assert beyond > fork.position
    begin_epoch(two.b.journal, "b2")
    assert two.b.journal._received() == [fork.position]
    two.b.peer.look()  # a has not heard of it and holds more: no alarm, and no more is counted
    assert two.b.journal.peers["a"].received[0] == fork.position
