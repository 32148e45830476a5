"""Disks that fail, rot, lie and misplace: one fault a seed, and what must hold afterwards.

Each scenario runs three sites without other trouble, injects its fault, looks at what the sites
say and do, takes the fault away, and lets everything converge.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable

from replicator.codec.batch import batch_length
from replicator.errors import (
    Detached,
    DeviceFailed,
    JournalRotten,
    NotAJournal,
    PeerRefused,
    TowlineError,
)
from replicator.journal.journal import Journal, Owner
from replicator.journal.peer import Peer
from replicator.model import BLOCK, HostFailure, HostWrite, WriteKind
from replicator.movers.pull import Pull
from tests.sim.devices import Fault, PeerView, SimDevice, SimJournalDevice
from tests.sim.host import stamped
from tests.sim.oracle import Asked, BrokenPromise
from tests.sim.site import GROUP, JOURNAL, REAL, RING_AT, SITES, Parts, Stack
from tests.sim.world import World


class FaultRun:
    """A world that has run for a while, and the means to break its disks."""

    def __init__(self, seed: int, parts: Parts = REAL) -> None:
        self.world = World(seed, parts, calm=True)
        self.rng = self.world.rng
        self.counts: Counter[str] = Counter()
        self.world.run_steps(self.rng.randrange(60, 160))
        self.world.interleave = False
        for _ in range(6):
            self.follow()

    def stack(self, name: str) -> Stack:
        """Return a site's stack, which must be up."""
        stack = self.world.sites[name].stack
        assert stack is not None, self.world.describe()
        return stack

    def journal(self, name: str) -> SimDevice:
        """Return a site's journal device."""
        return self.world.sites[name].machine[JOURNAL]

    def follow(self) -> None:
        """Let everybody follow once, so that the primary's ring has room again."""
        self.world.cut.clear()
        self.world.round()

    def write_batches(self, how_many: int) -> None:
        """Let the primary journal, apply and answer batches, as far as it has room."""
        world, a = self.world, self.stack("a")
        assert a.commit is not None
        for _ in range(how_many):
            a.commit.submit(world.host.ask(2))
            world.journal_batch(a)
            while a.in_flight:
                world.apply_batch(a)

    def pull(self, name: str) -> None:
        """Pull at ``name``, raising what the puller raises."""
        pull = self.stack(name).pull
        assert pull is not None
        for _ in range(8):
            pull.due_at = float("-inf")
            pull.step(self.stack(name).clock.monotonic())

    def restart(self, name: str) -> None:
        """End the site's process and start it again (it may halt in its recovery)."""
        site = self.world.sites[name]
        site.halted = None
        site.stack = None
        site.machine.kill()
        self.world.start(name)

    def repair_and_converge(self) -> None:
        """Take every fault away, restart what has halted, converge."""
        for name in SITES:
            for device in self.world.sites[name].machine.devices:
                device.faults.clear()
        self.world.expected = ()
        for name in SITES:
            if self.world.sites[name].stack is None:
                self.restart(name)
        self.world.converge()


class Rot:
    """One flipped bit in a site's ring, at a log position."""

    def __init__(self, run: FaultRun, name: str, low: int, high: int) -> None:
        self._run = run
        self._device = run.journal(name)
        self._place = run.stack(name).journal.ring.place
        self.position = run.rng.randrange(low, high)
        block = self.position // BLOCK * BLOCK
        self._offset = self._place.segments(block, BLOCK)[0][0] + self.position - block
        self._bit = run.rng.randrange(8)
        self._device.flip(self._offset, self._bit)
        self.before = bytes(self._device.content)

    def undo(self) -> None:
        """Make the bit what it was."""
        if bytes(self._device.content) != self.before:
            raise BrokenPromise(f"{self._device.machine.name}: the rotten journal was changed")
        self._device.flip(self._offset, self._bit)

    def expect(self, action: Callable[[], object]) -> None:
        """Run ``action``: JournalRotten must come and name the batch's offset on the device."""
        error = raised(JournalRotten, action)
        start = max(at for at in self._run.world.points if at <= self.position)
        offset = self._place.segments(start, BLOCK)[0][0]
        found = re.search(r"device offset (\d+)", str(error))
        if found is None or int(found[1]) != offset:
            raise BrokenPromise(f"expected device offset {offset} in: {error}")


