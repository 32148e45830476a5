"""A primary and a secondary on simulated devices, for tests of single movers."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.codec.history import VolumeEntry
from replicator.journal.format import NewJournal, format_journal
from replicator.journal.journal import Journal, Owner
from replicator.journal.peer import Peer
from replicator.journal.recovery import recover
from replicator.model import HostWrite, WriteKind
from replicator.movers.commit import Commit
from replicator.seams.volume import DataVolume
from tests.sim.devices import Machine, SimJournalDevice, SimVolumeDevice
from tests.sim.views import PeerView

BOOT = bytes(16)
RING = 2 << 20
VOLUMES = (VolumeEntry(1, "db", 256 << 10), VolumeEntry(2, "wal", 64 << 10))


class SteppedClock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.wall_ns = 1_800_000_000_000_000_000

    def monotonic(self) -> float:
        return self.seconds

    def realtime_ns(self) -> int:
        return self.wall_ns


class Answers:
    """An AnswerSink that keeps each call."""

    def __init__(self) -> None:
        self.calls: list[list[HostWrite]] = []

    def answer(self, requests: Sequence[HostWrite]) -> None:
        self.calls.append(list(requests))

    @property
    def requests(self) -> list[HostWrite]:
        return [request for call in self.calls for request in call]


def plain_buffer(length: int) -> memoryview:
    """Memory for a Commit; a simulated device has no alignment rule for it."""
    return memoryview(bytearray(length))


def blank_volumes(machine: Machine) -> dict[int, DataVolume]:
    """Return the group's data volumes on new, blank devices of ``machine``."""
    return {
        entry.id: DataVolume(
            entry.id,
            entry.name,
            entry.size_bytes,
            SimVolumeDevice(machine, entry.name, entry.size_bytes),
        )
        for entry in VOLUMES
    }


class Primary:
    """Site a with a commit loop; ``machine`` counts and breaks its devices."""

    def __init__(self, peers: tuple[str, ...] = ("b",)) -> None:
        self.machine = Machine("a", seed=1)
        self.device = SimJournalDevice(self.machine, "journal", (1 << 20) + RING)
        self.clock = SteppedClock()
        self.answers = Answers()
        format_journal(self.device, NewJournal("orders", "a", None, RING, VOLUMES), _ids("a"), BOOT)
        self.journal = Journal.open(self.device, Owner("orders", "a", BOOT, peers))
        recover(self.journal)
        self.volumes = blank_volumes(self.machine)
        self.commit = Commit(self.journal, self.volumes, self.clock, plain_buffer)

    def write(self, volume: int, offset: int, payload: bytes) -> HostWrite:
        """Queue one host write."""
        request = HostWrite(self.answers, volume, WriteKind.WRITE, offset, len(payload), [payload])
        self.commit.submit([request])
        return request

    def content(self, volume: int, offset: int, length: int) -> bytes:
        """What a host would read."""
        found = memoryview(bytearray(length))
        self.volumes[volume].read_into(offset, [found])
        return bytes(found)


class Secondary:
    """Site b, which reads a's journal as another machine sees it."""

    def __init__(self, source: Primary) -> None:
        self.machine = Machine("b", seed=2)
        self.device = SimJournalDevice(self.machine, "journal", (1 << 20) + RING)
        format_journal(self.device, NewJournal("orders", "b", "a", RING), _ids("b"), BOOT)
        self.reachable = True
        self.reads = 0
        self.open(source)

    def open(self, source: Primary) -> None:
        """Start again on the same devices."""
        self.journal = Journal.open(self.device, Owner("orders", "b", BOOT, ("a",)))
        recover(self.journal)
        view = PeerView(lambda: source.device, lambda: self.reachable, self._count_read)
        self.peer = Peer("a", view, self.journal)

    def _count_read(self) -> None:
        self.reads += 1


def _ids(seed: str):  # type: ignore[no-untyped-def]
    counter = iter(range(1, 256))
    return lambda length: (seed.encode() + bytes([next(counter)])).ljust(length, b"\0")
