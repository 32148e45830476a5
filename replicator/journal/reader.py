"""Read valid batches from a ring, window by window."""

from __future__ import annotations

from dataclasses import dataclass

from replicator.codec.batch import (
    MAX_BATCH,
    Batch,
    BatchHeader,
    Invalid,
    Point,
    parse_header,
    walk,
)
from replicator.codec.history import History
from replicator.journal.ring import Ring
from replicator.model import BLOCK

_PROBE = 256 << 10

LIMIT = "limit"
"""The rule that an Invalid names when the next batch ends above the limit."""


@dataclass(frozen=True, slots=True)
class Run:
    """Batches that follow each other in the log, and the bytes that they are."""

    batches: list[Batch]
    content: memoryview
    stop: Invalid | None
    """None if reading may go on behind the run, else why the next batch is not there."""

    def end(self, at: Point) -> Point:
        """Return where the run ends, given where it began."""
        return self.batches[-1].end if self.batches else at


def batches_in(content: memoryview, at: Point, group_id: bytes, history: History) -> Run:
    """Return the valid batches that ``content`` begins with; ``stop`` says why not more."""
    batches: list[Batch] = []
    stop: Invalid | None = None
    for verdict in walk(content, at, group_id, history):
        if isinstance(verdict, Invalid):
            stop = verdict
        else:
            batches.append(verdict)
    end = batches[-1].end.position if batches else at.position
    return Run(batches, content[: end - at.position], stop)


def read_batches(
    ring: Ring, at: Point, limit: int, group_id: bytes, history: History, window: int
) -> Run:
    """Return the batches that follow ``at`` and end at or below position ``limit``.

    Reads about ``window`` bytes, at least one batch. A batch that begins below ``limit`` and
    ends above it is a reason to stop.
    """
    available = min(limit - at.position, ring.place.size)
    length = min(max(window, BLOCK), available)
    while True:
        run = batches_in(ring.read(at.position, length), at, group_id, history)
        batches, content, stop = run.batches, run.content, run.stop
        assert stop is not None
        end = run.end(at).position
        if stop.needs == 0:
            return Run(batches, content, stop)
        if end == limit:
            return Run(batches, content, None)
        if end + stop.needs > at.position + available:
            reason = f"needs {stop.needs} bytes, the limit is {limit}"
            return Run(batches, content, Invalid(end, LIMIT, reason))
        if batches:
            return Run(batches, content, None)
        length = min(available, max(stop.needs, min(2 * length, MAX_BATCH)))


def header_at(ring: Ring, at: Point) -> BatchHeader | None:
    """Return the header of the batch that continues the log at ``at`` (one 4 KiB read)."""
    header = parse_header(ring.read(at.position, BLOCK))
    if header is None or (header.position, header.previous) != (at.position, at.digest):
        return None
    return header


def read_committed(ring: Ring, at: Point, left: int, group_id: bytes, history: History) -> Run:
    """Return the batches behind ``at`` that later headers prove durable, up to ``left`` bytes.

    Only for a ring in which ``committed`` speaks of the ring itself (journal/limits.py). The last
    batch stays back: nobody has spoken of it yet.
    """
    nothing = Run([], memoryview(b""), None)
    if left <= 0 or header_at(ring, at) is None:
        return nothing
    window = min(_PROBE, left)
    run = read_batches(ring, at, at.position + left, group_id, history, window)
    committed = max((batch.header.committed for batch in run.batches), default=0)
    following = header_at(ring, run.end(at)) if run.batches else None
    if following is not None:  # large batches: the proof of the last one is behind the window
        committed = max(committed, following.committed)
    proven = [batch for batch in run.batches if batch.end.position <= committed]
    if not proven:
        return nothing
    return Run(proven, run.content[: proven[-1].end.position - at.position], None)
