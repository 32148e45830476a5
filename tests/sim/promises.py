"""What must hold after every step and every recovery of a simulated group."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from replicator.codec.page import PageDamaged, decode_page
from replicator.journal.journal import DEGRADED, INCONSISTENT
from replicator.journal.layout import OWNER_PAGE_AT, RingPlace
from replicator.model import BLOCK
from tests.sim.oracle import BrokenPromise
from tests.sim.plans import SITES
from tests.sim.site import JOURNAL, RING_AT, Stack

if TYPE_CHECKING:
    from tests.sim.world import World


def judge_recovered(world: World, name: str, stack: Stack) -> None:
    """Judge a site after its start; a primary only once it may serve."""
    site = world.sites[name]
    head = stack.journal.head
    if head.position < site.acknowledged.position:
        raise BrokenPromise(
            f"{name}: head {head.position} after recovery, it had acknowledged "
            f"{site.acknowledged.position}"
        )
    if name == "a" and stack.commit is None:
        return
    if name == "a":
        world.oracle.truncate(head.position)
        world.host.forget_outstanding()
        world.host.follow(stack.volumes)
        world.events.truncate(head.position)
        world.points = {
            position: point for position, point in world.points.items() if position <= head.position
        }
    consistent = stack.journal.gap is None and name not in world.rotten
    if stack.volumes and consistent and stack.applied.position == head.position:
        world.oracle.judge_at(stack.images(), head.position, f"{name} after recovery")
        world.counts["judged after recovery"] += 1
    world.counts["recoveries"] += 1


def check(world: World) -> None:
    """Check the positions of all sites against each other and the oracle."""
    for name, site in world.sites.items():
        stack = site.stack
        if stack is None:
            continue
        head = stack.journal.head
        known = world.points.get(head.position)
        if known is None or known != head:
            raise BrokenPromise(f"{name}: head {head} is not on the log, which has {known}")
        if stack.journal.attached:
            world.events.judge(name, stack.journal)
        world.holds.judge(stack)
        judge = stack.restore.judge
        if name not in world.alarmed and (judge.mismatches or stack.journal.body.verified.found):
            raise BrokenPromise(f"{name}: a false alarm: {judge.differs}")
        if (INCONSISTENT in stack.journal.body.marks) != (stack.journal.body.gap is not None):
            raise BrokenPromise(
                f"{name}: marked {stack.journal.body.marks} with no gap, or the other"
            )
        body = stack.journal.body
        reclaim = body.reclaim
        if reclaim > body.restored.position:
            raise BrokenPromise(f"{name}: reclaimed {reclaim} beyond its own checkpoint")
        for other, note in stack.journal.peers.items():
            if note.received[0] > durably_stated(world, other, note.received[0]):
                raise BrokenPromise(
                    f"{name}: counts {note.received[0]} as received by {other}, which has not "
                    "stated that durably"
                )
        for other in SITES:
            left_behind = stack.journal.maps.readers.get(other)
            if left_behind is not None and left_behind.end.position >= reclaim:
                continue
            if other != name and reclaim > durably_stated(world, other, reclaim):
                raise BrokenPromise(
                    f"{name}: reclaimed {reclaim}, {other} has not durably received that"
                )
        if head.position > body.ring_size:
            world.counts["F30"] += 1


def durably_stated(world: World, name: str, enough: int) -> int:
    """Return the head that a site's page would state after a power loss, if below ``enough``.

    What is noted after each step is the cheap answer; only if that is too low (a page was
    published in the middle of a step) the device is asked.
    """
    site = world.sites[name]
    if site.acknowledged.position < enough:
        device = site.machine[JOURNAL]
        durable = device.surviving(world.rng, "none")
        heads = []
        for copy in OWNER_PAGE_AT:
            with suppress(PageDamaged):
                heads.append(decode_page(bytes(durable[copy : copy + BLOCK])).body.head)
        site.acknowledged = max(site.acknowledged, *heads, key=lambda head: head.position)
    return site.acknowledged.position


def near_holds(world: World, position: int) -> bool:
    """Whether the near ring would hold the log up to ``position`` if its power went now."""
    near = world.shape.plan.near
    assert near is not None
    durable = world.sites[near].machine[JOURNAL].surviving(world.rng, "none")
    place = RingPlace(RING_AT, world.shape.ring_bytes[near])
    for _ in range(3):  # the last batches; those before were looked at in their time
        content = world.batches.get(position)
        if content is None:
            return position == 0
        pieces = place.segments(position - len(content), len(content))
        if b"".join(durable[at : at + length] for at, length in pieces) != content:
            return False
        position -= len(content)
    return True


def promise_of_the_link(world: World, stack: Stack, position: int) -> None:
    """Promise 2: before an answer the near site has it, or the degraded mark is durable."""
    if near_holds(world, position):
        world.counts["durable in both"] += 1
        return
    if world.shape.link == "sync-or-stop":
        raise BrokenPromise(f"{position} may be answered, and the near site does not hold it")
    if not degraded_durably(world):
        raise BrokenPromise(f"{position} may be answered alone without a durable degraded mark")
    world.counts["F12 degraded"] += 1


def degraded_durably(world: World) -> bool:
    """Whether the primary's page would say degraded if its power went now."""
    durable = world.sites["a"].machine[JOURNAL].surviving(world.rng, "none")
    pages = []
    for copy in OWNER_PAGE_AT:
        with suppress(PageDamaged):
            pages.append(decode_page(bytes(durable[copy : copy + BLOCK])))
    newest = max(pages, key=lambda page: page.generation)
    return DEGRADED in newest.body.marks
