"""Three sites a -> b -> c in one process, driven from a seed, with every promise checked.

One step is one small thing: a host asks, a batch is journaled, applied or answered, a site pulls,
restores, makes a checkpoint or looks at a peer; or something breaks: a link, a clock, a machine
(between two operations of a device or in the middle of one). After each step the positions of all
sites are checked against each other and against the oracle; after each recovery whole images are.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from replicator.codec.batch import Point
from replicator.codec.history import VolumeEntry
from replicator.codec.page import PageDamaged, decode_page
from replicator.codec.topology import AdaptiveInterval, FixedInterval
from replicator.errors import DeviceFailed, JournalFailed, TowlineError
from replicator.journal.layout import OWNER_PAGE_AT
from replicator.model import BLOCK
from tests.sim.devices import Machine, PeerView, SimDevice, SimulatedCrash
from tests.sim.events import Events
from tests.sim.host import Host
from tests.sim.oracle import BrokenPromise, Oracle
from tests.sim.site import JOURNAL, REAL, SITES, Parts, Shape, SimClock, Stack, make_machine

_LONGEST_CONVERGENCE = 3000
"""Rounds in which healed sites must become equal."""


class Site:
    """A machine, and the stack on it while it is up."""

    def __init__(self, machine: Machine, clock: SimClock) -> None:
        self.machine = machine
        self.clock = clock
        self.stack: Stack | None = None
        self.powered = True
        """Whether its journal LUN is served: a killed process leaves the kernel serving."""
        self.halted: TowlineError | None = None
        self.boots = 0
        self.acknowledged = Point(0, bytes(16), 0, 0)
        """The furthest head that it has durably published."""
        self.furthest = 0
        """The furthest head that was ever durable in its ring."""
        self.busy = False
        self.doing = ""
        """The action that is under way, by name: what other threads may do in its middle."""


class World:
    """The simulation of one seed."""

    def __init__(self, seed: int, parts: Parts = REAL, *, calm: bool = False) -> None:
        """``calm`` leaves out everything that breaks but links."""
        self._calm = calm
        self.seed = seed
        self.rng = random.Random(seed)
        self.parts = parts
        self.now = 0.0
        self.counts: Counter[str] = Counter()
        self.shape = _shape(self.rng)
        self.oracle = Oracle({entry.id: entry.size_bytes for entry in self.shape.volumes})
        self.host = Host(self.oracle, self.shape, self.rng)
        self.points: dict[int, Point] = {0: Point(0, bytes(16), 0, 0)}
        """Every point of the log that a batch ends at, by position."""
        self.events = Events(self.shape.volumes, self.rng)
        self.cut: set[frozenset[str]] = set()
        self.sites = {
            name: Site(
                make_machine(name, self.shape, self.rng.randrange(1 << 60)),
                SimClock(lambda: self.now),
            )
            for name in SITES
        }
        self.interleave = True
        self.expected: tuple[type[TowlineError], ...] = ()
        """Errors that an injected fault may stop a site with; any other is a failure."""
        self._depth = 0
        for site in self.sites.values():
            site.machine.observers.append(self._between_operations)
        for name in SITES:
            self.start(name)

    # -- machines -----------------------------------------------------------------------------

    def views(self, reader: str) -> dict[str, PeerView]:
        """Return what ``reader`` sees of the other sites' journals."""

        def view(owner: str) -> PeerView:
            link = frozenset((reader, owner))
            return PeerView(
                lambda: self.sites[owner].machine[JOURNAL],
                lambda: self.sites[owner].powered and link not in self.cut,
                lambda: self._between_reads(owner),
            )

        return {owner: view(owner) for owner in SITES if owner != reader}

    def start(self, name: str) -> None:
        """Boot a site: recover its journal, redo, and judge its volumes whole."""
        site = self.sites[name]
        site.boots += 1
        site.powered = True
        site.clock.boot()
        boot_id = self.rng.randbytes(16)
        redo = self.rng.random() < 0.5

        def boot() -> None:
            site.stack = None
            views = self.views(name)
            stack = Stack(
                site.machine, self.shape, views, site.clock, boot_id, self.parts, redo=redo
            )
            site.stack = stack
            self._note_head(site)
            self._judge_recovered(name, stack)

        self.act(name, boot)

    def _judge_recovered(self, name: str, stack: Stack) -> None:
        site = self.sites[name]
        head = stack.journal.head
        if head.position < site.acknowledged.position:
            raise BrokenPromise(
                f"{name}: head {head.position} after recovery, it had acknowledged "
                f"{site.acknowledged.position}"
            )
        if name == "a":
            self.oracle.truncate(head.position)
            self.host.forget_outstanding()
            self.events.truncate(head.position)
            self.points = {
                position: point
                for position, point in self.points.items()
                if position <= head.position
            }
        if stack.applied.position == head.position:
            self.oracle.judge_at(stack.images(), head.position, f"{name} after recovery")
            self.counts["judged after recovery"] += 1
        self.counts["recoveries"] += 1

    def act(self, name: str, action: Callable[[], object]) -> bool:
        """Run ``action`` of a site; False if the machine crashed or the site halted in it."""
        site = self.sites[name]
        site.busy = True
        try:
            action()
        except SimulatedCrash as crash:
            if crash.args[0].split()[0] != name:
                raise
            self._crashed(name)
            return False
        except TowlineError as error:
            return self._failed(name, error)
        finally:
            site.busy = False
        return True

    def _failed(self, name: str, error: TowlineError) -> bool:
        """Judge an error as the site's runtime does: a peer's is tried again, an own one halts."""
        if str(error).startswith("peer:"):
            if not self.expects_of_peer(error):
                raise BrokenPromise(f"{name}: unexpected: {error}") from error
            self.counts[f"peer {type(error).__name__}"] += 1
            return True
        site = self.sites[name]
        site.stack = None
        site.halted = error
        self.counts[f"halted {type(error).__name__}"] += 1
        if not isinstance(error, self.expected):
            raise BrokenPromise(f"{name}: halted: {error}") from error
        return False

    def expects_of_peer(self, error: TowlineError) -> bool:
        """Whether reading a peer may fail like this: no link, not attached, an injected fault."""
        unattached = "has not met its own source" in str(error)
        return unattached or isinstance(error, (DeviceFailed, *self.expected))

    def _crashed(self, name: str) -> None:
        site = self.sites[name]
        self._note_head(site)
        if site.stack is None:
            self.counts["F4"] += 1
        site.stack = None
        if self.rng.random() < 0.7:
            site.machine.lose_power()
            site.powered = False
            self.counts["F1" if name == "a" else "F2"] += 1
        else:
            site.machine.kill()
            self.counts["kills"] += 1

    def crash_now(self, name: str) -> None:
        """Stop a machine between two steps."""
        self.sites[name].machine.crashed = True
        self._crashed(name)

    def crash_soon(self, name: str, within: int = 12) -> None:
        """Let a machine stop at one of its next operations, before it, in it or after it."""
        machine = self.sites[name].machine
        machine.crash_at = machine.operations + self.rng.randint(1, within)
        machine.crash_phase = self.rng.choice(("before", "middle", "middle", "after"))

    # -- what happens -------------------------------------------------------------------------

    def step(self) -> None:
        """Do one thing, drawn from the seed, and check the promises."""
        self.now += self.rng.choice((0.001, 0.01, 0.1, 1.0))
        if self.rng.random() < 0.04:
            self._disturb()
        else:
            self._work(self.rng.choice(SITES))
        self.check()

    def _work(self, name: str) -> None:
        site = self.sites[name]
        if site.busy:
            return
        if site.stack is None:
            if site.halted is None and self.rng.random() < 0.3:
                if self.rng.random() < 0.3:
                    self.crash_soon(name)
                self.start(name)
            return
        actions = _PRIMARY if name == "a" else _SECONDARY
        action = self.rng.choice(actions)
        site.doing = action.__name__
        self.act(name, lambda: action(self, site.stack))
        site.doing = ""
        self._note_published(name)

    def _note_published(self, name: str) -> None:
        site = self.sites[name]
        if site.stack is not None:
            body = site.stack.journal.body
            if body.head.position > site.acknowledged.position:
                site.acknowledged = body.head
            self._note_head(site)

    def _note_head(self, site: Site) -> None:
        if site.stack is not None:
            site.furthest = max(site.furthest, site.stack.journal.head.position)

    def _disturb(self) -> None:
        name = self.rng.choice(SITES)
        kind = self.rng.randrange(6) if not self._calm else 0
        site = self.sites[name]
        if kind == 0:
            link = frozenset(self.rng.sample(SITES, 2))
            self.cut.symmetric_difference_update({link})
            self.counts["link changes"] += 1
        elif kind == 1 and site.stack is not None and not site.busy:
            self.crash_now(name)
        elif kind in (2, 3) and site.stack is not None:
            self.crash_soon(name)
        elif kind == 4:
            site.clock.offset_seconds += self.rng.choice((-1, 1)) * self.rng.choice((1, 9e4, 9e6))
            self.counts["F24"] += 1
        elif kind == 5 and self.rng.random() < 0.2:
            for each in SITES:
                if self.sites[each].stack is not None and not self.sites[each].busy:
                    self.sites[each].machine.crashed = True
                    self._crashed(each)
            self.counts["F3"] += 1

    def _between_reads(self, owner: str) -> None:
        if not self.interleave or self._depth or self.rng.random() > 0.25:
            return
        self._depth += 1
        try:
            self._work(owner)
        finally:
            self._depth -= 1
        self.counts["steps between reads"] += 1

    def _between_operations(self, device: SimDevice, operation: str) -> None:
        """Let other threads and other sites do their things between two device operations."""
        del operation
        site = self.sites[device.machine.name]
        if self.interleave and not self._depth and site.doing and self.rng.random() < 0.2:
            self._meanwhile_elsewhere(site)
        others = _MEANWHILE.get(site.doing)
        if not self.interleave or not others or site.stack is None or self.rng.random() > 0.15:
            return
        if site.stack.journal._lock.locked():
            others = tuple(other for other in others if other.__name__ not in _PUBLISHING)
            if site.stack.commit and site.stack.commit.waiting_controls:
                others = tuple(other for other in others if other.__name__ != "journal_batch")
        if not others:
            return
        doing, site.doing = site.doing, ""
        try:
            self.rng.choice(others)(self, site.stack)
        except TowlineError as error:
            self._failed(site.machine.name, error)
        finally:
            site.doing = doing
        self._note_published(site.machine.name)
        self.counts["steps between operations"] += 1

    def _meanwhile_elsewhere(self, site: Site) -> None:
        self._depth += 1
        try:
            self._work(self.rng.choice([name for name in SITES if name != site.machine.name]))
        finally:
            self._depth -= 1
        self.check()
        self.counts["steps elsewhere"] += 1

    # -- what the sites do --------------------------------------------------------------------

    def host_asks(self, stack: Stack) -> None:
        """Let hosts ask for a few changes."""
        assert stack.commit is not None
        if len(self.host.outstanding) < 24:
            stack.commit.submit(self.host.ask(self.rng.choice((1, 1, 2, 5, 12))))
        if self.rng.random() < 0.1:
            stack.commit.submit_control(self.events.ask(stack.commit.waiting_controls))

    def journal_batch(self, stack: Stack) -> None:
        """Journal one batch, as the commit thread does."""
        commit = stack.commit
        if commit is None:
            return
        if len(stack.in_flight) > 1 or (commit.next_compares and stack.in_flight):
            return
        prepared = commit.prepare()
        if prepared is None:
            if commit.waiting:
                self.counts["held"] += 1
            return
        for request in prepared.requests:
            self.host.journaled(request)
        self.events.journaled(prepared)
        self.counts["events"] += len(prepared.controls)
        if prepared.contents:
            if prepared.end.time_ns < stack.journal.head.time_ns:
                raise BrokenPromise(f"the log's time went back at {prepared.end.position}")
            self.oracle.end_batch(prepared.end.position)
            self.points[prepared.end.position] = prepared.end
        commit.append(prepared)
        stack.in_flight.append(prepared)

    def apply_batch(self, stack: Stack) -> None:
        """Write a journaled batch to the volumes and answer it, as the apply thread does."""
        commit = stack.commit
        if commit is not None and stack.in_flight:
            prepared = stack.in_flight[0]
            commit.apply(prepared)
            commit.answer(prepared)
            stack.in_flight.popleft()
            if self.rng.random() < 0.05 and not commit.failed_volumes:
                position = commit.applied.position
                self.oracle.judge_at(stack.images(), position, "a while serving")

    def checkpoint(self, stack: Stack) -> None:
        """Checkpoint or publish; a volume that failed keeps the checkpoint where it is (F11)."""
        try:
            stack.checkpoint.step(stack.clock.monotonic())
        except JournalFailed:
            raise
        except DeviceFailed:
            if DeviceFailed not in self.expected:
                raise
            stack.checkpoint.hold()

    def look(self, stack: Stack) -> None:
        """Look at a peer's pages."""
        stack.peers[self.rng.choice(sorted(stack.peers))].look()

    def pull(self, stack: Stack) -> None:
        """Pull once, due or not."""
        assert stack.pull is not None
        if self.rng.random() < 0.7:
            stack.pull.due_at = float("-inf")
        report = stack.pull.step(stack.clock.monotonic())
        if report is not None and report.records:
            self.counts["pulls"] += 1
            source = self.sites[report.source]
            self._note_head(source)
            if source.stack and stack.journal.head.position > source.furthest:
                raise BrokenPromise(
                    f"{stack.name} took {stack.journal.head.position} from {report.source}, which "
                    f"durably held only {source.furthest}"
                )

    def restore(self, stack: Stack) -> None:
        """Restore one window."""
        if stack.commit is None and stack.restore.step(stack.clock.monotonic()):
            self.counts["restores"] += 1
            applied = stack.restore.applied.position
            if applied >= stack.recovered.head.position:
                self.oracle.judge_at(stack.images(), applied, f"{stack.name} restoring")

    # -- promises -----------------------------------------------------------------------------

    def check(self) -> None:
        """Check the positions of all sites against each other and the oracle."""
        for name, site in self.sites.items():
            stack = site.stack
            if stack is None:
                continue
            head = stack.journal.head
            known = self.points.get(head.position)
            if known is None or known != head:
                raise BrokenPromise(f"{name}: head {head} is not on the log, which has {known}")
            if stack.journal.attached:
                self.events.judge(name, stack.journal)
            body = stack.journal.body
            reclaim = body.reclaim
            if reclaim > body.restored.position:
                raise BrokenPromise(f"{name}: reclaimed {reclaim} beyond its own checkpoint")
            for other, note in stack.journal.peers.items():
                if note.received[0] > self._durably_stated(other, note.received[0]):
                    raise BrokenPromise(
                        f"{name}: counts {note.received[0]} as received by {other}, which has not "
                        "stated that durably"
                    )
            for other in SITES:
                if other != name and reclaim > self._durably_stated(other, reclaim):
                    raise BrokenPromise(
                        f"{name}: reclaimed {reclaim}, {other} has not durably received that"
                    )
            if head.position > body.ring_size:
                self.counts["F30"] += 1

    def _durably_stated(self, name: str, enough: int) -> int:
        """Return the head that a site's page would state after a power loss, if below ``enough``.

        What is noted after each step is the cheap answer; only if that is too low (a page was
        published in the middle of a step) the device is asked.
        """
        site = self.sites[name]
        if site.acknowledged.position < enough:
            device = site.machine[JOURNAL]
            durable = device.surviving(self.rng, "none")
            heads = []
            for copy in OWNER_PAGE_AT:
                with suppress(PageDamaged):
                    heads.append(decode_page(bytes(durable[copy : copy + BLOCK])).body.head)
            site.acknowledged = max(site.acknowledged, *heads, key=lambda head: head.position)
        return site.acknowledged.position

    def converge(self) -> None:
        """Heal everything; every site must become equal to what the hosts were answered."""
        self.cut.clear()
        self.interleave = False
        for _ in range(_LONGEST_CONVERGENCE):
            self.now += 1.0
            for name in SITES:
                site = self.sites[name]
                site.machine.crash_at = None
                if site.stack is None:
                    self.start(name)
            if self.round():
                return
        raise BrokenPromise(f"no convergence: {self.describe()}")

    def round(self) -> bool:
        """Let every site do each of its things once; True if all are equal, idle and judged."""
        a, b, c = (self.sites[name].stack for name in SITES)
        assert a is not None and b is not None and c is not None
        assert a.commit is not None
        self.journal_batch(a)
        self.apply_batch(a)
        for stack in (a, b, c):
            if stack.pull is not None:
                stack.pull.due_at = float("-inf")
                self.act(stack.name, lambda stack=stack: stack.pull.step(self.now))
                while stack.restore.step(self.now):
                    pass
            self.checkpoint(stack)
            for peer in sorted(stack.peers):
                self.act(stack.name, stack.peers[peer].look)
            self._note_published(stack.name)
        self.check()
        if a.commit.waiting or a.in_flight or len({x.applied for x in (a, b, c)}) > 1:
            return False
        assert not self.host.outstanding
        for stack in (a, b, c):
            for volume_id, image in stack.images().items():
                if image != self.oracle.image[volume_id]:
                    raise BrokenPromise(f"{stack.name}: volume {volume_id} differs at the end")
        return True

    def describe(self) -> str:
        """Say where every site stands."""
        parts = []
        for name, site in self.sites.items():
            stack = site.stack
            if stack is None:
                parts.append(f"{name}: down ({site.halted})")
                continue
            parts.append(
                f"{name}: head {stack.journal.head.position} applied {stack.applied.position} "
                f"restored {stack.journal.restored.position} reclaim {stack.journal.reclaim}"
            )
        return "; ".join(parts)

    def run(self, steps: int) -> None:
        """Run ``steps`` steps, then heal and converge."""
        self.run_steps(steps)
        self.converge()

    def run_steps(self, steps: int) -> None:
        """Run ``steps`` steps."""
        for _ in range(steps):
            self.step()


