"""Disks that fail, rot, lie and misplace: one fault a seed, and what must hold afterwards.

Each scenario runs three sites without other trouble, injects its fault, looks at what the sites
say and do, takes the fault away, and lets everything converge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from replicator.codec.batch import batch_length
from replicator.errors import (
    DeviceFailed,
    JournalRotten,
    NotAJournal,
    PeerRefused,
    TowlineError,
)
from replicator.journal.journal import Journal, Owner
from replicator.model import BLOCK, HostFailure, HostWrite, WriteKind
from tests.sim import actions
from tests.sim.devices import Fault, SimDevice, SimJournalDevice
from tests.sim.fault_run import FaultRun, Finished, Rot, raised
from tests.sim.host import stamped
from tests.sim.oracle import Asked, BrokenPromise
from tests.sim.peer_faults import peer_full_of_garbage, reader_that_is_overtaken
from tests.sim.plans import SITES
from tests.sim.promises import check
from tests.sim.site import GROUP, JOURNAL, REAL, RING_AT, Parts
from tests.sim.volume_faults import volume_that_rots


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
    in_ring = run.rng.random() < 0.5
    run.write_batches(1 if in_ring else 4)
    if source == "b":
        run.pull("b")
    run.stack(source).checkpoint.run(0.0)
    lowest, skip = (RING_AT, 0) if in_ring else (0, run.rng.randrange(3))
    run.journal(source).faults.append(Fault("remote-read", "flipped", skip=skip, lowest=lowest))
    try:
        run.pull(reader)
    except (JournalRotten, PeerRefused):
        run.counts["F6 refused once"] += 1
    check(run.world)
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
            for action in (actions.pull, actions.restore, actions.checkpoint):
                stack = world.sites[each].stack
                if stack is not None and (each != "a" or action is actions.checkpoint):
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
    actions.journal_batch(run.world, a)
    actions.apply_batch(run.world, a)
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
    volume_that_rots,
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
