"""What the sites of a simulated group do: one small thing each, as their threads would."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from replicator.codec.records import RecordKind
from replicator.errors import DeviceFailed, JournalFailed
from replicator.model import BLOCK, ChunkRecord
from replicator.movers.commit import Prepared
from tests.sim.oracle import BrokenPromise
from tests.sim.promises import judge_recovered, near_holds, promise_of_the_link
from tests.sim.site import Stack

if TYPE_CHECKING:
    from tests.sim.world import World

Action = Callable[["World", Stack], None]


def host_asks(world: World, stack: Stack) -> None:
    """Let hosts ask for a few changes."""
    assert stack.commit is not None
    if (
        stack.later and world.rng.random() < 0.5
    ):  # a host may still write to a volume that was removed
        world.host.follow(stack.volumes)
    if len(world.host.outstanding) < 24:
        stack.commit.submit(world.host.ask(world.rng.choice((1, 1, 2, 5, 12))))
    if world.rng.random() < 0.1:
        stack.commit.submit_control(world.events.ask(stack.commit.waiting_own))
    if world.rng.random() < 0.1 and stack.commit.waiting_own < 4:
        stack.commit.submit_chunks(_chunks(world, stack))


def _chunks(world: World, stack: Stack) -> list[ChunkRecord]:
    """Choose pieces of volumes to be copied or verified, as resync and verification do."""
    assert stack.commit is not None
    rng = world.rng
    chunks = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        volume = stack.volumes[rng.choice(sorted(stack.volumes))]
        kind = rng.choice((RecordKind.COPY, RecordKind.VERIFY, RecordKind.VERIFY))
        blocks = min(stack.commit.longest_chunk, volume.size_bytes) // BLOCK
        length = rng.randint(1, blocks) * BLOCK
        offset = rng.randrange((volume.size_bytes - length) // BLOCK + 1) * BLOCK
        chunks.append(ChunkRecord(kind, volume.volume_id, offset, length))
    return chunks


def verify(world: World, stack: Stack) -> None:
    """Go on with a verification, begin one, or stop it, as the verify thread and operators do."""
    mover = stack.verify
    assert mover is not None and stack.commit is not None
    run = mover.run
    if run is None or run.state != "running":
        if world.rng.random() < 0.2:
            rate = world.rng.choice((4, 64, 1024)) * BLOCK
            mover.start(float(rate), repeat=world.rng.random() < 0.5)
    elif world.rng.random() < 0.02:
        mover.stop()
    if stack.commit.waiting_own < 4 and mover.step(stack.clock.monotonic()):
        world.counts["verify steps"] += 1


def journal_batch(world: World, stack: Stack) -> None:
    """Journal one batch, as the commit thread does."""
    commit = stack.commit
    if commit is None:
        return
    if len(stack.in_flight) > 1 or (commit.next_reads and stack.in_flight):
        return
    held = commit.ahead
    prepared = held or commit.prepare()
    if prepared is None:
        if commit.waiting:
            world.counts["held"] += 1
        return
    if held is None:
        _note_journaled(world, stack, prepared)
    if not commit.append(prepared):
        world.counts["F12 held"] += 1
        return
    stack.in_flight.append(prepared)
    if stack.link is not None:
        promise_of_the_link(world, stack, prepared.end.position)


def _note_journaled(world: World, stack: Stack, prepared: Prepared) -> None:
    """Tell the oracle what the batch is, in log order, before it is written."""
    for request in prepared.requests:
        world.host.journaled(request)
    world.events.journaled(prepared)
    chunks = sum(isinstance(each, ChunkRecord) for each in prepared.own)
    world.counts["chunks"] += chunks
    world.counts["events"] += len(prepared.own) - chunks
    if prepared.contents:
        if prepared.end.time_ns < stack.journal.head.time_ns:
            raise BrokenPromise(f"the log's time went back at {prepared.end.position}")
        world.oracle.end_batch(prepared.end.position)
        world.points[prepared.end.position] = prepared.end
        length = prepared.end.position - stack.journal.head.position
        world.batches[prepared.end.position] = bytes(prepared.content[:length])


def apply_batch(world: World, stack: Stack) -> None:
    """Write a journaled batch to the volumes and answer it, as the apply thread does."""
    commit = stack.commit
    if commit is not None and stack.in_flight:
        prepared = stack.in_flight[0]
        commit.apply(prepared)
        commit.answer(prepared)
        stack.in_flight.popleft()
        if world.rng.random() < 0.05 and not commit.failed_volumes:
            position = commit.applied.position
            world.oracle.judge_at(stack.images(), position, "a while serving")


def checkpoint(world: World, stack: Stack) -> None:
    """Checkpoint or publish; a volume that failed keeps the checkpoint where it is (F11)."""
    try:
        stack.checkpoint.step(stack.clock.monotonic())
    except JournalFailed:
        raise
    except DeviceFailed:
        if DeviceFailed not in world.expected:
            raise
        stack.checkpoint.hold()


def look(world: World, stack: Stack) -> None:
    """Look at a peer's pages."""
    stack.peers[world.rng.choice(sorted(stack.peers))].look()


