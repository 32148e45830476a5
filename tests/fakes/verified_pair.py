"""A primary that verifies and a secondary that judges, on simulated devices, without threads."""

from __future__ import annotations

from replicator.codec.page import PeerNote
from replicator.codec.topology import FixedInterval
from replicator.movers.pull import Pull
from replicator.movers.repair import Repair
from replicator.movers.restore import Restore
from replicator.movers.verify import Verify
from tests.fakes.group_on_sim import Primary, Secondary, blank_volumes
from tests.sim.devices import SimVolumeDevice

CHUNK = 8 << 10
FAST = 1e9


class VerifiedPair:
    """Sites a and b; ``settle`` lets everything happen that is to happen."""

    def __init__(self) -> None:
        self.a = Primary()
        self.b = Secondary(self.a)
        self.b_volumes = blank_volumes(self.b.machine)
        self.now = 0.0
        self.restart_a()
        self.restart_b()

    def restart_a(self) -> None:
        """Begin the primary's movers anew."""
        self.verify = Verify(self.a.journal, self.a.volumes, self.a.commit.submit_chunks, CHUNK)
        self.repair = Repair(self.a.journal, self.a.commit.submit_chunks, CHUNK)

    def restart_b(self) -> None:
        """Begin the secondary anew on its journal and volumes."""
        self.b.open(self.a)
        interval = FixedInterval(seconds=1.0)
        self.pull = Pull(self.b.journal, self.b.peer, interval, self.a.clock)
        self.restore = Restore(self.b.journal, self.b_volumes)

    def commit_all(self) -> None:
        while self.a.commit.step(self.now):
            pass

    def follow(self) -> None:
        """Bring the secondary up to date, and let each site know where the other is."""
        self.a.journal.publish()
        self.pull.due_at = float("-inf")
        self.pull.step(self.now)
        while self.restore.step(self.now):
            pass
        self.b.journal.publish(restored=self.restore.applied)
        self.a.journal.publish(restored=self.a.commit.applied)
        self.b.journal.publish(restored=self.restore.applied)
        head = self.b.journal.head
        note = {"journal_id": self.b.journal.page.journal_id, "generation": 0}
        pair = (head.position, head.digest)
        self.a.journal.peers["b"] = PeerNote(received=pair, restored=pair, **note)  # type: ignore[arg-type]

    def run_pass(self, rate: float = FAST) -> None:
        """Verify every volume once and let the secondary judge."""
        self.verify.start(rate, repeat=False)
        while (run := self.verify.run) is not None and run.state == "running":
            self.now += 1.0
            self.verify.step(self.now)
            self.commit_all()
            self.follow()

    def run_repair(self) -> None:
        """Let the primary answer the secondary's request until it has nothing to send."""
        while self.repair.look("b", self.b.journal.body.verified):
            self.commit_all()
            self.follow()

    def flip(self, volume_id: int, bit: int) -> None:
        """Turn over one bit of the secondary's volume, behind everybody's back."""
        device = self.b_volumes[volume_id].device
        assert isinstance(device, SimVolumeDevice)
        device.content[bit // 8] ^= 1 << bit % 8
