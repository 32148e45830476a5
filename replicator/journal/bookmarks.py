"""Bookmarks that a ring still holds: found by walking it, since the log is their only home."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from replicator.codec.batch import Batch, Invalid, Point
from replicator.codec.bookmarks import decode_bookmark
from replicator.codec.records import CONTROL_KINDS, RecordKind
from replicator.journal.survey import Survey
from replicator.seams.blockdevice import JournalDevice

_TRIES = 3


@dataclass(frozen=True, slots=True)
class FoundBookmark:
    """A bookmark and the end of its batch: what lies below is what it stands for."""

    name: str
    at: Point


def bookmarks_in(batch: Batch) -> Iterator[FoundBookmark]:
    """Yield the bookmarks of one batch."""
    if batch.first_kind not in CONTROL_KINDS:
        return
    for record in batch.records():
        if record.kind == RecordKind.BOOKMARK:
            bookmark = decode_bookmark(batch.payload_of(record))
            if bookmark is not None:
                yield FoundBookmark(bookmark.name, batch.end)


def find_bookmarks(device: JournalDevice) -> list[FoundBookmark]:
    """Return the bookmarks that the ring on ``device`` holds, oldest first.

    Works while a daemon has the device; what it reclaims meanwhile is looked for no more. Raises
    what Survey raises, and JournalRotten for an invalid batch below the stated head.
    """
    for attempt in range(_TRIES):
        survey = Survey(device)
        found: list[FoundBookmark] = []
        first = survey.first()
        if first is None:
            return found
        stop: Invalid | None = None
        for verdict in survey.batches(first, survey.body.head.position):
            if isinstance(verdict, Invalid):
                stop = verdict
            else:
                found.extend(bookmarks_in(verdict))
        if stop is None:
            return found
        overtaken = Survey(device).body.reclaim > stop.position
        if not overtaken or attempt == _TRIES - 1:
            raise survey.rotten(stop)
    raise AssertionError("unreachable")
