"""One simulated site: its machine, and the stack that is built anew on it after each crash."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from replicator.codec.batch import Point
from replicator.codec.topology import JournalPolicy
from replicator.group.volume_set import VolumeSet
from replicator.journal.format import NewJournal, format_journal
from replicator.journal.journal import HALTED, Journal, Owner
from replicator.journal.layout import RingPlace
from replicator.journal.leg import Leg
from replicator.journal.peer import Peer
from replicator.journal.recovery import Recovered, recover
from replicator.journal.seal import seal
from replicator.model import BLOCK
from replicator.movers.checkpoint import Checkpoint
from replicator.movers.commit import Commit, Prepared
from replicator.movers.near import Near
from replicator.movers.pull import Pull
from replicator.movers.read_ahead import at_once
from replicator.movers.restore import Restore
from replicator.movers.resync import Resync
from replicator.movers.room import Room
from replicator.movers.sync_link import SyncLink
from replicator.movers.verify import Verify
from replicator.seams.blockdevice import JournalDevice, VolumeDevice
from tests.sim.devices import Machine, SimJournalDevice, SimVolumeDevice
from tests.sim.leg_calls import InlineCalls
from tests.sim.oracle import BrokenPromise
from tests.sim.pace import Pace
from tests.sim.plans import SITES, Shape
from tests.sim.views import LegView

GROUP = "orders"
RING_AT = 64 * BLOCK
"""The simulator's rings follow the metadata at once; devices stay small."""

JOURNAL = "journal"
Views = Mapping[str, JournalDevice]


@dataclass(frozen=True)
class Parts:
    """What a stack is made of; a broken variant replaces one of them (variants.py)."""

    journal: type[Journal] = Journal
    peer: type[Peer] = Peer
    commit: type[Commit] = Commit
    pull: type[Pull] = Pull
    restore: type[Restore] = Restore
    checkpoint: type[Checkpoint] = Checkpoint
    room: type[Room] = Room
    resync: type[Resync] = Resync
    recover: Callable[[Journal], Recovered] = recover
    leg: type[Leg] = Leg
    link: type[SyncLink] = SyncLink
    near: type[Near] = Near
    seal: Callable[[Journal, Callable[[], None], str], Point] = seal
    sites: str = "abc"
    """Sites that are made of these parts; the others are made of the real ones."""


REAL = Parts()


class SimClock:
    """A site's clocks: monotonic from its boot on, and a wall clock that may jump."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._booted_at = now()
        self.offset_seconds = 1_700_000_000.0

    def boot(self) -> None:
        """Begin a new boot: monotonic time starts at 0."""
        self._booted_at = self._now()

    def monotonic(self) -> float:
        """Return seconds since the boot."""
        return self._now() - self._booted_at

    def realtime_ns(self) -> int:
        """Return nanoseconds since 1970, as this site believes."""
        return int((self._now() + self.offset_seconds) * 1e9)


class SimLock:
    """A journal's lock where one thread plays all: what would wait for ever is told instead."""

    def __init__(self) -> None:
        self._held = False

    def locked(self) -> bool:
        """Whether a page is being published."""
        return self._held

    def __enter__(self) -> None:
        if self._held:
            raise BrokenPromise(
                "a mover publishes in the middle of another one's publishing; only a restore that "
                "has found a difference does that: a false alarm"
            )
        self._held = True

    def __exit__(self, *error: object) -> None:
        self._held = False


def make_machine(name: str, shape: Shape, seed: int) -> Machine:
    """Return a machine with a formatted journal and blank volumes, everything durable."""
    machine = Machine(name, seed)
    device = SimJournalDevice(machine, JOURNAL, RING_AT + shape.ring_bytes[name])
    for entry in (*shape.volumes, *shape.later) if name not in shape.plan.no_data else ():
        SimVolumeDevice(machine, entry.name, entry.size_bytes)
    upstream = shape.plan.upstream[name]
    new = NewJournal(
        GROUP,
        name,
        upstream,
        min(shape.ring_bytes.values()),
        shape.volumes if upstream is None else (),
        RingPlace(RING_AT, shape.ring_bytes[name]),
        upstream if name == shape.plan.near else None,
    )
    chance = random.Random(seed)
    format_journal(device, new, chance.randbytes, bytes(16))
    machine.operations = 0
    return machine