def raised(kind: type[TowlineError], action: Callable[[], object]) -> TowlineError:
    """Run ``action``, which must raise ``kind``, and return what it raised."""
    try:
        action()
    except kind as error:
        return error
    raise BrokenPromise(f"nothing was raised, expected {kind.__name__}")


def rot_before_it_is_pulled(run: FaultRun) -> None:
    """F6: a reader finds rot in its source's ring, names the offset, stores nothing of it."""
    reader, source = run.rng.choice((("b", "a"), ("c", "b")))
    run.write_batches(4)
    if source == "b":
        run.pull("b")
    low = run.stack(reader).journal.head.position
    last = run.stack(source).journal.head.position
    room = low + run.stack(reader).journal.free_bytes
    ends = [at for at in run.world.points if low < at <= room]
    if source == "a":
        last = max((at for at in ends if at < last), default=low)
        run.stack("a").checkpoint.run(0.0)
    last = max((at for at in ends if at <= last), default=low)
    if last <= low:
        return
    rot = Rot(run, source, low, last)
    rot.before = bytes(run.journal(source).content)
    rot.expect(lambda: run.pull(reader))
    if run.stack(reader).journal.head.position > rot.position:
        raise BrokenPromise(f"{reader} stored the rotten batch at {rot.position}")
    rot.undo()
    run.counts["F6"] += 1


def rot_on_the_way(run: FaultRun) -> None:
    """F6: a read goes wrong once, in pages, catalog or ring: refused, then read again."""
    reader, source = run.rng.choice((("b", "a"), ("c", "b")))
    run.write_batches(run.rng.choice((1, 1, 4)))  # only a first batch that rots is refused
    if source == "b":
        run.pull("b")
    run.journal(source).faults.append(Fault("remote-read", "flipped", skip=run.rng.randrange(3)))
    try:
        run.pull(reader)
    except (JournalRotten, PeerRefused):
        run.counts["F6 refused once"] += 1
    run.world.check()
    run.pull(reader)
    run.counts["F6"] += 1


def rot_before_it_is_restored(run: FaultRun) -> None:
    """F6: a site finds rot in its own ring before it applies it."""
    name = run.rng.choice("bc")
    run.write_batches(3)
    run.pull("b")
    if name == "c":
        run.pull("c")
    stack = run.stack(name)
    low, high = stack.restore.applied.position, stack.journal.head.position
    if low >= high:
        return
    rot = Rot(run, name, low, high)

    def restore() -> None:
        while stack.restore.step(0.0):
            pass

    rot.expect(restore)
    run.world.oracle.judge_at(stack.images(), stack.restore.applied.position, f"{name} with rot")
    rot.undo()
    run.counts["F6"] += 1


def rot_in_the_tail_before_a_restart(run: FaultRun) -> None:
    """F7: rot in the committed, unapplied tail is told from a torn one: halt, change nothing."""
    name = run.rng.choice(SITES)
    run.write_batches(4)
    if name != "a":
        run.pull("b")
    if name == "c":
        run.pull("c")
    stack = run.stack(name)
    low, high = stack.journal.restored.position, stack.journal.body.head.position
    if name == "a":
        ends = [at for at in run.world.points if at < stack.journal.head.position]
        high = max(ends)
    if low >= high:
        return
    rot = Rot(run, name, low, high)
    run.world.expected = (JournalRotten,)
    for _ in range(run.rng.randint(1, 3)):
        run.restart(name)
        halted = run.world.sites[name].halted
        if halted is None:
            raise BrokenPromise(f"{name} started on rot at {rot.position}")
        rot.expect(lambda halted=halted: _raise(halted))
    rot.undo()
    run.counts["F7"] += 1


