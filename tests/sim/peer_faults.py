"""Readers among faults: a source full of garbage, and one that overtakes a slow reader."""

from __future__ import annotations

import dataclasses

from replicator.errors import Detached, JournalRotten, PeerRefused
from replicator.journal.peer import Peer
from replicator.movers.pull import Pull
from tests.sim.fault_run import FaultRun, Finished
from tests.sim.oracle import BrokenPromise
from tests.sim.site import RING_AT
from tests.sim.views import PeerView


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
    own.checkpoint.run(0.0)  # what it knows already may free space
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
        after = own.journal.head, own.journal.body.reclaim, dict(own.journal.peers)
        raise BrokenPromise(f"{reader} acted on garbage at {source}: {before}, then {after}")
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
