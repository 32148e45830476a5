"""Who reads whom in a simulated group, and what stays the same over all restarts of a run."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from replicator.codec.history import VolumeEntry
from replicator.codec.topology import AdaptiveInterval, FixedInterval, Link, WhenFull
from replicator.codec.topology_interval import INPUTS
from replicator.model import BLOCK

SITES = ("a", "b", "c")
"""The sites of every plan; a is primary when a run begins."""

Policy = FixedInterval | AdaptiveInterval


@dataclass(frozen=True)
class Plan:
    """A topology: ``upstream`` is whom each site reads, None at the primary."""

    name: str
    upstream: Mapping[str, str | None]
    near: str | None = None
    """The site whose ring the primary writes over a sync link."""
    no_data: frozenset[str] = frozenset()
    """Sites that keep only a journal."""
    when_full: WhenFull = "hold"


ASYNC = Plan("async", {"a": None, "b": "a", "c": "b"})
TWO_READERS = Plan("two-readers", {"a": None, "b": "a", "c": "a"})
DETACH = Plan("detach", ASYNC.upstream, when_full="detach")
DETACH_TWO = Plan("detach-two-readers", TWO_READERS.upstream, when_full="detach")
BUNKER = Plan("bunker", ASYNC.upstream, near="b", no_data=frozenset("b"))
SYNC = Plan("sync", ASYNC.upstream, near="b")
PLANS = {plan.name: plan for plan in (ASYNC, TWO_READERS, DETACH, DETACH_TWO, BUNKER, SYNC)}


@dataclass(frozen=True, slots=True)
class Shape:
    """What stays the same over all restarts of a run: plan, volumes, sizes, paces."""

    plan: Plan
    volumes: tuple[VolumeEntry, ...]
    later: tuple[VolumeEntry, ...]
    """Volumes that may come by an event, with the largest size that they grow to.

    None with a near site: what a sync link may do needs rare coincidences, and each seed with
    volumes that change has fewer of them.
    """
    ring_bytes: Mapping[str, int]
    window_bytes: int
    pull_bytes: int
    checkpoint_seconds: float
    publish_seconds: float
    policy: Policy
    link: Link
    """What the sync link, if there is one, does when it is lost."""


_LATER = tuple(VolumeEntry(100 + at, f"v{100 + at}", 8 * BLOCK) for at in range(4))


def draw_shape(rng: random.Random, plan: Plan, *, calm: bool) -> Shape:
    """Draw everything but the plan: small rings that wrap every few batches.

    ``calm`` has no traffic limit: a scenario that pulls by force wants it to read.
    """
    ring = rng.choice((16, 24, 32, 64)) * BLOCK
    return Shape(
        plan=plan,
        volumes=(VolumeEntry(1, "db", 32 * BLOCK), VolumeEntry(2, "wal", 8 * BLOCK)),
        later=() if plan.near else _LATER,
        ring_bytes={name: ring + rng.choice((0, 0, 8, 32)) * BLOCK for name in SITES},
        window_bytes=rng.choice((4, 8, 16, 64)) * BLOCK,
        pull_bytes=rng.choice((16, 64)) * BLOCK,
        checkpoint_seconds=rng.choice((0.0, 0.5, 5.0)),
        publish_seconds=rng.choice((0.0, 0.5, 1.0)),
        policy=rng.choice(
            (
                FixedInterval(seconds=0.5),
                AdaptiveInterval(inputs=("records",), min_seconds=0.1, max_seconds=5.0),
                AdaptiveInterval(
                    inputs=("records", "capacity", "source") if calm else INPUTS,
                    max_seconds=5.0,
                    traffic_limit=None if calm else float(16 * BLOCK),
                    rpo_seconds=3.0,
                ),
            )
        ),
        link=rng.choice(("sync-or-stop", "sync-or-stop", "sync-or-degrade")),
    )
