"""Pull: verified batches, never above the source's limit (claims 1, 2, 7, 12)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from replicator.codec.topology import FixedInterval
from replicator.errors import DeviceFailed, JournalRotten, PeerRefused
from replicator.movers.checkpoint import Checkpoint
from replicator.movers.pull import Pull
from replicator.movers.read_ahead import at_once
from tests.fakes.group_on_sim import Primary, Secondary

EVERY_SECOND = FixedInterval(seconds=1.0)


class Both:
    """A primary, a secondary and its puller."""

    def __init__(self) -> None:
        self.a = Primary()
        self.b = Secondary(self.a)
        self.pull = Pull(self.b.journal, self.b.peer, EVERY_SECOND, self.a.clock)

    def commit(self, count: int) -> None:
        for index in range(count):
            self.a.write(1, (index % 16) * 4096, bytes([index % 251]) * 4096)
            assert self.a.commit.step(0.0)


@pytest.fixture
def both() -> Both:
    return Both()


def test_pull_stores_the_same_bytes_at_the_same_position(both: Both) -> None:
    both.commit(20)
    both.a.journal.publish()
    report = both.pull.step(0.0)
    assert report is not None
    assert report.records == 20
    assert both.b.journal.head == both.a.journal.head
    length = both.a.journal.head.position
    assert bytes(both.b.journal.ring.read(0, length)) == bytes(both.a.journal.ring.read(0, length))
    assert both.b.journal.body.head == both.a.journal.head, "published"
    assert both.b.journal.catalog == both.a.journal.catalog


def test_pull_comes_at_the_interval_that_the_secondary_decides(both: Both) -> None:
    both.commit(1)
    both.a.journal.publish()
    assert both.pull.step(10.0) is not None
    reads = both.b.reads
    assert both.pull.step(10.99) is None
    assert both.b.reads == reads, "nothing is read between two pulls"
    assert both.pull.step(11.0) is not None


def test_pull_beyond_the_page_takes_only_what_a_later_header_proves(both: Both) -> None:
    both.commit(5)
    both.a.journal.publish()
    both.pull.step(0.0)
    both.commit(4)
    report = both.pull.step(1.0)
    assert report is not None
    assert report.records == 3, "the last batch has nobody after it to say that it is durable"
    both.a.journal.publish()
    report = both.pull.step(2.0)
    assert report is not None
    assert report.records == 1


def test_pull_source_whose_process_is_dead_is_still_drained(both: Both) -> None:
    both.commit(3)
    both.a.journal.publish()
    both.commit(1)
    both.a.machine.kill()
    report = both.pull.step(0.0)
    assert report is not None
    assert report.records >= 3


def test_pull_idle_source_costs_one_page_read_and_no_write(both: Both) -> None:
    both.commit(3)
    both.a.journal.publish()
    both.pull.step(0.0)
    operations, reads = both.b.machine.operations, both.b.reads
    report = both.pull.step(1.0)
    assert report is not None
    assert (report.records, report.bytes) == (0, 0)
    assert both.b.machine.operations == operations
    assert both.b.reads - reads <= 2, "the page, and one block to see whether more is there"


def test_pull_rot_at_the_source_is_named_and_nothing_of_it_stored(both: Both) -> None:
    both.commit(6)
    both.a.journal.publish()
    begin = 3 * 8192
    offset = both.a.journal.ring.place.offset + begin
    both.a.device.flip(offset + 5000)
    report = both.pull.step(0.0)
    assert report is None or report.head.position == begin
    with pytest.raises(JournalRotten, match=f"device offset {offset} "):
        both.pull.step(100.0)
    assert both.b.journal.head.position == begin


def test_pull_unreachable_source_is_tried_again_and_goes_on(both: Both) -> None:
    both.commit(2)
    both.a.journal.publish()
    both.b.reachable = False
    with pytest.raises(DeviceFailed, match="no connection"):
        both.pull.step(0.0)
    both.b.reachable = True
    assert both.pull.step(0.5) is None, "the next try has its own time"
    report = both.pull.step(1.0)
    assert report is not None
    assert report.records == 2


def test_pull_journal_of_another_group_is_refused(both: Both) -> None:
    both.commit(1)
    both.a.journal.publish()
    both.pull.step(0.0)
    stranger = Primary()
    stranger.journal.publish()
    stranger_page = bytes(stranger.device.read(0, 8192))
    both.a.device.write(0, stranger_page.replace(b"orders", b"orderz"))
    with pytest.raises(PeerRefused, match="no valid journal page"):
        both.pull.step(1.0)


def test_pull_own_ring_full_takes_what_fits_and_waits_for_restore(both: Both) -> None:
    applied = both.b.journal.restored
    checkpoint = Checkpoint(both.b.journal, {}, lambda: applied, checkpoint_seconds=0)
    size = both.b.journal.ring.place.size
    for now in range(400):
        both.a.write(1, 0, bytes([now % 251]) * 16384)
        both.a.commit.step(0.0)
        both.a.journal.publish(restored=both.a.commit.applied)
        both.b.peer.look()
        both.pull.step(float(now))
        note = both.a.journal.peers.get("b")
        assert note is None
        if both.b.journal.free_bytes < 20480:
            break
    assert both.b.journal.head.position <= size
    full_at = both.b.journal.head
    applied = full_at
    checkpoint.run(0.0)
    assert both.b.journal.free_bytes > size // 4
    assert both.b.journal.restored == full_at


def _ahead_pull(both: Both) -> Pull:
    """A puller that takes about two batches a time and reads ahead at the earliest moment."""
    return Pull(both.b.journal, both.b.peer, EVERY_SECOND, both.a.clock, 5 * 4096, ahead=at_once)


def test_pull_reads_ahead_what_the_next_pull_stores(both: Both) -> None:
    both.commit(9)
    both.a.journal.publish()
    pull = _ahead_pull(both)
    first = pull.step(0.0)
    assert first is not None and first.records == 2
    both.a.device.flip(both.a.journal.ring.place.offset + 2 * 8192 + 5000)
    second = pull.step(1.0)
    assert second is not None and second.records == 2, "it was read before it was damaged"
    while both.b.journal.head != both.a.journal.head:
        pull.due_at = 0.0
        assert pull.step(2.0) is not None


def test_pull_bytes_read_ahead_that_are_damaged_are_read_again(both: Both) -> None:
    both.commit(6)
    both.a.journal.publish()
    pull = _ahead_pull(both)
    offset = both.a.journal.ring.place.offset + 2 * 8192 + 5000
    both.a.device.flip(offset)
    first = pull.step(0.0)
    assert first is not None and first.records == 2
    both.a.device.flip(offset)  # it was the link, or a cache: now the same place reads well
    second = pull.step(1.0)
    assert second is not None and second.records == 2


def test_pull_link_cut_while_reading_ahead_is_seen_by_the_next_pull(both: Both) -> None:
    both.commit(6)
    both.a.journal.publish()
    starts: list[Callable[[], None]] = []

    def late(work: Callable[[], None]) -> Callable[[], None]:
        starts.append(work)
        return work

    pull = Pull(both.b.journal, both.b.peer, EVERY_SECOND, both.a.clock, 5 * 4096, ahead=late)
    assert pull.step(0.0) is not None
    assert len(starts) == 1
    both.b.reachable = False
    with pytest.raises(DeviceFailed, match="no connection"):
        pull.step(1.0)
    both.b.reachable = True
    report = pull.step(2.0)
    assert report is not None and report.records == 2
