"""Three sites in one process, driven from a seed, with every promise checked.

One step is one small thing: a host asks, a batch is journaled, applied or answered, a site pulls,
restores, makes a checkpoint or looks at a peer; or something breaks: a link, a clock, a machine
(between two operations of a device or in the middle of one). After each step the positions of all
sites are checked against each other and against the oracle; after each recovery whole images are
(promises.py). Who reads whom is the plan's word (plans.py), what sites do is in actions.py.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from replicator.codec.batch import Point
from replicator.errors import Detached, DeviceFailed, TowlineError
from tests.sim import actions
from tests.sim.convergence import converge
from tests.sim.devices import Machine, SimDevice, SimulatedCrash
from tests.sim.disaster import lose_the_primary
from tests.sim.events import Events
from tests.sim.holds import Holds
from tests.sim.host import Host
from tests.sim.oracle import BrokenPromise, Oracle
from tests.sim.plans import ASYNC, SITES, Plan, draw_shape
from tests.sim.promises import check, judge_recovered
from tests.sim.site import JOURNAL, REAL, Parts, SimClock, Stack, make_machine
from tests.sim.views import LegView, PeerView


class Site:
    """A machine, and the stack on it while it is up."""

    def __init__(self, machine: Machine, clock: SimClock) -> None:
        self.machine = machine
        self.clock = clock
        self.stack: Stack | None = None
        self.powered = True
        """Whether its journal LUN is served: a killed process leaves the kernel serving."""
        self.halted: TowlineError | None = None
        self.boots = 0
        self.acknowledged = Point(0, bytes(16), 0, 0)
        """The furthest head that it has durably published."""
        self.furthest = 0
        """The furthest head that was ever durable in its ring."""
        self.busy = False
        self.doing = ""
        """The action that is under way, by name: what other threads may do in its middle."""


class World:
    """The simulation of one seed."""

    def __init__(
        self, seed: int, parts: Parts = REAL, *, plan: Plan = ASYNC, calm: bool = False
    ) -> None:
        """``calm`` leaves out everything that breaks but links."""
        self._calm = calm
        self.seed = seed
        self.rng = random.Random(seed)
        self.holds = Holds(seed, calm=calm)
        self.parts = parts
        self.now = 0.0
        self.counts: Counter[str] = Counter()
        self.shape = draw_shape(self.rng, plan, calm=calm)
        self.oracle = Oracle(
            {entry.id: entry.size_bytes for entry in (*self.shape.volumes, *self.shape.later)}
        )
        self.host = Host(self.oracle, self.shape, self.rng)
        self.points: dict[int, Point] = {0: Point(0, bytes(16), 0, 0)}
        """Every point of the log that a batch ends at, by position."""
        self.batches: dict[int, bytes] = {}
        """The bytes of every batch, by the position at which it ends."""
        self.events = Events(self.shape, self.rng, self.counts)
        self.cut: set[frozenset[str]] = set()
        self.cuts: Counter[frozenset[str]] = Counter()
        """How often each link was cut or healed: a connection over it is another one then."""
        self.sites = {
            name: Site(
                make_machine(name, self.shape, self.rng.randrange(1 << 60)),
                SimClock(lambda: self.now),
            )
            for name in SITES
        }
        self.rotten: set[str] = set()
        """Sites whose volumes were made to differ: their images are not judged."""
        self.alarmed: set[str] = set()
        """Sites at which verification rightly found something."""
        self.interleave = True
        self.expected: tuple[type[TowlineError], ...] = ()
        """Errors that an injected fault may stop a site with; any other is a failure."""
        self._depth = 0
        self.leg = self._leg_view()
        for site in self.sites.values():
            site.machine.observers.append(self._between_operations)
        for name in SITES:
            self.start(name)

    # -- machines -----------------------------------------------------------------------------

    def views(self, reader: str) -> dict[str, PeerView]:
        """Return what ``reader`` sees of the other sites' journals."""

        def view(owner: str) -> PeerView:
            link = frozenset((reader, owner))
            return PeerView(
                lambda: self.sites[owner].machine[JOURNAL],
                lambda: self.sites[owner].powered and link not in self.cut,
                lambda: self._between_reads(owner),
            )

        return {owner: view(owner) for owner in SITES if owner != reader}

    def _leg_view(self) -> LegView | None:
        near = self.shape.plan.near
        if near is None:
            return None
        link = frozenset(("a", near))
        site = self.sites[near]
        told = self.rng.random() < 0.7
        """Whether the kernel tells connections apart; else what was written is read back."""
        return LegView(
            lambda: site.machine[JOURNAL],
            lambda: site.powered and link not in self.cut,
            self._between_leg,
            lambda: (site.machine.power_losses, self.cuts[link]) if told else None,
            self.rng,
        )

    def _between_leg(self) -> None:
        """Before an operation of the leg: the near site may lose power, the link may go."""
        near = self.shape.plan.near
        assert near is not None and self.leg is not None
        if not self.interleave:
            return
        draw = self.rng.random()
        if draw < 0.02 and not self._calm and not self.sites[near].busy:
            self.power_cycle(near)
        elif draw < 0.04:
            self.cut_or_heal(frozenset(("a", near)))
        elif draw < 0.06:
            self.leg.land()
        elif draw < 0.2 and not self._depth:
            self._meanwhile_elsewhere(self.sites["a"])

    def power_cycle(self, name: str) -> None:
        """A machine loses its power and its kernel serves again at once; its process is gone."""
        site = self.sites[name]
        self.note_head(site)
        site.machine.lose_power()
        site.stack = None
        site.powered = True
        self.counts["F2 back at once"] += 1

    def cut_or_heal(self, link: frozenset[str]) -> None:
        """Cut a link, or heal it."""
        self.cut.symmetric_difference_update({link})
        self.cuts[link] += 1
        self.counts["link changes"] += 1

    def start(self, name: str) -> None:
        """Boot a site: recover its journal, redo, and judge its volumes whole."""
        site = self.sites[name]
        site.boots += 1
        site.powered = True
        site.clock.boot()
        boot_id = self.rng.randbytes(16)
        redo = self.rng.random() < 0.5

        def boot() -> None:
            site.stack = None
            views = self.views(name)
            stack = Stack(
                site.machine,
                self.shape,
                views,
                site.clock,
                boot_id,
                self.parts,
                redo=redo,
                leg=self.leg if name == "a" else None,
                hang_share=lambda: 0.02 if self.interleave else 0.0,
                pace=self.holds.pace,
            )
            site.stack = stack
            self.note_head(site)
            judge_recovered(self, name, stack)

        self.act(name, boot)

    def act(self, name: str, action: Callable[[], object]) -> bool:
        """Run ``action`` of a site; False if the machine crashed or the site halted in it."""
        site = self.sites[name]
        site.busy = True
        try:
            action()
        except SimulatedCrash as crash:
            if crash.args[0].split()[0] != name:
                raise
            self._crashed(name)
            return False
        except TowlineError as error:
            return self._failed(name, error)
        finally:
            site.busy = False
        return True

    def _failed(self, name: str, error: TowlineError) -> bool:
        """Judge an error as the site's runtime does: a peer's is tried again, an own one halts."""
        if str(error).startswith("peer:"):
            if not self.expects_of_peer(error):
                raise BrokenPromise(f"{name}: unexpected: {error}") from error
            self.counts[f"peer {type(error).__name__}"] += 1
            return True
        site = self.sites[name]
        site.stack = None
        site.halted = error
        self.counts[f"halted {type(error).__name__}"] += 1
        if not isinstance(error, self.expected):
            raise BrokenPromise(f"{name}: halted: {error}") from error
        return False

    def expects_of_peer(self, error: TowlineError) -> bool:
        """Whether reading a peer may fail like this: no link, not attached, an injected fault."""
        unattached = "has not met its own source" in str(error)
        left_behind = isinstance(error, Detached) and self.shape.plan.when_full != "hold"
        return left_behind or unattached or isinstance(error, (DeviceFailed, *self.expected))

    def _crashed(self, name: str) -> None:
        site = self.sites[name]
        self.note_head(site)
        if site.stack is None:
            self.counts["F4"] += 1
        site.stack = None
        if self.rng.random() < 0.7:
            site.machine.lose_power()
            site.powered = False
            self.counts["F1" if name == "a" else "F2"] += 1
        else:
            site.machine.kill()
            self.counts["kills"] += 1

    def crash_now(self, name: str) -> None:
        """Stop a machine between two steps."""
        self.sites[name].machine.crashed = True
        self._crashed(name)

    def crash_soon(self, name: str, within: int = 12) -> None:
        """Let a machine stop at one of its next operations, before it, in it or after it."""
        machine = self.sites[name].machine
        machine.crash_at = machine.operations + self.rng.randint(1, within)
        machine.crash_phase = self.rng.choice(("before", "middle", "middle", "after"))

    # -- what happens -------------------------------------------------------------------------

    def step(self) -> None:
        """Do one thing, drawn from the seed, and check the promises."""
        self.now += self.rng.choice((0.001, 0.01, 0.1, 1.0))
        if self.leg is not None and self.cut and self.rng.random() < 0.03:
            self.cut_or_heal(self.rng.choice(sorted(self.cut, key=sorted)))  # not cut for ever
        if self.rng.random() < 0.04:
            self._disturb()
        else:
            self._work(self.rng.choice(SITES))
        check(self)

    def _work(self, name: str) -> None:
        site = self.sites[name]
        if site.busy:
            return
        if site.stack is None:
            if site.halted is None and self.rng.random() < 0.3:
                if self.rng.random() < 0.3:
                    self.crash_soon(name)
                self.start(name)
            return
        action = self.rng.choice(actions.choices(site.stack))
        site.doing = action.__name__
        self.act(name, lambda: action(self, site.stack))
        site.doing = ""
        self.note_published(name)

    def note_published(self, name: str) -> None:
        site = self.sites[name]
        if site.stack is not None:
            body = site.stack.journal.body
            if body.head.position > site.acknowledged.position:
                site.acknowledged = body.head
            self.note_head(site)

    def note_head(self, site: Site) -> None:
        if site.stack is not None:
            site.furthest = max(site.furthest, site.stack.journal.head.position)

    def _disturb(self) -> None:
        name = self.rng.choice(SITES)
        kind = self.rng.randrange(6) if not self._calm else 0
        site = self.sites[name]
        if kind == 0:
            self.cut_or_heal(frozenset(self.rng.sample(SITES, 2)))
        elif kind == 1 and site.stack is not None and not site.busy:
            self.crash_now(name)
        elif kind in (2, 3) and site.stack is not None:
            self.crash_soon(name)
        elif kind == 4:
            site.clock.offset_seconds += self.rng.choice((-1, 1)) * self.rng.choice((1, 9e4, 9e6))
            self.counts["F24"] += 1
        elif kind == 5 and self.rng.random() < 0.2:
            for each in SITES:
                if self.sites[each].stack is not None and not self.sites[each].busy:
                    self.sites[each].machine.crashed = True
                    self._crashed(each)
            self.counts["F3"] += 1

    def _between_reads(self, owner: str) -> None:
        if not self.interleave or self._depth or self.rng.random() > 0.25:
            return
        self._depth += 1
        try:
            self._work(owner)
        finally:
            self._depth -= 1
        self.counts["steps between reads"] += 1

    def _between_operations(self, device: SimDevice, operation: str) -> None:
        """Let other threads and other sites do their things between two device operations."""
        del operation
        site = self.sites[device.machine.name]
        if self.interleave and not self._depth and site.doing and self.rng.random() < 0.2:
            self._meanwhile_elsewhere(site)
        others = actions.MEANWHILE.get(site.doing)
        if not self.interleave or not others or site.stack is None or self.rng.random() > 0.15:
            return
        possible = actions.choices(site.stack)
        others = tuple(other for other in others if other in possible)
        if site.stack.journal._lock.locked():
            if self.holds.may_wait(site.stack):
                others = tuple(other for other in others if other.__name__ != "restore")
            others = tuple(other for other in others if other.__name__ not in actions.PUBLISHING)
            commit = site.stack.commit
            if commit and (commit.waiting_own or site.stack.link):
                others = tuple(other for other in others if other.__name__ != "journal_batch")
        if not others:
            return
        doing, site.doing = site.doing, ""
        try:
            self.rng.choice(others)(self, site.stack)
        except TowlineError as error:
            self._failed(site.machine.name, error)
        finally:
            site.doing = doing
        self.note_published(site.machine.name)
        self.counts["steps between operations"] += 1

    def _meanwhile_elsewhere(self, site: Site) -> None:
        self._depth += 1
        try:
            self._work(self.rng.choice([name for name in SITES if name != site.machine.name]))
        finally:
            self._depth -= 1
        check(self)
        self.counts["steps elsewhere"] += 1

    def run(self, steps: int) -> None:
        """Run ``steps`` steps, then heal and converge; or lose the primary, seal its near ring."""
        self.run_steps(steps)
        if self.shape.plan.near is not None and self.seed % 2:
            lose_the_primary(self)
        else:
            converge(self)

    def run_steps(self, steps: int) -> None:
        """Run ``steps`` steps."""
        for _ in range(steps):
            self.step()
