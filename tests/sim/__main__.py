"""Repeat a simulated run: ``python -m tests.sim world 17`` or ``... crash-points 3``."""

from __future__ import annotations

import argparse
import sys

from tests.sim.campaign import RUNS, run_one


def main() -> int:
    """Run one seed or a range of them; print counts, or the failure."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("name", choices=sorted(RUNS))
    parser.add_argument("seed", type=int)
    parser.add_argument("--until", type=int, help="run all seeds below this one, too")
    asked = parser.parse_args()
    for seed in range(asked.seed, asked.until or asked.seed + 1):
        outcome = run_one(asked.name, seed)
        if outcome.failure:
            print(outcome.failure, f"seed {seed} failed", sep="\n")
            return 1
        print(f"seed {seed}:", ", ".join(f"{k} {v}" for k, v in sorted(outcome.counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
