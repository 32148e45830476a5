"""What a pull measures for its decision (claims 3-6, 8, 11), on simulated devices."""

from __future__ import annotations

import itertools

import pytest

from replicator.codec.topology import AdaptiveInterval, PullInput
from replicator.journal.peer import Peer
from replicator.movers.checkpoint import Checkpoint
from replicator.movers.pull import Pull, PullReport
from replicator.movers.traffic import BURST_SECONDS, TrafficAllowance
from tests.fakes.group_on_sim import RING, Primary, Secondary
from tests.sim.views import PeerView

LIMIT = 40_960.0
"""Bytes a second: five of these tests' batches."""


class Both:
    """A primary, a secondary and its puller under one policy; time is what ``at`` says."""

    def __init__(self, *inputs: PullInput, **policy: object) -> None:
        self.a = Primary()
        self.b = Secondary(self.a)
        self.load = 0.0
        fields: dict[str, object] = {"min_seconds": 0.1, "max_seconds": 10.0}
        fields["traffic_limit"] = LIMIT if "traffic" in inputs else None
        self.policy = AdaptiveInterval(inputs=inputs, **(fields | policy))  # type: ignore[arg-type]
        self.pull = Pull(
            self.b.journal, self.b.peer, self.policy, self.a.clock, load=lambda: self.load
        )

    def commit(self, count: int, length: int = 4096) -> None:
        for index in range(count):
            self.a.write(1, (index % 8) * length, bytes([index % 251]) * length)
            assert self.a.commit.step(0.0)
        self.a.journal.publish(restored=self.a.commit.applied)

    def tell_a(self) -> None:
        """Let a learn what b has received, and say so in both copies of its page."""
        for _ in range(2):  # what counts is b's older copy (model m10)
            self.b.journal.publish()
        Peer("b", PeerView(lambda: self.b.device, lambda: True), self.a.journal).look()
        for _ in range(2):
            self.a.journal.publish(restored=self.a.commit.applied)

    def at(self, now: float) -> PullReport | None:
        self.a.clock.seconds = now
        return self.pull.step(now)

    def pulled(self, now: float) -> PullReport:
        report = self.at(now)
        assert report is not None
        return report


def test_pull_measures_the_bytes_that_cross_the_link() -> None:
    both = Both("traffic", traffic_limit=1e9)
    both.pulled(0.0)
    both.commit(10)
    report = both.pulled(2.0)
    assert report.measured.elapsed_seconds == 2.0
    crossed = report.measured.traffic * 2.0
    assert report.bytes + 8192 <= crossed <= report.bytes + 8192 + 4096, "ring, page, one header"


def test_pull_under_a_traffic_limit_keeps_it_and_catches_up() -> None:
    both = Both("records", "traffic")
    both.commit(100)
    now, moments = 0.0, []
    while both.b.journal.head.position < both.a.journal.head.position:
        before = both.b.peer.read_bytes
        report = both.at(now)
        if report is not None:
            moments.append((now, both.b.peer.read_bytes - before))
        now = both.pull.due_at
        assert now < 200.0
    batch = 8192 + 3 * 4096  # and the pages and headers around it
    for start, end in itertools.combinations(range(len(moments)), 2):
        span = moments[end][0] - moments[start][0]
        moved = sum(count for _, count in moments[start : end + 1])
        assert moved <= LIMIT * (span + BURST_SECONDS) + batch
    total = sum(count for _, count in moments)
    assert moments[-1][0] <= total / LIMIT + 2.0, "and it uses what the limit allows"


def test_pull_traffic_limit_below_one_batch_still_gets_on() -> None:
    both = Both("traffic", traffic_limit=8000.0)
    both.commit(3, length=16384)
    now = 0.0
    for _ in range(40):
        both.at(now)
        now = both.pull.due_at
    assert both.b.journal.head == both.a.journal.head