_PRIMARY = (
    World.host_asks,
    World.host_asks,
    World.journal_batch,
    World.journal_batch,
    World.journal_batch,
    World.apply_batch,
    World.apply_batch,
    World.apply_batch,
    World.checkpoint,
    World.look,
    World.look,
)
_SECONDARY = (World.pull, World.pull, World.restore, World.restore, World.checkpoint, World.look)

_MEANWHILE: dict[str, tuple[Callable[[World, Stack], None], ...]] = {
    "journal_batch": (World.apply_batch, World.checkpoint),
    "apply_batch": (World.journal_batch, World.checkpoint),
    "pull": (World.restore,),
    "restore": (World.pull, World.checkpoint),
    "checkpoint": (World.restore, World.journal_batch, World.apply_batch),
}
"""What other threads of a site may do while one is in the middle of an action."""

_PUBLISHING = ("pull", "checkpoint")
"""Actions that would wait for the journal's lock while another thread is publishing."""


def _shape(rng: random.Random) -> Shape:
    blocks = 4096
    ring = rng.choice((16, 24, 32, 64)) * blocks
    return Shape(
        volumes=(VolumeEntry(1, "db", 32 * blocks), VolumeEntry(2, "wal", 8 * blocks)),
        ring_bytes={name: ring + rng.choice((0, 0, 8, 32)) * blocks for name in SITES},
        window_bytes=rng.choice((4, 8, 16, 64)) * blocks,
        pull_bytes=rng.choice((16, 64)) * blocks,
        checkpoint_seconds=rng.choice((0.0, 0.5, 5.0)),
        publish_seconds=rng.choice((0.0, 0.5, 1.0)),
        policy=rng.choice(
            (
                FixedInterval(seconds=0.5),
                AdaptiveInterval(inputs=("records",), min_seconds=0.1, max_seconds=5.0),
            )
        ),
    )
