"""A site with its threads on simulated devices: it serves, follows, halts and says why."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from replicator.clock import SystemClock
from replicator.codec.topology import FixedInterval, Group, GroupSite, JournalPolicy, Volume
from replicator.errors import PeerAhead
from replicator.group.devices import SiteDevices
from replicator.group.report import group_status, pull_history
from replicator.group.site import SiteRuntime
from replicator.journal.journal import Journal, Owner
from replicator.journal.peer import Peer
from replicator.model import HostWrite, WriteKind
from replicator.movers.pull import Pull
from tests.fakes.group_on_sim import BOOT, RING, VOLUMES, Primary, Secondary, blank_volumes
from tests.sim.devices import Fault
from tests.sim.views import PeerView

DEADLINE = 20.0
GROUP = Group(
    name="orders",
    volumes=tuple(Volume(id=v.id, name=v.name, size_bytes=v.size_bytes) for v in VOLUMES),
    journal=JournalPolicy(size_bytes=RING + (1 << 20)),
    sites=(
        GroupSite(name="a", primary=True),
        GroupSite(name="b", upstream="a", interval=FixedInterval(seconds=0.02)),
    ),
)


class Answered:
    """An AnswerSink that a test waits on."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = threading.Condition()

    def answer(self, requests: Sequence[HostWrite]) -> None:
        with self._changed:
            self.count += len(requests)
            self._changed.notify_all()

    def wait_for(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= count, DEADLINE)


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait on a condition with a deadline."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.01)
    return True


class Sites:
    """Sites a and b as runtimes."""

    def __init__(self) -> None:
        self.a = Primary()
        self.b = Secondary(self.a)
        self.b_volumes = blank_volumes(self.b.machine)
        view = PeerView(lambda: self.b.device, lambda: True)
        peers_of_a = {"b": Peer("b", view, self.a.journal)}
        self.primary = SiteRuntime(
            GROUP, "a", SiteDevices(self.a.journal, self.a.volumes, peers_of_a), SystemClock()
        )
        peers_of_b = {"a": self.b.peer}
        self.secondary = SiteRuntime(
            GROUP, "b", SiteDevices(self.b.journal, self.b_volumes, peers_of_b), SystemClock()
        )
        self.sink = Answered()

    def write(self, offset: int, payload: bytes) -> None:
        assert self.primary.runner is not None
        request = HostWrite(self.sink, 1, WriteKind.WRITE, offset, len(payload), [payload])
        self.primary.runner.submit([request])

    def content_at_b(self, offset: int, length: int) -> bytes:
        found = memoryview(bytearray(length))
        self.b_volumes[1].read_into(offset, [found])
        return bytes(found)


@pytest.fixture
def sites() -> Iterator[Sites]:
    made = Sites()
    yield made
    made.primary.stop()
    made.secondary.stop()


def test_runtime_write_reaches_the_second_site_and_status_says_so(sites: Sites) -> None:
    sites.primary.start()
    sites.secondary.start()
    sites.write(4096, b"x" * 4096)
    assert sites.sink.wait_for(1)
    assert eventually(lambda: sites.content_at_b(4096, 4096) == b"x" * 4096)
    status = group_status(sites.secondary, "none", 0.0)
    assert (status.own.state, status.own.role) == ("following", "secondary")
    assert [site.site for site in status.sites] == ["a", "b"]
    assert status.own.received is not None
    assert status.own.received.sequence == 1
    assert pull_history(sites.secondary).pulls[-1].source == "a"


def test_runtime_journal_failure_halts_the_primary_without_an_answer(sites: Sites) -> None:
    sites.primary.start()
    hung_up = threading.Event()
    sites.primary.on_halt = hung_up.set
    sites.a.device.faults.append(Fault("flush", forever=True))
    sites.write(0, b"x" * 512)
    assert hung_up.wait(DEADLINE)
    assert sites.primary.state == "halted"
    assert "distrusted" in sites.primary.reason
    assert sites.sink.count == 0
    assert group_status(sites.primary, "nbd", 0.0).own.state == "halted"


def test_runtime_peer_that_holds_more_keeps_the_primary_from_serving(sites: Sites) -> None:
    sites.primary.start()
    sites.secondary.start()
    sites.write(0, b"x" * 4096)
    assert eventually(lambda: sites.b.journal.body.head.sequence == 1)
    restored = Sites()  # a's journal as it was before: its disk has lied
    view = PeerView(lambda: sites.b.device, lambda: True)
    peers = {"b": Peer("b", view, restored.a.journal)}
    runtime = SiteRuntime(
        GROUP, "a", SiteDevices(restored.a.journal, restored.a.volumes, peers), SystemClock()
    )
    with pytest.raises(PeerAhead, match="lost records"):
        runtime.start()
    assert runtime.runner is None
    runtime.stop()


def test_runtime_rot_in_the_own_ring_halts_restore_and_is_marked(sites: Sites) -> None:
    sites.primary.start()
    sites.secondary.start()
    assert eventually(lambda: sites.secondary.state == "following")
    sites.b.device.faults.append(Fault("read", effect="flipped", forever=True))
    sites.write(0, b"x" * 4096)
    assert eventually(lambda: sites.secondary.state == "halted")
    assert "device offset" in sites.secondary.reason
    assert eventually(lambda: "halted" in sites.b.journal.body.marks)
    assert sites.content_at_b(0, 4096) == bytes(4096)


def test_runtime_unreachable_source_is_a_fault_that_clears(sites: Sites) -> None:
    sites.primary.start()
    sites.b.reachable = False
    sites.secondary.start()
    assert eventually(lambda: "pull" in sites.secondary.faults)
    assert sites.secondary.state == "unattached"
    sites.b.reachable = True
    assert eventually(lambda: sites.secondary.state == "following")
    assert eventually(lambda: "pull" not in sites.secondary.faults)


def test_runtime_restore_begins_at_what_recovery_found(sites: Sites) -> None:
    """The volumes may hold all that recovery finds, so nothing of it may be judged (model m6)."""
    pull = Pull(sites.b.journal, sites.b.peer, FixedInterval(seconds=1.0), sites.a.clock)
    for index in range(3):
        sites.a.write(1, index * 4096, b"x" * 4096)
        sites.a.commit.step(0.0)
        sites.a.journal.publish()
        pull.due_at = float("-inf")
        pull.step(0.0)
    newest = sites.b.journal.page.generation % 2
    sites.b.machine["journal"].content[newest * 4096 + 100] ^= 1
    journal = Journal.open(sites.b.device, Owner("orders", "b", BOOT, ("a",)))
    devices = SiteDevices(journal, sites.b_volumes, sites.secondary.devices.peers)
    again = SiteRuntime(GROUP, "b", devices, SystemClock())
    before = journal.head.position
    again.start()
    assert journal.head.position > before, "recovery has found more than the older page says"
    assert again.judge.judges_from == journal.head.position
    again.stop()
