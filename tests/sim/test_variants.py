"""A harness that must fail: every deliberately broken variant is caught by the simulator."""

from __future__ import annotations

import pytest

from tests import tally
from tests.sim.campaign import run_one
from tests.sim.pace_variants import PACE_VARIANTS
from tests.sim.variants import VARIANTS, Variant

_NOT_CAUGHT = ("TypeError", "AttributeError", "no convergence")
"""Ends of runs in which a variant no longer fits the code that it breaks, and proves nothing."""


@pytest.mark.parametrize("variant", (*VARIANTS, *PACE_VARIANTS), ids=lambda variant: variant.name)
def test_broken_variant_is_caught_within_its_seeds(variant: Variant) -> None:
    with variant.patch():
        for seed in range(variant.seeds):
            outcome = run_one(variant.run, seed, variant.parts)
            if outcome.failure:
                last_line = outcome.failure.strip().splitlines()[-1]
                assert not any(word in last_line for word in _NOT_CAUGHT), last_line
                tally.count("broken variants caught")
                tally.count(f"seeds until {variant.name} was caught", seed + 1)
                return
    raise AssertionError(f"{variant.name} ({variant.rule}) survived {variant.seeds} seeds")