def _raise(error: TowlineError) -> None:
    raise error


def disk_that_misplaces(run: FaultRun) -> None:
    """F8: a journal write is lost or lands elsewhere, a read is stale: nothing wrong is applied."""
    name = run.rng.choice(SITES)
    effect = run.rng.choice(("lost", "misdirected", "stale", "remote stale"))
    device = run.journal(name)
    skip = run.rng.randrange(3)
    if "stale" in effect:
        operation = "remote-read" if effect == "remote stale" else "read"
        fault = Fault(operation, "stale", skip, before=bytes(device.content), lowest=RING_AT)
    else:
        fault = Fault("write", effect, skip, lowest=RING_AT)
    world = run.world
    world.expected = (TowlineError,)
    run.write_batches(3)
    device.faults.append(fault)
    for _ in range(20):
        for each in SITES:
            if fault.struck or world.sites["a"].stack is None:
                break
            run.write_batches(1)
            for action in (World.pull, World.restore, World.checkpoint):
                stack = world.sites[each].stack
                if stack is not None and (each != "a" or action is World.checkpoint):
                    world.act(each, lambda action=action, stack=stack: action(world, stack))
    if not fault.struck:
        return
    device.faults.clear()
    if world.sites["a"].stack is not None:
        head = run.stack("a").journal.head
        run.write_batches(3)
        if head == run.stack("a").journal.head:
            raise Finished  # nothing follows a write that may be lost, so nothing can tell
    for each in SITES:
        site = world.sites[each]
        site.acknowledged = site.acknowledged._replace(position=0)
        before = world.oracle.promised
        run.restart(each)
        if each == "a" and site.stack is None:
            run.counts["F8 halted primary"] += 1
        assert world.oracle.promised == before
    run.counts["F8"] += 1
    run.counts[f"F8 {effect}"] += 1
    run.counts["F8 noticed"] += any(site.stack is None for site in world.sites.values())
    raise Finished


class Finished(Exception):
    """The scenario has damaged a disk for good: there is nothing to converge to."""


def journal_that_fails(run: FaultRun) -> None:
    """F10: a journal write or flush fails: no answer, the site halts; a restart keeps promises."""
    name = run.rng.choice(SITES)
    fault = Fault(
        run.rng.choice(("write", "flush")),
        skip=run.rng.randrange(4),
        forever=run.rng.random() < 0.5,
    )
    world = run.world
    device = run.journal(name)
    device.faults.append(fault)
    world.expected = (DeviceFailed,)
    restarts = 0
    for _ in range(150):
        world.step()
        site = world.sites[name]
        if site.halted is not None:
            _stays_distrusted(device)
            restarts += 1
            if restarts > 3:
                break
            if run.rng.random() < 0.5:
                site.machine.lose_power()
            run.restart(name)
    if not fault.struck:
        return
    run.counts["F10"] += 1
    run.counts["F10 during recovery"] += restarts > 1 and fault.forever


def _stays_distrusted(device: SimDevice) -> None:
    if not device.distrusted:
        raise BrokenPromise(f"{device.machine.name}: halted, but its journal is still trusted")
    assert isinstance(device, SimJournalDevice)
    raised(DeviceFailed, device.flush)


