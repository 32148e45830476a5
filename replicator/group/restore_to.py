"""Any-point recovery: from a base, through the own ring, to a point of the log, into fresh volumes.

The base's content is copied into the targets, then the records from the base's restart point up to
the target point are redone there, in order. The group goes on meanwhile; nothing of it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from replicator.codec.batch import Batch, Invalid, Point
from replicator.codec.bookmarks import decode_bookmark
from replicator.codec.catalog_records import catalog_after
from replicator.codec.coalesce import Check, UnknownRecord, Zero, coalesce
from replicator.codec.history import Catalog, VolumeEntry
from replicator.codec.image_note import ImageNote
from replicator.codec.page import RestoreStop
from replicator.codec.records import CONTROL_KINDS, RecordKind
from replicator.errors import Refused
from replicator.journal.survey import Survey
from replicator.seams.blockdevice import VolumeDevice
from replicator.units import format_size


@dataclass(frozen=True, slots=True)
class Restored:
    """What was reached: the point, and what was redone on the way."""

    at: Point
    batches: int
    records: int
    redone_bytes: int
    volumes: tuple[VolumeEntry, ...]


def find_point(survey: Survey, wanted: RestoreStop, end: int) -> Point:
    """Return the end of the last batch at or below what ``wanted`` names.

    The ring durably holds the log up to ``end``, which a daemon may know better than the page.
    Raises Refused if the ring does not reach back or forward to it, JournalRotten.
    """
    if wanted.kind == "position" and wanted.value > end:
        raise Refused(f"position {wanted.value} is beyond the end of this journal, {end}")
    first = survey.first()
    found: Point | None = None
    for batch in _batches(survey, first, end) if first is not None else ():
        if wanted.kind == "bookmark":
            if wanted.name in _bookmarks(batch):
                found = batch.end
        elif wanted.kind == "position":
            if batch.end.position > wanted.value:
                break
            found = batch.end
        else:
            if batch.end.time_ns > wanted.value:
                break
            found = batch.end
    if found is None:
        oldest = first.position if first is not None else survey.body.head.position
        named = f"bookmark {wanted.name}" if wanted.kind == "bookmark" else f"that {wanted.kind}"
        raise Refused(
            f"{named} is not in this journal: the oldest record that it still holds is at position "
            f"{oldest}; another site's journal may reach further back"
        )
    return found


def redo(
    survey: Survey,
    base: ImageNote,
    at: Point,
    target_of: Callable[[VolumeEntry], VolumeDevice | None],
) -> Restored:
    """Redo the log from the base's restart point up to ``at`` on the targets, and flush them.

    ``target_of`` gives the device for a volume, None for one that is not wanted; it is asked again
    when a volume comes or grows on the way. Raises Refused if the ring was reclaimed meanwhile,
    JournalRotten, DeviceFailed: the targets are then worth nothing.
    """
    entries = tuple(VolumeEntry(v.id, v.name, v.size_bytes) for v in base.volumes)
    assert survey.catalog is not None
    catalog = Catalog(
        base.group,
        survey.catalog.group_id,
        survey.catalog.history,
        entries,
        base.as_of,
        base.retired,
    )
    targets = {entry.id: target_of(entry) for entry in entries}
    batches = records = 0
    for batch in _batches(survey, base.restart, at.position):
        batches += 1
        records += batch.header.record_count
        if batch.first_kind in CONTROL_KINDS:
            catalog, targets = _after_events(catalog, batch, targets, target_of)
        else:
            _apply(batch, targets)
    for device in targets.values():
        if device is not None:
            device.flush()
    moved = at.position - base.restart.position
    return Restored(at, batches, records, moved, catalog.volumes)


def _after_events(
    catalog: Catalog,
    batch: Batch,
    targets: Mapping[int, VolumeDevice | None],
    target_of: Callable[[VolumeEntry], VolumeDevice | None],
) -> tuple[Catalog, dict[int, VolumeDevice | None]]:
    """Follow volumes that come, grow and go."""
    changed = catalog_after(catalog, [batch])
    followed: dict[int, VolumeDevice | None] = {}
    for entry in changed.volumes:
        unchanged = entry in catalog.volumes
        followed[entry.id] = targets[entry.id] if unchanged else target_of(entry)
    return changed, followed


def _apply(batch: Batch, targets: Mapping[int, VolumeDevice | None]) -> None:
    try:
        for action in coalesce([batch]):
            device = targets.get(action.volume_id)
            if device is None or isinstance(action, Check):
                continue
            if isinstance(action, Zero):
                device.zero(action.offset, action.length)
            else:
                device.write_from(action.offset, action.buffers)
    except UnknownRecord as error:
        raise Refused(f"{error}; this release cannot redo it") from error


def _batches(survey: Survey, at: Point, limit: int) -> Iterator[Batch]:
    """Yield the valid batches from ``at`` to ``limit``."""
    for verdict in survey.batches(at, limit):
        if isinstance(verdict, Invalid):
            now = Survey(survey.device)
            if now.body.reclaim > verdict.position:
                raise Refused(
                    f"the ring was reclaimed up to {now.body.reclaim} while it was read at "
                    f"{verdict.position}: the journal ({format_size(now.body.ring_size)}) is small "
                    "for what hosts write; nothing useful is in the targets"
                )
            raise survey.rotten(verdict)
        yield verdict


def _bookmarks(batch: Batch) -> set[str]:
    if batch.first_kind not in CONTROL_KINDS:
        return set()
    found = (
        decode_bookmark(batch.payload_of(record))
        for record in batch.records()
        if record.kind == RecordKind.BOOKMARK
    )
    return {bookmark.name for bookmark in found if bookmark is not None}
