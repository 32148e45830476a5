"""A primary with a sync link to a near site, on simulated devices, for tests of single parts."""

from __future__ import annotations

import random

from replicator.codec.topology import Link
from replicator.journal.format import NewJournal, format_journal
from replicator.journal.journal import Journal, Owner
from replicator.journal.leg import Leg
from replicator.journal.peer import Peer
from replicator.journal.recovery import recover
from replicator.movers.commit import Commit
from replicator.movers.near import Near
from replicator.movers.sync_link import LegCaller, SyncLink
from tests.fakes.group_on_sim import BOOT, RING, Primary, plain_buffer
from tests.sim.devices import Machine, SimJournalDevice
from tests.sim.leg_calls import InlineCalls
from tests.sim.views import LegView, PeerView


class SyncPair(Primary):
    """Site a, whose batches go to near site b (no data) as well."""

    def __init__(self, policy: Link = "sync-or-stop", calls: LegCaller | None = None) -> None:
        super().__init__()
        self.reachable = True
        self.generation = 0
        self.near_machine = Machine("b", seed=2)
        self.near_device = SimJournalDevice(self.near_machine, "journal", (1 << 20) + RING)
        counter = iter(range(1, 256))
        format_journal(
            self.near_device,
            NewJournal("orders", "b", "a", RING, writer="a"),
            lambda size: bytes([2, next(counter)]) + bytes(size - 2),
            BOOT,
        )
        self.near_journal = Journal.open(self.near_device, Owner("orders", "b", BOOT, ("a",)))
        recover(self.near_journal)
        source = PeerView(lambda: self.device, lambda: self.reachable)
        self.near = Near(self.near_journal, Peer("a", source, self.near_journal))
        self.leg_view = LegView(
            lambda: self.near_device,
            lambda: self.reachable,
            lambda: None,
            lambda: (self.near_machine.power_losses, self.generation),
            random.Random(1),
        )
        self.leg_view.writer = self.machine
        near_view = PeerView(lambda: self.near_device, lambda: self.reachable)
        self.leg = Leg("b", self.leg_view, self.journal)
        self.link = SyncLink(
            self.journal,
            self.leg,
            Peer("b", near_view, self.journal),
            policy,
            calls or InlineCalls(random.Random(1), lambda: 0.0),
            self.clock.monotonic,
            detection_seconds=0.2,
        )
        self.commit = Commit(self.journal, self.volumes, self.clock, plain_buffer, self.link)

    def in_sync(self) -> SyncPair:
        """Let the near site meet its primary, and the link come up."""
        self.near.step(0.0)
        assert self.link.admit()
        return self
