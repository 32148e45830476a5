"""How far a ring may be reclaimed: a pure function of what is durable where."""

from __future__ import annotations

from collections.abc import Iterable

from replicator.model import BLOCK


def plan_reclaim(
    ring_size: int, head: int, restored: int, received: Iterable[int], current: int
) -> int:
    """Return the new reclaim position, bytes in the log.

    It never passes the owner's restart position nor what any other configured site has durably
    received, never goes back, and moves only as far as keeps a third of the ring free, so
    the ring keeps history for as long as the space is not needed.
    """
    allowed = min([restored, *received])
    needed = (head - ring_size * 2 // 3) // BLOCK * BLOCK
    return max(current, min(allowed, needed))
