"""Crash after every operation of every device of all three sites, recover, go on.

A world runs on, undisturbed. After each operation that changes a device (and so also before the
next one, and in its middle: the operation's own sectors are kept or lost one by one) the machine
is forked as it would come up if the power went right then, or only the process was killed. The
fork must recover, hold what it promised, be exactly a prefix, take new records, and read them
back after one more crash; the recovery itself is crashed again and again on the way (F4).
"""

from __future__ import annotations

import random
from collections import Counter

from replicator.errors import PeerRefused
from replicator.model import SECTOR, HostWrite, WriteKind
from tests.sim.convergence import converge
from tests.sim.devices import Machine, SimDevice, SimulatedCrash
from tests.sim.host import stamped
from tests.sim.oracle import BrokenPromise
from tests.sim.plans import SITES
from tests.sim.site import JOURNAL, REAL, Parts, SimClock, Stack
from tests.sim.views import PeerView
from tests.sim.world import World

STEPS = 250
"""Steps of the world under one seed: about 600 crash points."""

_AGAIN = 1 << 40
"""Stamps of the writes that a recovered primary takes."""


class CrashPoints:
    """Runs one world and forks it at every operation."""

    def __init__(self, seed: int, parts: Parts = REAL, most: int = 1 << 60) -> None:
        self.world = World(seed, parts, calm=True)
        self.counts: Counter[str] = Counter()
        self._parts = parts
        self._most = most
        self._rng = random.Random(seed ^ 0x5EED)
        self._again = _AGAIN

    def run(self) -> Counter[str]:
        """Run the world to its end, or until enough points were tried; return the counts."""
        for name in SITES:
            self.world.sites[name].machine.observers.append(self._at_operation)
        for _ in range(STEPS):
            self.world.step()
            if self.counts["crash points"] >= self._most:
                break
        for name in SITES:
            self.world.sites[name].machine.observers.clear()
        converge(self.world)
        return self.counts

    def _at_operation(self, device: SimDevice, operation: str) -> None:
        name = device.machine.name
        self.counts["crash points"] += 1
        self.counts[f"crash points {name} {device.kind} {operation}"] += 1
        self.counts["F1" if name == "a" else "F2"] += 1
        seed = self._rng.randrange(1 << 60)
        if self._rng.random() < 0.75:
            fork = device.machine.fork_after_power_loss(seed)
        else:
            fork = device.machine.fork_after_kill(seed)
            self.counts["kills"] += 1
        site = self.world.sites[name]
        promised = site.acknowledged.position
        if site.stack is not None:
            promised = max(promised, site.stack.journal.body.head.position)
        stack = self._recover(fork, promised)
        if name == "a":
            self._append_again(fork, stack)
        else:
            self._pull_again(fork, stack)

    def _recover(self, fork: Machine, promised: int) -> Stack:
        """Recover, with more crashes on the way in every fourth case; judge the volumes."""
        patience = self._rng.randint(1, 4) if self._rng.random() < 0.25 else 0
        while patience:
            fork.crash_at = fork.operations + self._rng.randint(1, 3 * patience)
            fork.crash_phase = self._rng.choice(("before", "middle", "after"))
            try:
                self._boot(fork)
            except SimulatedCrash:
                self.counts["F4"] += 1
            if self._rng.random() < 0.7:
                fork.lose_power()
            else:
                fork.kill()
            patience -= 1
        stack = self._boot(fork)
        head = stack.journal.head.position
        if head < promised:
            raise BrokenPromise(f"{fork.name}: head {head}, it had acknowledged {promised}")
        oracle = self.world.oracle
        if fork.name == "a" and oracle.prefix_at(head) < oracle.promised:
            raise BrokenPromise(
                f"a: {oracle.prefix_at(head)} records are left, {oracle.promised} were answered"
            )
        if self.world.points[head] != stack.journal.head:
            raise BrokenPromise(f"{fork.name}: head {stack.journal.head} is not on the log")
        oracle.judge_at(stack.images(), head, f"{fork.name} after a crash")
        return stack

    def _boot(self, fork: Machine) -> Stack:
        sites = self.world.sites
        views = {
            owner: PeerView(lambda owner=owner: sites[owner].machine[JOURNAL], lambda: True)
            for owner in SITES
            if owner != fork.name
        }
        clock = SimClock(lambda: self.world.now)
        boot_id = self._rng.randbytes(16)
        return Stack(fork, self.world.shape, views, clock, boot_id, self._parts)

    def answer(self, requests: list[HostWrite]) -> None:
        """Take the answers of a recovered primary (AnswerSink)."""
        for request in requests:
            assert request.failure is None
            request.tag = "answered"

    def _append_again(self, fork: Machine, stack: Stack) -> None:
        """Take two writes, make a checkpoint, crash once more, and read everything back."""
        commit = stack.commit
        assert commit is not None
        expected = self.world.oracle.image_at(
            self.world.oracle.prefix_at(stack.journal.head.position)
        )
        requests = []
        for _ in range(2):
            self._again += 1
            volume_id = self._rng.choice(sorted(stack.volumes))
            sectors = stack.volumes[volume_id].size_bytes // SECTOR
            offset = self._rng.randrange(sectors - 2) * SECTOR
            content = stamped(self._again, volume_id, offset, 2 * SECTOR)
            request = HostWrite(self, volume_id, WriteKind.WRITE, offset, len(content), [content])
            commit.submit([request])
            if not commit.step(0.0):
                break
            expected[volume_id][offset : offset + len(content)] = content
            requests.append(request)
        if self._rng.random() < 0.5:
            stack.checkpoint.run(stack.clock.monotonic())
        assert all(request.tag == "answered" for request in requests)
        fork.lose_power()
        again = self._boot(fork)
        if any(image != expected[volume_id] for volume_id, image in again.images().items()):
            raise BrokenPromise("a: what was appended after the recovery is not read back")
        self.counts["appended again"] += bool(requests)

    def _pull_again(self, fork: Machine, stack: Stack) -> None:
        """Pull what there is, restore it, crash once more, and judge again."""
        assert stack.pull is not None
        before = stack.journal.head.position
        for _ in range(2):
            stack.pull.due_at = float("-inf")
            try:
                stack.pull.step(stack.clock.monotonic())
            except PeerRefused as error:
                if not self.world.expects_of_peer(error):
                    raise
            while stack.restore.step(stack.clock.monotonic()):
                pass
            stack.checkpoint.run(stack.clock.monotonic())
        head = stack.journal.head.position
        self.world.oracle.judge_at(stack.images(), head, f"{fork.name} pulled again")
        fork.lose_power()
        again = self._boot(fork)
        if again.journal.head.position != head:
            raise BrokenPromise(f"{fork.name}: head went from {head} to {again.journal.head}")
        self.world.oracle.judge_at(again.images(), head, f"{fork.name} crashed again")
        self.counts["pulled again"] += head > before
