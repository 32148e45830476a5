"""What must hold after every step and every recovery of a simulated group."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from replicator.codec.page import PageDamaged, decode_page
from replicator.journal.layout import OWNER_PAGE_AT
from replicator.model import BLOCK
from tests.sim.oracle import BrokenPromise
from tests.sim.plans import SITES
from tests.sim.site import JOURNAL, Stack

if TYPE_CHECKING:
    from tests.sim.world import World


def judge_recovered(world: World, name: str, stack: Stack) -> None:
    site = world.sites[name]
    head = stack.journal.head
    if head.position < site.acknowledged.position:
        raise BrokenPromise(
            f"{name}: head {head.position} after recovery, it had acknowledged "
            f"{site.acknowledged.position}"
        )
    if name == "a":
        world.oracle.truncate(head.position)
        world.host.forget_outstanding()
        world.events.truncate(head.position)
        world.points = {
            position: point for position, point in world.points.items() if position <= head.position
        }
    if stack.applied.position == head.position:
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
        if stack.restore.judge.mismatches or stack.journal.body.verified.found:
            raise BrokenPromise(f"{name}: a false alarm: {stack.restore.judge.differs}")
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