def volume_that_fails(run: FaultRun) -> None:
    """F11: a data volume fails: at the primary the answers stand and reads fail; redo mends it."""
    name = run.rng.choice("aabc")
    world = run.world
    volume = world.sites[name].machine[run.rng.choice(("db", "wal"))]
    fault = Fault(run.rng.choice(("write", "write", "flush")), skip=run.rng.randrange(3))
    volume.faults.append(fault)
    world.expected = (DeviceFailed,)
    answered = world.host.answered
    for _ in range(160):
        world.step()
    if not fault.struck:
        return
    stack = world.sites[name].stack
    if stack is not None:
        each = next(each for each in stack.volumes.values() if each.name == volume.name)
        raised(DeviceFailed, lambda: each.read_into(0, [memoryview(bytearray(BLOCK))]))
        if name == "a":
            run.write_batches(2)
            run.counts["F11 answers stand"] += world.host.answered > answered
    if run.rng.random() < 0.5:
        world.sites[name].machine.lose_power()
    run.restart(name)
    run.counts["F11"] += 1


def volume_that_cannot_be_read(run: FaultRun) -> None:
    """F13: a read error is an error to the host, never zeros; a comparison fails likewise."""
    a = run.stack("a")
    assert a.commit is not None
    volume = a.volumes[1]
    device = run.world.sites["a"].machine[volume.name]
    device.faults.append(Fault("read", forever=True))
    buffer = memoryview(bytearray(b"\xee" * BLOCK))
    raised(DeviceFailed, lambda: volume.read_into(0, [buffer]))
    if bytes(buffer) != b"\xee" * BLOCK:
        raise BrokenPromise("a failed read filled the host's buffer")
    if batch_length(1, BLOCK) > a.journal.free_bytes:
        return
    content = stamped(1 << 50, 1, 0, BLOCK)
    asked = Asked(1 << 50, 1, 0, content)
    request = HostWrite(
        run.world.host, 1, WriteKind.COMPARE_AND_WRITE, 0, BLOCK, [content], asked, content
    )
    for _ in range(20):
        if a.commit.waiting or a.in_flight:
            run.follow()
    if a.commit.waiting or a.in_flight:
        return
    run.world.host.outstanding[asked.stamp] = request
    a.commit.submit([request])
    run.world.journal_batch(a)
    run.world.apply_batch(a)
    if request.failure is not HostFailure.MEDIUM_ERROR:
        raise BrokenPromise(f"compare-and-write on a bad disk: {request.failure}")
    run.counts["F13"] += 1


def journal_that_cannot_be_read(run: FaultRun) -> None:
    """F13: an error reading a journal, the own or a peer's, is said and tried again."""
    name = run.rng.choice(SITES)
    operation = run.rng.choice(("read", "remote-read"))
    fault = Fault(operation, skip=run.rng.randrange(4))
    run.journal(name).faults.append(fault)
    run.world.expected = (DeviceFailed,)
    for _ in range(100):
        run.world.step()
        if run.world.sites[name].halted is not None:
            run.restart(name)
    run.counts["F13"] += fault.struck


def page_copy_that_rots(run: FaultRun) -> None:
    """F34: one copy of a page rots while its site is down: nothing it promised is forgotten."""
    name = run.rng.choice(SITES)
    for _ in range(run.rng.randint(1, 3)):
        run.write_batches(2)
        run.pull("b")
        run.pull("c")
        stack = run.stack(name)
        if run.rng.random() < 0.7:
            while name != "a" and stack.restore.step(0.0):
                pass
        if run.rng.random() < 0.3:
            stack.checkpoint.run(0.0)
    run.world.sites[name].acknowledged = stack.journal.body.head
    run.world.sites[name].machine.lose_power()
    run.journal(name).flip(run.rng.randrange(2 * BLOCK), run.rng.randrange(8))
    run.restart(name)
    run.counts["F34"] += 1


