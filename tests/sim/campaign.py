"""Many seeds over two processes: counts added up, failures with the command that repeats them."""

from __future__ import annotations

import os
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from tests.sim.crash_points import CrashPoints
from tests.sim.faults import run_fault
from tests.sim.plans import ASYNC, PLANS, Plan
from tests.sim.site import REAL, Parts
from tests.sim.world import World

PROCESSES = min(2, os.cpu_count() or 1)
STEPS = 400
"""Steps of a three-site run."""

Run = Callable[[int, Parts], Counter[str]]


@dataclass(frozen=True)
class Outcome:
    """What one seed came to; ``failure`` is a traceback or empty."""

    seed: int
    counts: Counter[str]
    failure: str = ""


def run_world(seed: int, parts: Parts = REAL, plan: Plan = ASYNC) -> Counter[str]:
    """Run three sites of ``plan`` through STEPS steps under ``seed``."""
    world = World(seed, parts, plan=plan)
    world.run(STEPS)
    return world.counts + Counter(seeds=1)


def run_crash_points(seed: int, parts: Parts = REAL) -> Counter[str]:
    """Crash after every operation of one run under ``seed``."""
    return CrashPoints(seed, parts).run()


RUNS: dict[str, Run] = {
    "world": run_world,
    "crash-points": run_crash_points,
    "fault": run_fault,
} | {name: partial(run_world, plan=plan) for name, plan in PLANS.items()}
"""What ``python -m tests.sim NAME SEED`` repeats; ``world`` is another name for ``async``."""


def run_one(name: str, seed: int, parts: Parts = REAL) -> Outcome:
    """Run one seed; whatever is raised becomes its failure."""
    try:
        return Outcome(seed, RUNS[name](seed, parts))
    except BaseException:  # noqa: BLE001 - also SimulatedCrash; shown with the command
        return Outcome(seed, Counter(), traceback.format_exc())


def run_many(
    name: str, seeds: Sequence[int], enough: tuple[str, int] | None = None
) -> Counter[str]:
    """Run seeds in order until all are done or a count reaches ``enough``; raise on a failure."""
    total: Counter[str] = Counter()
    failed: list[Outcome] = []
    with ProcessPoolExecutor(PROCESSES) as pool:
        chunk = 8 * PROCESSES
        for start in range(0, len(seeds), chunk):
            batch = seeds[start : start + chunk]
            for outcome in pool.map(run_one, [name] * len(batch), batch):
                total += outcome.counts
                if outcome.failure:
                    failed.append(outcome)
            if len(failed) > 5 or (enough and total[enough[0]] >= enough[1]):
                break
    if failed:
        commands = "\n".join(f"  python -m tests.sim {name} {each.seed}" for each in failed)
        raise AssertionError(f"{failed[0].failure}\nrepeat with:\n{commands}")
    return total
