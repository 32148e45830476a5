"""A process that was stopped looks at its peers before it answers (F20)."""

from __future__ import annotations

import pytest

from replicator.errors import WentOn
from replicator.group.liveness import GAP_SECONDS, TICK_SECONDS, Liveness
from tests.fakes.group_on_sim import SteppedClock


class Looks:
    def __init__(self) -> None:
        self.count = 0
        self.fails = False

    def __call__(self) -> None:
        self.count += 1
        if self.fails:
            raise WentOn("c has gone on")


def test_liveness_that_ticks_never_looks() -> None:
    clock, looks = SteppedClock(), Looks()
    liveness = Liveness(clock, looks)
    for _ in range(100):
        clock.seconds += TICK_SECONDS
        liveness.tick()
        liveness.check()
    assert looks.count == 0


@pytest.mark.parametrize("tick_first", [False, True])
def test_liveness_after_a_gap_looks_once_whoever_runs_first(tick_first: bool) -> None:
    clock, looks = SteppedClock(), Looks()
    liveness = Liveness(clock, looks)
    clock.seconds += GAP_SECONDS + 1
    if tick_first:
        liveness.tick()
        clock.seconds += TICK_SECONDS
        liveness.tick()
    liveness.check()
    liveness.check()
    assert looks.count == 1


def test_liveness_answers_nothing_while_the_look_forbids_it() -> None:
    clock, looks = SteppedClock(), Looks()
    liveness = Liveness(clock, looks)
    looks.fails = True
    clock.seconds += GAP_SECONDS + 1
    for _ in range(3):
        with pytest.raises(WentOn):
            liveness.check()
    assert looks.count == 3
