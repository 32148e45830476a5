"""Carry a plan out on LIO, and check that the result is what was wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from replicator.codec.target_tree import Key, Tree, Value
from replicator.errors import TargetFailed
from replicator.target.plan import Step, Verb, compute_plan


class TargetSeam(Protocol):
    """The LIO configuration of this node (``seams.lio``; a fake in tests)."""

    def read(self) -> Tree:
        """Return what there is of ours."""

    def create(self, key: Key, value: Value) -> None:
        """Make a thing whose parents exist; TargetFailed with what LIO said."""

    def remove(self, key: Key) -> None:
        """Remove a thing without children; TargetFailed with what LIO said."""

    def set(self, key: Key, value: Value) -> None:
        """Set an attribute, parameter, state or secret; TargetFailed with what LIO said."""


def apply_plan(
    steps: Sequence[Step], seam: TargetSeam, on_step: Callable[[Step], None] | None = None
) -> None:
    """Carry out ``steps`` in order; TargetFailed names the first that LIO refused.

    What was done before stays, so that running it again goes on from there.
    """
    for step in steps:
        if on_step is not None:
            on_step(step)
        if step.verb is Verb.REMOVE:
            seam.remove(step.key)
        elif step.verb is Verb.CREATE:
            seam.create(step.key, step.value)
        else:
            seam.set(step.key, step.value)


def confirm(wanted: Tree, seam: TargetSeam) -> None:
    """Raise TargetFailed if LIO does not hold what was applied."""
    left = compute_plan(wanted, seam.read())
    if left:
        lines = "; ".join(step.line() for step in left)
        raise TargetFailed(f"LIO took the configuration, but still differs: {lines}")
