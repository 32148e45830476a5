"""One simulated site: its machine, and the stack that is built anew on it after each crash."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from replicator.journal.format import NewJournal, format_journal
from replicator.journal.journal import HALTED, Journal, Owner
from replicator.journal.layout import RingPlace
from replicator.journal.peer import Peer
from replicator.journal.recovery import Recovered, recover
from replicator.model import BLOCK
from replicator.movers.checkpoint import Checkpoint
from replicator.movers.commit import Commit, Prepared
from replicator.movers.pull import Pull
from replicator.movers.read_ahead import at_once
from replicator.movers.restore import Restore
from replicator.movers.verify import Verify
from replicator.seams.blockdevice import JournalDevice
from replicator.seams.volume import DataVolume
from tests.sim.devices import Machine, SimJournalDevice, SimVolumeDevice
from tests.sim.oracle import BrokenPromise
from tests.sim.plans import SITES, Shape

GROUP = "orders"
RING_AT = 48 * BLOCK
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
    recover: Callable[[Journal], Recovered] = recover
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
    for entry in shape.volumes:
        SimVolumeDevice(machine, entry.name, entry.size_bytes)
    upstream = shape.plan.upstream[name]
    new = NewJournal(
        GROUP,
        name,
        upstream,
        min(shape.ring_bytes.values()),
        shape.volumes if upstream is None else (),
        RingPlace(RING_AT, shape.ring_bytes[name]),
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
    ) -> None:
        """Recover the journal and redo: SimulatedCrash at any operation, errors as recovery's.

        A secondary may leave the redo to its restore mover (``redo`` False), as its daemon does.
        """
        name = machine.name
        upstream = shape.plan.upstream[name]
        self.name = name
        self.machine = machine
        self.clock = clock
        others = tuple(site for site in SITES if site != name)
        if name not in parts.sites:
            parts = REAL
        device = machine[JOURNAL]
        assert isinstance(device, SimJournalDevice)
        self.journal = parts.journal.open(device, Owner(GROUP, name, boot_id, others))
        self.journal._lock = SimLock()  # type: ignore[assignment]
        self.volumes: dict[int, DataVolume] = {}
        for entry in shape.volumes:
            volume = machine[entry.name]
            assert isinstance(volume, SimVolumeDevice)
            self.volumes[entry.id] = DataVolume(entry.id, entry.name, entry.size_bytes, volume)
        self.recovered = parts.recover(self.journal)
        self.restore = parts.restore(self.journal, self.volumes, shape.window_bytes)
        while (redo or upstream is None) and self.restore.step(clock.monotonic()):
            pass
        self.peers = {site: parts.peer(site, views[site], self.journal) for site in others}
        if self.journal.body.role == "primary":
            self.journal.publish(unmark={HALTED})  # as group/site.py does before it serves
        self.commit: Commit | None = None
        self.pull: Pull | None = None
        self.verify: Verify | None = None
        if upstream is None:
            self.commit = parts.commit(
                self.journal, self.volumes, clock, lambda size: memoryview(bytearray(size))
            )
            chunk = min(4 * BLOCK, self.commit.longest_chunk)
            self.verify = Verify(self.journal, self.volumes, self.commit.submit_chunks, chunk)
        else:
            self.pull = parts.pull(
                self.journal,
                self.peers[upstream],
                shape.policy,
                clock,
                shape.pull_bytes,
                ahead=at_once,
            )
        self.in_flight: deque[Prepared] = deque()
        """Batches of the primary that are in the journal and not all on the volumes."""
        self.checkpoint = parts.checkpoint(
            self.journal,
            self.volumes,
            lambda: self.applied,
            checkpoint_seconds=shape.checkpoint_seconds,
            publish_seconds=shape.publish_seconds,
        )

    @property
    def applied(self):  # type: ignore[no-untyped-def]
        """The point up to which the volumes hold the log, durable or not."""
        return self.restore.applied if self.commit is None else self.commit.applied

    def images(self) -> dict[int, bytearray]:
        """Return the visible content of every volume."""
        return {
            volume_id: self.machine[volume.name].content
            for volume_id, volume in self.volumes.items()
        }