class Stack:
    """Everything that lives in one process of a site; built by recovery, ended by a crash."""

    def __init__(
        self,
        machine: Machine,
        shape: Shape,
        views: Views,
        clock: SimClock,
        boot_id: bytes,
        parts: Parts = REAL,
        *,
        redo: bool = True,
        leg: LegView | None = None,
        hang_share: Callable[[], float] = lambda: 0.0,
        pace: Callable[[Stack], None] = lambda _: None,
    ) -> None:
        """Recover the journal and redo: SimulatedCrash at any operation, errors as recovery's.

        A secondary may leave the redo to its restore mover (``redo`` False), as its daemon does.
        A primary with a ``leg`` serves only after its link admits it.
        """
        name = machine.name
        chance = random.Random(boot_id)
        upstream = shape.plan.upstream[name]
        self.name = name
        self.machine = machine
        self.clock = clock
        self._shape = shape
        self._has_data = name not in shape.plan.no_data
        others = tuple(site for site in SITES if site != name)
        if name not in parts.sites:
            parts = REAL
        device = machine[JOURNAL]
        assert isinstance(device, SimJournalDevice)
        self.journal = parts.journal.open(device, Owner(GROUP, name, boot_id, others))
        self.journal._lock = SimLock()  # type: ignore[assignment]
        self.later = shape.later if self._has_data else ()
        self.volume_set = VolumeSet(self._volume_device)
        self.volumes = self.volume_set.by_id
        if self._has_data:
            changed = self.later and self.journal.attached
            known = self.journal.catalog.volumes if changed else shape.volumes
            self.volume_set.prepare(known)
        if self.later:
            self.journal.before_catalog = lambda catalog: self.volume_set.prepare(catalog.volumes)
            self.journal.after_catalog = lambda catalog: self.volume_set.settle(catalog.volumes)
        self.recovered = parts.recover(self.journal)
        self.restore = parts.restore(self.journal, self.volumes, shape.window_bytes)
        pace(self)
        while redo and upstream and self._has_data and self.restore.step(clock.monotonic()):
            pass
        self.peers = {site: parts.peer(site, views[site], self.journal) for site in others}
        self.commit: Commit | None = None
        self.pull: Pull | None = None
        self.verify: Verify | None = None
        self.near: Near | None = None
        self.link: SyncLink | None = None
        self._parts = parts
        if name == shape.plan.near:
            self.near = parts.near(self.journal, self.peers["a"], shape.window_bytes)
        elif upstream is not None:
            self.pull = parts.pull(
                self.journal,
                self.peers[upstream],
                shape.policy,
                clock,
                shape.pull_bytes,
                ahead=at_once,
                has_volumes=name not in shape.plan.no_data,
                random_bytes=chance.randbytes,
            )
        if leg is not None:
            leg.writer = machine
            near = shape.plan.near
            assert near is not None
            self.calls = InlineCalls(machine.rng, hang_share)
            self.link = parts.link(
                self.journal,
                parts.leg(near, leg, self.journal),
                self.peers[near],
                shape.link,
                self.calls,
                clock.monotonic,
                join_bytes=8 * BLOCK,
            )
        self.pace = Pace(shape.policy, self.journal.body.batch_bound)
        policy = JournalPolicy(size_bytes=0, when_full=shape.plan.when_full)
        self.room = parts.room(self.journal, policy)
        self.resync: Resync | None = None
        self._chance = chance
        self.in_flight: deque[Prepared] = deque()
        """Batches of the primary that are in the journal and not all on the volumes."""
        self.checkpoint = parts.checkpoint(
            self.journal,
            self.volumes,
            lambda: self.applied,
            checkpoint_seconds=shape.checkpoint_seconds,
            publish_seconds=shape.publish_seconds,
        )

        if upstream is None and leg is None:
            self.serve()

    def serve(self) -> None:
        """Begin to serve hosts, as group/site.py does."""
        while self.restore.step(self.clock.monotonic()):
            pass
        self.journal.publish(unmark={HALTED})
        self.commit = self._parts.commit(
            self.journal,
            self.volumes,
            self.clock,
            lambda size: memoryview(bytearray(size)),
            self.link,
        )
        chunk = min(4 * BLOCK, self.commit.longest_chunk)
        self.verify = Verify(self.journal, self.volumes, self.commit.submit_chunks, chunk)
        self.resync = self._parts.resync(
            self.journal, self.peers, self.volumes, self.commit, self._chance.randbytes, 1e9
        )

    @property
    def applied(self):  # type: ignore[no-untyped-def]
        """The point up to which the volumes hold the log, durable or not."""
        if not self._has_data:
            return self.journal.head
        return self.restore.applied if self.commit is None else self.commit.applied

    def _volume_device(self, name: str) -> VolumeDevice:
        device = self.machine[name]
        assert isinstance(device, SimVolumeDevice)
        return device

    def images(self) -> dict[int, bytearray]:
        """Return the visible content of every volume, also of those that are still to come.

        What a removed one holds is nobody's promise: it is left out.
        """
        retired = self.journal.catalog.retired if self.journal.attached else ()
        names = {volume_id: volume.name for volume_id, volume in self.volumes.items()}
        names |= {entry.id: entry.name for entry in self.later if entry.id not in retired}
        return {volume_id: self.machine[name].content for volume_id, name in names.items()}
