"""Operators who pause restore or stop it at a point, a delay and a load; and what must hold then.

Drawn from a chance of their own, in every third seed, so that the others stay as they are.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from replicator.codec.page import RestoreStop
from replicator.codec.topology import RestorePolicy
from replicator.movers.restore_pace import RestorePace
from tests.sim.oracle import BrokenPromise
from tests.sim.site import Stack

if TYPE_CHECKING:
    from tests.sim.world import World


class Holds:
    """What operators have told the restores of one world."""

    def __init__(self, seed: int, *, calm: bool) -> None:
        self._chance = random.Random(seed ^ 0x57A9)
        self._active = not calm and self._chance.random() < 1 / 3
        self._policy = RestorePolicy(
            load_limit=self._chance.choice((None, 0.5)),
            delay_seconds=self._chance.choice((0.0, 0.0, 2.0, 20.0)),
        )
        self._told_at: dict[str, tuple[int, int]] = {}
        """Position and log time that a site's volumes were at when it was told."""
        self._held: set[str] = set()
        """Sites whose operator was told that the hold is durable."""

    def pace(self, stack: Stack) -> None:
        """Give a site's restore its pace, as a secondary's daemon does before it restores."""
        if self._active and stack.volumes and stack.name != "a":
            stack.restore.pace = RestorePace(stack.journal, self._policy, self._chance.random)

    def tell(self, world: World, stack: Stack) -> None:
        """Pause or stop a restore now and then, or let it go on."""
        journal = stack.journal
        if stack.restore.pace is None or not journal.attached or journal._lock.locked():
            return
        if journal.body.restore_stop is not None:
            if self._chance.random() < 0.25:
                self._held.discard(stack.name)
                journal.set_restore_stop(None)
            return
        if self._chance.random() < 0.15:
            applied = stack.restore.applied
            self._told_at[stack.name] = (applied.position, applied.time_ns)
            journal.set_restore_stop(self._drawn(world, stack))
            self._held.add(stack.name)
            world.counts["restore held"] += 1

    def _drawn(self, world: World, stack: Stack) -> RestoreStop:
        kind = self._chance.choice(("paused", "position", "time", "bookmark"))
        ahead = [
            point
            for point in world.points.values()
            if point.position >= stack.restore.applied.position
        ]
        point = self._chance.choice(ahead) if ahead else stack.restore.applied
        if kind == "position":
            return RestoreStop("position", value=point.position + self._chance.choice((0, 4096)))
        if kind == "time":
            return RestoreStop("time", value=point.time_ns)
        return RestoreStop("bookmark", name="here") if kind == "bookmark" else RestoreStop("paused")

    def may_wait(self, stack: Stack) -> bool:
        """Whether restore may have to publish, which waits while another mover does."""
        stop = stack.journal.body.restore_stop
        return stop is not None and stop.kind == "bookmark"

    def judge(self, stack: Stack) -> None:
        """A restore that was told to stop is not beyond that, over all restarts."""
        stop = stack.journal.body.restore_stop
        if stop is None and stack.name in self._held:
            raise BrokenPromise(f"{stack.name}: has forgotten that its restore is held")
        if stop is None or stack.name not in self._told_at:
            return
        at_position, at_time = self._told_at[stack.name]
        applied = stack.restore.applied
        beyond = {
            "paused": applied.position > at_position,
            "position": applied.position > max(stop.value, at_position),
            "time": applied.time_ns > max(stop.value, at_time),
            "bookmark": False,
        }[stop.kind]
        if beyond:
            raise BrokenPromise(
                f"{stack.name}: restore is at {applied.position}, time {applied.time_ns}, beyond "
                f"{stop}, told at {at_position}"
            )

    def end(self, stack: Stack) -> None:
        """Let a restore go on for good."""
        stack.restore.pace = None
        self._held.discard(stack.name)
        if stack.journal.body.restore_stop is not None:
            stack.journal.set_restore_stop(None)
