"""A world that has run for a while without trouble, and the means to break its disks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from replicator.errors import JournalRotten, TowlineError
from replicator.model import BLOCK
from tests.sim import actions
from tests.sim.convergence import converge, describe, follow_round
from tests.sim.devices import SimDevice
from tests.sim.oracle import BrokenPromise
from tests.sim.plans import SITES
from tests.sim.site import JOURNAL, REAL, Parts, Stack
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
        assert stack is not None, describe(self.world)
        return stack

    def journal(self, name: str) -> SimDevice:
        """Return a site's journal device."""
        return self.world.sites[name].machine[JOURNAL]

    def follow(self) -> None:
        """Let everybody follow once, so that the primary's ring has room again."""
        self.world.cut.clear()
        follow_round(self.world)

    def write_batches(self, how_many: int) -> None:
        """Let the primary journal, apply and answer batches, as far as it has room."""
        world, a = self.world, self.stack("a")
        assert a.commit is not None
        for _ in range(how_many):
            a.commit.submit(world.host.ask(2))
            actions.journal_batch(world, a)
            while a.in_flight:
                actions.apply_batch(world, a)

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
        converge(self.world)


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


class Finished(Exception):
    """The scenario has damaged a disk for good: there is nothing to converge to."""
