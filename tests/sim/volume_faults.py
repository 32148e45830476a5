"""Volumes that change by themselves: verification must name the places, a repair must mend them."""

from __future__ import annotations

from replicator.codec.differing import overlaps
from replicator.codec.page import Differing
from replicator.group.verification import ask_repair
from replicator.model import BLOCK
from replicator.movers.repair import Repair
from tests.sim import actions
from tests.sim.fault_run import FaultRun
from tests.sim.oracle import BrokenPromise
from tests.sim.site import Stack

_MOST_ROUNDS = 400


class _Verified:
    """A world in which one secondary's volumes are verified, and wrong."""

    def __init__(self, run: FaultRun, name: str) -> None:
        self._run = run
        self._name = name
        self._chunk = min(4 * BLOCK, run.stack("a").commit.longest_chunk)  # type: ignore[union-attr]
        run.world.rotten.add(name)
        run.world.alarmed.add(name)

    @property
    def stack(self) -> Stack:
        return self._run.stack(self._name)

    def everywhere(self) -> None:
        """Journal and apply what waits, bring everybody up to date, look at each other."""
        run, world = self._run, self._run.world
        a = run.stack("a")
        assert a.commit is not None
        for _ in range(4):
            actions.journal_batch(world, a)
            while a.in_flight:
                actions.apply_batch(world, a)
        a.checkpoint.run(0.0)
        for name in "bc":
            run.pull(name)
            stack = run.stack(name)
            while stack.restore.step(0.0):
                pass
            stack.checkpoint.run(0.0)
            world.note_published(name)
        for name in "abc":
            for peer in run.stack(name).peers.values():
                peer.look()
        world.now += 1.0

    def settle(self) -> None:
        """Go on until the site has restored all that the primary has journaled."""
        for _ in range(_MOST_ROUNDS):
            self.everywhere()
            commit = self._run.stack("a").commit
            assert commit is not None
            if not commit.waiting and self.stack.restore.applied == commit.applied:
                return
        raise BrokenPromise(f"{self._name} does not catch up")

    def run_pass(self, *, load: bool, restart: bool) -> None:
        """Verify all volumes once, with host writes and a killed site in between if wanted."""
        run = self._run
        verify = run.stack("a").verify
        assert verify is not None
        verify.start(1e9, repeat=False)
        for round_number in range(_MOST_ROUNDS):
            if load and run.rng.random() < 0.5:
                run.write_batches(1)
            verify.step(run.world.now)
            self.everywhere()
            if restart and round_number == 1:
                run.restart(self._name)
            state = run.stack("a").journal.body.verify_run
            if state is not None and state.state == "finished":
                self.settle()
                return
        raise BrokenPromise("a pass of the verification does not end")

    def flip(self) -> list[Differing]:
        """Let bits of a few chunks flip, and return these chunks."""
        rng, hit = self._run.rng, []
        for _ in range(rng.randint(1, 4)):
            volume = self.stack.volumes[rng.choice(sorted(self.stack.volumes))]
            start = rng.randrange(volume.size_bytes // self._chunk) * self._chunk
            piece = Differing(volume.volume_id, start, self._chunk, 0)
            if not overlaps(hit, [piece]):
                device = self._run.world.sites[self._name].machine[volume.name]
                device.flip(start + rng.randrange(self._chunk), rng.randrange(8))
                hit.append(piece)
        return hit

    def truly_differing(self) -> list[Differing]:
        """Return the sectors in which the site's volumes differ from what they should be."""
        found = []
        for volume_id, image in self.stack.images().items():
            good = self._run.world.oracle.image[volume_id]
            found += [
                Differing(volume_id, at, 512, 0)
                for at in range(0, len(good), 512)
                if good[at : at + 512] != image[at : at + 512]
            ]
        return found

    def repair(self) -> None:
        """Ask for the pieces and let the primary send them."""
        a = self._run.stack("a")
        assert a.commit is not None
        mover = Repair(a.journal, a.commit.submit_chunks, self._chunk)
        ask_repair(self.stack.journal)
        while mover.look(self._name, self.stack.journal.body.verified):
            self.settle()


def volume_that_rots(run: FaultRun) -> None:
    """F8: bits of a secondary's volumes flip: each is named, nothing else is, all are mended."""
    name = run.rng.choice("bc")
    verified = _Verified(run, name)
    verified.settle()
    hit = verified.flip()
    load, restart = run.rng.random() < 0.5, run.rng.random() < 0.3
    if load or restart:
        verified.run_pass(load=load, restart=restart)
    verified.run_pass(load=False, restart=False)
    listed = verified.stack.restore.judge.differs
    for piece in verified.truly_differing():
        if not overlaps(listed, [piece]):
            raise BrokenPromise(f"{name}: {piece} differs and is not listed: {listed}")
    for piece in listed:
        if not overlaps(hit, [piece]):
            raise BrokenPromise(f"{name}: a false alarm: {piece}, flipped were {hit}")
    if listed:
        run.counts["F8 found on volumes"] += len(hit)
        verified.repair()
    if verified.stack.restore.judge.differs or verified.truly_differing():
        raise BrokenPromise(f"{name}: not mended: {verified.stack.restore.judge.differs}")
    run.world.rotten.clear()
    run.counts["F8"] += 1
