"""Read valid batches from a ring, window by window."""

from __future__ import annotations

from replicator.codec.batch import MAX_BATCH, Batch, Invalid, Point, walk
from replicator.codec.history import History
from replicator.journal.ring import Ring
from replicator.model import BLOCK


def read_batches(
    ring: Ring, at: Point, limit: int, group_id: bytes, history: History, window: int
) -> tuple[list[Batch], Invalid | None]:
    """Return the batches that follow ``at`` and end at or below position ``limit``.

    Reads about ``window`` bytes, at least one batch. The second value is None if reading may go
    on, else why the bytes at the end are not the next batch; a batch that begins below ``limit``
    and ends above it is such a reason.
    """
    available = min(limit - at.position, ring.place.size)
    length = min(max(window, BLOCK), available)
    while True:
        batches: list[Batch] = []
        stop: Invalid | None = None
        for verdict in walk(ring.read(at.position, length), at, group_id, history):
            if isinstance(verdict, Invalid):
                stop = verdict
            else:
                batches.append(verdict)
        if stop is None or stop.needs == 0:
            return batches, stop
        end = batches[-1].end.position if batches else at.position
        if end == limit:
            return batches, None
        if end + stop.needs > at.position + available:
            return batches, Invalid(end, "V2", f"needs {stop.needs} bytes, limit is {limit}")
        if batches:
            return batches, None
        length = min(available, max(stop.needs, min(2 * length, MAX_BATCH)))