def test_pull_nearly_full_source_wins_over_the_traffic_limit() -> None:
    both = Both("traffic", "source")
    while both.a.journal.used_fraction < 0.85:
        both.commit(1, length=32768)
    first = both.pulled(0.0)
    assert first.measured.source > 0.8
    assert first.decision.winner == "source nearly full"
    assert first.bytes <= LIMIT + 36864
    second = both.pulled(first.decision.seconds)
    assert second.bytes > 10 * LIMIT


def test_pull_reads_the_fill_of_the_source_from_its_page() -> None:
    both = Both("source")
    both.commit(40, length=16384)
    needed = both.a.journal.head.position / RING
    assert both.pulled(0.0).measured.source == pytest.approx(needed)
    both.tell_a()
    assert both.pulled(10.0).measured.source == 0.0


def test_idle_source_tells_its_readers_what_others_have_received() -> None:
    both = Both("source")
    both.commit(60, length=16384)
    both.a.journal.publish(restored=both.a.commit.applied)
    both.pulled(0.0)
    checkpoint = Checkpoint(both.a.journal, {}, lambda: both.a.commit.applied)
    assert not checkpoint.step(5.0), "nobody wrote, and a has not looked at b"
    both.b.journal.publish()
    Peer("b", PeerView(lambda: both.b.device, lambda: True), both.a.journal).look()
    assert checkpoint.step(10.0), "nobody wrote, but b's share of the ring is free"
    assert not checkpoint.step(15.0), "told once"
    assert both.pulled(20.0).measured.source == 0.0


def test_pull_own_full_journal_waits_longest_until_there_is_room_again() -> None:
    both = Both("records", "capacity", "source")
    now = 0.0
    for _ in range(400):  # b receives and restores nothing, a goes on as far as it has room
        both.commit(1, length=32768)
        both.tell_a()
        report = both.at(now)
        if report is not None and report.decision.winner == "own journal full":
            break
        now = max(now, both.pull.due_at)
    assert report is not None
    assert report.decision.winner == "own journal full"
    assert report.decision.seconds == 10.0
    assert both.b.journal.free_bytes < RING // 8
    assert both.at(now + 1.0) is None
    restored = Checkpoint(both.b.journal, {}, lambda: both.b.journal.head, checkpoint_seconds=0)
    restored.run(now + 1.0)
    assert both.pull.has_room_again
    assert both.at(now + 1.5) is not None, "it does not wait for the interval's end"


def test_pull_asks_for_the_load_and_slows_down() -> None:
    both = Both("load")
    assert both.pulled(0.0).decision.seconds == pytest.approx(0.1)
    both.load = 0.7
    report = both.pulled(1.0)
    assert (report.measured.load, report.decision.seconds) == (0.7, 10.0)


def test_pull_target_rpo_shortens_the_interval_of_a_site_that_lags() -> None:
    both = Both(rpo_seconds=8.0)
    both.commit(1)
    assert both.pulled(0.0).decision.seconds == pytest.approx(4.0)
    head = both.a.journal.head
    late = head._replace(position=head.position + 8192, time_ns=head.time_ns + 6_000_000_000)
    behind = Pull(both.b.journal, both.b.peer, both.policy, both.a.clock, primary_head=lambda: late)
    report = behind.step(10.0)
    assert report is not None
    assert report.measured.lag_seconds == pytest.approx(6.0)
    assert (report.decision.seconds, report.decision.winner) == (pytest.approx(1.0), "rpo")


def test_allowance_earns_with_time_and_no_more_than_a_burst() -> None:
    allowance = TrafficAllowance(1000.0)
    assert allowance.left_bytes(5.0) == 1000
    allowance.spend(1500)
    assert allowance.left_bytes(5.0) == -500
    assert allowance.wait_seconds() == pytest.approx(0.6)
    assert allowance.left_bytes(5.7) >= 199
    assert allowance.left_bytes(99.0) == 1000


def test_allowance_excused_bytes_leave_no_debt() -> None:
    allowance = TrafficAllowance(1000.0)
    allowance.left_bytes(5.0)
    allowance.spend(90_000, excused=True)
    assert allowance.left_bytes(5.0) == 0
    assert allowance.wait_seconds() == pytest.approx(0.1)
