"""Intervals at the third site of a bunker and of a near site with data (claims 18-24, 30-36).

The primary writes b's ring over a sync link; c pulls from b, and what it knows of a filling source
is b's own page.
"""

from __future__ import annotations

import pytest

from replicator.codec.topology import AdaptiveInterval, PullInput
from replicator.movers.interval import OWN_FULL, SOURCE_FULL
from replicator.movers.pull import Pull, PullReport
from replicator.status import used_bytes
from tests.sim import actions
from tests.sim.convergence import converge
from tests.sim.plans import BUNKER, SYNC, Plan
from tests.sim.site import Stack
from tests.sim.world import World

BOTH = pytest.mark.parametrize("plan", [BUNKER, SYNC], ids=lambda plan: plan.name)
LONGEST = 10.0
SMALL_NEAR = 5
"""A seed whose rings are 40, 32 and 64 blocks: b's fills first."""
SMALL_THIRD = 11
"""A seed whose rings are 96, 96 and 64 blocks: c's fills first."""


class Third:
    """A group with a near site, converged; and a puller of c under one policy."""

    def __init__(
        self, plan: Plan, *inputs: PullInput, traffic_limit: float = 1e9, seed: int = SMALL_NEAR
    ) -> None:
        self.world = World(seed, plan=plan, calm=True)
        converge(self.world)
        self.a, self.b, self.c = (self.stack(name) for name in "abc")
        self.load = 0.0
        self.policy = AdaptiveInterval(
            inputs=inputs,
            min_seconds=0.1,
            max_seconds=LONGEST,
            traffic_limit=traffic_limit if "traffic" in inputs else None,
        )
        self.pull = Pull(
            self.c.journal, self.c.peers["b"], self.policy, self.c.clock, load=lambda: self.load
        )
        self.pulled()

    def stack(self, name: str) -> Stack:
        stack = self.world.sites[name].stack
        assert stack is not None
        return stack

    def write(self, most: int = 1000) -> int:
        """Let hosts write up to ``most`` batches, as many as fit; b sees them and says so."""
        assert self.a.commit is not None
        batches = stuck = 0
        while batches < most and stuck < 3:
            head = self.a.journal.head.position
            if not self.world.host.outstanding:
                self.a.commit.submit(self.world.host.ask(2))
            actions.tend_link(self.world, self.a)
            actions.journal_batch(self.world, self.a)
            while self.a.in_flight:
                actions.apply_batch(self.world, self.a)
            if self.a.journal.head.position > head:
                batches, stuck = batches + 1, 0
            else:  # until b and c have said what they have, there is no room
                actions.checkpoint(self.world, self.a)
                self.publish()
                stuck += 1
        self.publish()
        return batches

    def publish(self) -> None:
        """Let b follow its writer, restore if it has data, and publish twice."""
        for _ in range(20):
            actions.follow_writer(self.world, self.b)
            actions.restore(self.world, self.b)
        for _ in range(2):
            self.b.checkpoint.run(self.world.now)
            self.b.peers["c"].look()
            self.a.peers["c"].look()

    def pulled(self, seconds: float = 20.0) -> PullReport:
        """Pull, some time after the last one."""
        self.world.now += seconds
        report = self.pull.step(self.world.now)
        assert report is not None
        assert report.source == "b"
        return report


@BOTH
def test_near_interval_follows_the_records_that_a_pull_brings(plan: Plan) -> None:
    third = Third(plan, "records")
    idle = third.pulled().decision
    assert idle.winner == "records"
    longer = third.pulled().decision
    assert longer.seconds == 2 * idle.seconds
    third.write(2)
    few = third.pulled()
    assert 0 < few.records < 128
    assert few.decision.proposals["records"] == min(LONGEST, 2 * longer.seconds)


@BOTH
def test_near_interval_follows_the_traffic_between_near_and_third_site(plan: Plan) -> None:
    third = Third(plan, "traffic", traffic_limit=20_000.0)
    quiet = third.pulled()
    third.write()
    busy = third.pulled()
    assert busy.measured.traffic > quiet.measured.traffic
    assert busy.decision.winner in ("traffic", "traffic limit")
    assert busy.decision.seconds > quiet.decision.seconds


@BOTH
def test_near_interval_follows_the_space_in_the_third_sites_journal(plan: Plan) -> None:
    third = Third(plan, "capacity", seed=SMALL_THIRD)
    seconds = [third.pulled().decision.seconds]
    assert seconds == [pytest.approx(0.1)]
    for _ in range(60):  # c restores nothing
        third.write(1)
        report = third.pulled()
        seconds.append(report.decision.seconds)
        if report.decision.winner == OWN_FULL:
            break
    assert report.decision.winner == OWN_FULL
    assert seconds == sorted(seconds)
    assert report.measured.used > 0.8


@BOTH
def test_near_interval_follows_the_load_of_the_third_site(plan: Plan) -> None:
    third = Third(plan, "load")
    assert third.pulled().decision.seconds == pytest.approx(0.1)
    third.load = 0.7
    assert third.pulled().decision.seconds == LONGEST


@BOTH
def test_near_interval_follows_the_fill_that_the_near_site_publishes(plan: Plan) -> None:
    """Management information: b's own page says how much of b's journal is needed."""
    third = Third(plan, "source")
    relaxed = third.pulled()
    third.write()
    pressed = third.pulled()
    body = third.c.peers["b"].statement
    assert body is not None
    page = body.newer.body
    assert page.site == "b"
    assert pressed.measured.source == used_bytes(page, ["a", "c"]) / page.ring_size
    assert pressed.measured.source > relaxed.measured.source
    assert pressed.decision.seconds < relaxed.decision.seconds


@BOTH
def test_near_interval_a_nearly_full_near_site_wins_over_the_load(plan: Plan) -> None:
    third = Third(plan, "records", "load", "capacity", "source")
    third.load = 1.0
    assert third.pulled().decision.winner == "load"
    third.write()
    report = third.pulled()
    assert report.measured.source >= 0.8
    assert report.decision.winner == SOURCE_FULL
    assert report.decision.seconds <= 0.1
