"""Heal a simulated group and let it converge: every site must end equal to what hosts were told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.sim import actions
from tests.sim.oracle import BrokenPromise
from tests.sim.plans import SITES
from tests.sim.promises import check
from tests.sim.site import Stack

if TYPE_CHECKING:
    from tests.sim.world import World

_LONGEST_CONVERGENCE = 3000
"""Rounds in which healed sites must become equal."""


def converge(world: World) -> None:
    """Heal everything; every site must become equal to what the hosts were answered."""
    world.cut.clear()
    world.interleave = False
    for _ in range(_LONGEST_CONVERGENCE):
        world.now += 1.0
        for name in SITES:
            site = world.sites[name]
            site.machine.crash_at = None
            if site.stack is None:
                world.start(name)
            if site.stack is not None:
                world.act(name, lambda stack=site.stack: world.holds.end(stack))
        if follow_round(world):
            return
    raise BrokenPromise(f"no convergence: {describe(world)}")


def follow_round(world: World) -> bool:
    """Let every site do each of its things once; True if all are equal, idle and judged."""
    a, b, c = (world.sites[name].stack for name in SITES)
    assert a is not None and b is not None and c is not None
    if a.link is not None:
        world.act("a", lambda: actions.tend_link(world, a))
    if a.commit is None:
        return _follow(world, (b, c))
    world.act("a", lambda: actions.journal_batch(world, a))
    actions.apply_batch(world, a)
    _follow(world, (a, b, c))
    check(world)
    if any(stack.journal.gap is not None for stack in (a, b, c)):
        return False
    if a.resync is not None and a.resync.now is not None:
        return False
    if a.commit.waiting or a.commit.ahead or a.in_flight:
        return False
    if len({x.applied for x in (a, b, c)}) > 1:
        return False
    assert not world.host.outstanding
    for stack in (a, b, c):
        for volume_id, image in stack.images().items():
            if image != world.oracle.image[volume_id]:
                raise BrokenPromise(f"{stack.name}: volume {volume_id} differs at the end")
    return True


def _follow(world: World, stacks: Sequence[Stack]) -> bool:
    """Let sites receive, restore, publish and look; False, for they may not be equal yet."""
    for stack in stacks:
        if stack.near is not None:
            for _ in range(8):
                world.act(stack.name, lambda stack=stack: actions.follow_writer(world, stack))
        if stack.pull is not None:
            stack.pull.due_at = float("-inf")
            world.act(stack.name, lambda stack=stack: stack.pull.step(world.now))
        while stack.volumes and stack.name != "a" and stack.restore.step(world.now):
            pass
        actions.checkpoint(world, stack)
        actions.make_room(world, stack)
        actions.resync(world, stack)
        for peer in sorted(stack.peers):
            world.act(stack.name, stack.peers[peer].look)
        world.note_published(stack.name)
    return False


def describe(world: World) -> str:
    """Say where every site stands."""
    parts = []
    for name, site in world.sites.items():
        stack = site.stack
        if stack is None:
            parts.append(f"{name}: down ({site.halted})")
            continue
        parts.append(
            f"{name}: head {stack.journal.head.position} applied {stack.applied.position} "
            f"restored {stack.journal.restored.position} reclaim {stack.journal.reclaim}"
            + (f" link {stack.link.state.value} ({stack.link.reason})" if stack.link else "")
        )
    return "; ".join(parts)
