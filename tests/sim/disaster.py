"""Lose the primary for good: the near ring is sealed, c drains it, and nothing answered is missing.

The sealing process is crashed on its way, again and again; writes that were still under way to the
near ring land, or do not, until the seal has shut their session out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.codec.batch import Point
from replicator.journal.journal import Owner
from tests.sim import actions
from tests.sim.oracle import BrokenPromise
from tests.sim.plans import SITES
from tests.sim.promises import degraded_durably
from tests.sim.site import GROUP, JOURNAL

if TYPE_CHECKING:
    from tests.sim.world import World

_ROUNDS = 200


def lose_the_primary(world: World) -> None:
    """End the primary, seal the near ring, let c reach the sealed pair, judge c."""
    near = world.shape.plan.near
    assert near is not None and world.leg is not None
    nothing_lost = world.shape.link == "sync-or-stop" or not degraded_durably(world)
    world.interleave = False
    a = world.sites["a"]
    a.machine.crash_at = None
    a.stack, a.powered = None, False
    if world.sites[near].stack is not None:
        world.crash_now(near)
    sealed = _sealed(world, near)
    if nothing_lost and world.points.get(sealed.position) != sealed:
        raise BrokenPromise(f"the near ring was sealed at {sealed}, which is not on the log")
    if world.points.get(sealed.position) == sealed:
        found = world.oracle.prefix_at(sealed.position)
        if nothing_lost and found < world.oracle.promised:
            raise BrokenPromise(
                f"{world.oracle.promised} records were promised, the near ring was sealed after "
                f"{found}"
            )
        _drain(world, near, sealed)
        world.counts["F12 nothing missing after a seal"] += nothing_lost
    world.counts["seals"] += 1


def _sealed(world: World, near: str) -> Point:
    site = world.sites[near]
    sealed: list[Point] = []
    leg = world.leg
    assert leg is not None

    def shut_out() -> None:
        while world.rng.random() < 0.3:
            leg.land()
        leg.shut_out = True
        leg.end_session()

    def attempt() -> None:
        device = site.machine[JOURNAL]
        others = tuple(each for each in SITES if each != near)
        owner = Owner(GROUP, near, world.rng.randbytes(16), others)
        journal = world.parts.journal.open(device, owner)  # type: ignore[arg-type]
        if not journal.attached:
            sealed.append(journal.head)  # it never met its primary, so nothing was answered
            return
        sealed.append(world.parts.seal(journal, shut_out, "the primary is gone"))

    for _ in range(_ROUNDS):
        if world.rng.random() < 0.5:
            world.crash_soon(near, within=6)
        else:
            site.machine.crash_at = None
        world.act(near, attempt)
        if sealed:
            site.machine.crash_at = None
            return sealed[-1]
        world.counts["seals crashed"] += 1
    raise BrokenPromise("the near ring could not be sealed")


def _drain(world: World, near: str, sealed: Point) -> None:
    world.cut.clear()
    for name in (near, "c"):
        world.sites[name].machine.crash_at = None
        if world.sites[name].stack is None:
            world.start(name)
    for _ in range(_ROUNDS):
        world.now += 1.0
        for name in (near, "c"):
            stack = world.sites[name].stack
            assert stack is not None
            for action in actions.choices(stack):
                world.act(name, lambda action=action, stack=stack: action(world, stack))
        c = world.sites["c"].stack
        assert c is not None
        if c.journal.head == sealed and c.applied == sealed:
            world.oracle.judge_at(c.images(), sealed.position, "c after the seal")
            return
        if c.journal.head.position > sealed.position:
            raise BrokenPromise(f"c has {c.journal.head}, the near ring was sealed at {sealed}")
        if not c.journal.attached and sealed.position == 0:
            return
    following = min(at for at in world.points if at > c.journal.head.position)
    if c.journal.free_bytes < following - c.journal.head.position:
        world.counts["drain ended by c's full ring"] += 1  # the dead primary counts as a reader
        return
    raise BrokenPromise(f"c did not reach the sealed pair {sealed}: {c.journal.head}")