def pull(world: World, stack: Stack) -> None:
    """Pull once, due or not."""
    assert stack.pull is not None
    if world.rng.random() < 0.7:
        stack.pull.due_at = float("-inf")
    gaps = stack.pull.gaps_taken
    now = stack.clock.monotonic()
    report = stack.pull.step(now)
    world.counts["gaps"] += stack.pull.gaps_taken - gaps
    if report is not None:
        stack.pace.judge(stack.pull, stack.peers[report.source], report, now)
        world.counts["decisions judged"] += 1
    if report is not None and report.records:
        world.counts["pulls"] += 1
        source = world.sites[report.source]
        world.note_head(source)
        if report.source == world.shape.plan.near:
            if not near_holds(world, stack.journal.head.position):
                raise BrokenPromise(f"{stack.name} took what the near ring does not durably hold")
        elif source.stack and stack.journal.head.position > source.furthest:
            raise BrokenPromise(
                f"{stack.name} took {stack.journal.head.position} from {report.source}, which "
                f"durably held only {source.furthest}"
            )


def follow_writer(world: World, stack: Stack) -> None:
    """See how far the primary has proved the own ring, as the near site's owner."""
    assert stack.near is not None
    if stack.near.step(stack.clock.monotonic()):
        world.counts["followed the writer"] += 1
        if not near_holds(world, stack.journal.head.position):
            raise BrokenPromise(f"{stack.name} believes more than its ring durably holds")


def tend_link(world: World, stack: Stack) -> None:
    """Let a primary that has restarted be admitted, or do what is next for its sync link."""
    link = stack.link
    if link is None or stack.calls.busy:
        return
    if stack.commit is not None:
        state = link.state
        link.step(stack.clock.monotonic())
        if link.state is not state:
            world.counts[f"link {link.state.value}"] += 1
    elif link.admit():
        stack.serve()
        judge_recovered(world, stack.name, stack)
        world.counts["admitted"] += 1
        promise_of_the_link(world, stack, stack.journal.head.position)
    else:
        world.counts["F12 held at start"] += 1


def restore(world: World, stack: Stack) -> None:
    """Restore one window."""
    if not stack.volumes or stack.name == "a":
        return
    world.holds.tell(world, stack)
    if stack.commit is None and stack.restore.step(stack.clock.monotonic()):
        world.counts["restores"] += 1
        world.counts["verified"] += stack.restore.judge.verified_bytes > 0
        applied = stack.restore.applied.position
        if applied >= stack.recovered.head.position and stack.journal.gap is None:
            world.oracle.judge_at(stack.images(), applied, f"{stack.name} restoring")


def make_room(world: World, stack: Stack) -> None:
    """Leave a reader behind if the ring is full, or forget the map of one that has caught up."""
    before = stack.room.detached
    stack.room.step(stack.clock.monotonic())
    world.counts["F14"] += stack.room.detached - before


def resync(world: World, stack: Stack) -> None:
    """Send a little of what inconsistent sites miss."""
    if stack.resync is not None:
        sent = stack.resync.last
        stack.resync.step(stack.clock.monotonic())
        world.counts["resyncs"] += stack.resync.last is not sent


PRIMARY: tuple[Action, ...] = (
    host_asks,
    host_asks,
    journal_batch,
    journal_batch,
    journal_batch,
    apply_batch,
    apply_batch,
    apply_batch,
    checkpoint,
    look,
    look,
    verify,
    make_room,
    resync,
    resync,
)
WITH_LINK: tuple[Action, ...] = (*PRIMARY, tend_link, tend_link)
NOT_SERVING: tuple[Action, ...] = (tend_link, look)
SECONDARY: tuple[Action, ...] = (
    pull,
    pull,
    restore,
    restore,
    checkpoint,
    look,
    make_room,
)
NEAR: tuple[Action, ...] = (
    follow_writer,
    follow_writer,
    restore,
    restore,
    checkpoint,
    look,
    make_room,
)


def choices(stack: Stack) -> tuple[Action, ...]:
    """Return what a site may do now."""
    if stack.name != "a":
        return NEAR if stack.near is not None else SECONDARY
    if stack.link is None:
        return PRIMARY
    return WITH_LINK if stack.commit is not None else NOT_SERVING


MEANWHILE: dict[str, tuple[Action, ...]] = {
    "journal_batch": (apply_batch, checkpoint, tend_link),
    "apply_batch": (journal_batch, checkpoint, tend_link),
    "follow_writer": (restore, checkpoint),
    "pull": (restore,),
    "restore": (pull, follow_writer, checkpoint),
    "checkpoint": (restore, journal_batch, apply_batch),
}
"""What other threads of a site may do while one is in the middle of an action."""

PUBLISHING = ("pull", "checkpoint", "tend_link", "make_room", "follow_writer")
"""Actions that would wait for the journal's lock while another thread is publishing."""
