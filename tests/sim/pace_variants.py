"""Broken variants of a puller's pace: each forgets one rule of the interval, and is caught."""

from __future__ import annotations

import dataclasses
from typing import Any

from replicator.movers.interval import Measured
from replicator.movers.pull import Pull
from tests.sim.site import Parts
from tests.sim.variants import Variant


class PullWithoutAllowance(Pull):
    """Wait as the interval says, but read whatever is there."""

    def _budget(self, now: float) -> int:
        super()._budget(now)
        return self._byte_limit


class PullBlindToTheSource(Pull):
    """Decide as if the source's journal were empty, whatever its page says."""

    def _measure(self, *args: Any) -> Measured:
        return dataclasses.replace(super()._measure(*args), source=0.0)


PACE_VARIANTS = (
    Variant(
        "no-allowance",
        "the traffic limit is kept by an allowance, not by the interval alone",
        Parts(pull=PullWithoutAllowance),
    ),
    Variant(
        "blind-to-the-source",
        "claims 6, 8: the interval follows what the source's page says",
        Parts(pull=PullBlindToTheSource),
    ),
)