def peer_full_of_garbage(run: FaultRun) -> None:
    """F35: a peer's pages, catalog or ring are garbage: refused, nothing stored or reclaimed."""
    reader, source = run.rng.choice((("b", "a"), ("c", "b")))
    run.write_batches(3)
    if source == "b":
        run.pull("b")
    own, theirs = run.stack(reader), run.stack(source)
    theirs.checkpoint.run(0.0)
    device = run.journal(source)
    good = bytes(device.content)
    before = own.journal.head, own.journal.body.reclaim, dict(own.journal.peers)
    low = 0 if run.rng.random() < 0.5 else RING_AT
    device.content[low:] = run.rng.randbytes(len(good) - low)
    refused = False
    for action in (lambda: run.pull(reader), own.peers[source].look):
        try:
            action()
        except (PeerRefused, JournalRotten):
            refused = True
    if low == 0 and not refused:
        raise BrokenPromise(f"{reader} was content with garbage at {source}")
    own.checkpoint.run(0.0)
    if low == 0 and before != (own.journal.head, own.journal.body.reclaim, dict(own.journal.peers)):
        raise BrokenPromise(f"{reader} acted on garbage at {source}")
    if own.journal.head != before[0]:
        raise BrokenPromise(f"{reader} stored garbage of {source}")
    device.content[:] = good
    run.counts["F35"] += 1


def reader_that_is_overtaken(run: FaultRun) -> None:
    """F30: a slow reader that the source does not count: Detached or the truth, never a mix."""
    world, a = run.world, run.stack("a")
    journal = dataclasses.replace(a.journal.owner, peers=())
    a.journal.owner = journal
    c = run.stack("c")
    turns = 0

    def the_source_goes_on() -> None:
        nonlocal turns
        turns += 1
        if turns % 2 == 0:
            run.write_batches(run.rng.randint(1, 6))
            a.checkpoint.run(0.0)

    view = PeerView(lambda: run.journal("a"), lambda: True, the_source_goes_on)
    slow = Pull(
        c.journal, Peer("a", view, c.journal), world.shape.policy, c.clock, world.shape.pull_bytes
    )
    for _ in range(30):
        slow.due_at = float("-inf")
        try:
            slow.step(0.0)
        except Detached:
            run.counts["F30 overtaken"] += 1
            break
        world.oracle.prefix_at(c.journal.head.position)
        if world.points[c.journal.head.position] != c.journal.head:
            raise BrokenPromise(f"c mixed two turns of the ring at {c.journal.head}")
        while c.restore.step(0.0):
            pass
        world.oracle.judge_at(c.images(), c.journal.head.position, "the slow reader")
    run.counts["F30"] += 1
    raise Finished


def disk_that_is_blank(run: FaultRun) -> None:
    """F33: blank is not empty: a site whose journal was replaced by a blank disk refuses."""
    name = run.rng.choice(SITES)
    run.write_batches(2)
    machine = run.world.sites[name].machine
    blank = SimJournalDevice(machine, "blank", machine[JOURNAL].size_bytes)
    others = tuple(each for each in SITES if each != name)
    error = raised(NotAJournal, lambda: Journal.open(blank, Owner(GROUP, name, bytes(16), others)))
    if "format" not in str(error):
        raise BrokenPromise(f"no hint what to do: {error}")
    machine.devices.remove(blank)
    run.counts["F33"] += 1


SCENARIOS: tuple[Callable[[FaultRun], None], ...] = (
    rot_before_it_is_pulled,
    rot_on_the_way,
    rot_before_it_is_restored,
    rot_in_the_tail_before_a_restart,
    disk_that_misplaces,
    journal_that_fails,
    page_copy_that_rots,
    peer_full_of_garbage,
    reader_that_is_overtaken,
    volume_that_fails,
    volume_that_cannot_be_read,
    journal_that_cannot_be_read,
    disk_that_is_blank,
)


def run_fault(seed: int, parts: Parts = REAL) -> Counter[str]:
    """Run one scenario, chosen by the seed."""
    scenario = SCENARIOS[seed % len(SCENARIOS)]
    run = FaultRun(seed, parts)
    try:
        scenario(run)
    except Finished:
        return run.counts + Counter(fault_seeds=1)
    run.repair_and_converge()
    return run.counts + Counter(fault_seeds=1)
