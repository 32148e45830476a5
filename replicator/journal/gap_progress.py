"""How far an inconsistent site has come: what it still misses, and whether the resync has ended.

The site owns its map from the moment it takes a gap. Restore tells what it has applied; the next
checkpoint publishes what is left, and after the end of a resync whose begin named this gap it takes
the mark away. Without that name an end clears nothing (model m8).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from replicator.codec.batch import Batch, Point
from replicator.codec.dirty_map import Extents, merged, replaced_by, size_of, union, without
from replicator.codec.page import GapNote
from replicator.codec.records import CONTROL_KINDS, RecordKind
from replicator.codec.resync_events import decode_begin, decode_end
from replicator.model import BLOCK


class Left(NamedTuple):
    """What a checkpoint is to state: the gap (None: it is filled) and what is missing."""

    gap: GapNote | None
    missing: Extents


class GapProgress:
    """The state of one gap at one site; told by restore, asked by the checkpoint."""

    def __init__(self, site: str, gap: GapNote, missing: Extents) -> None:
        self._site = site
        self._gap = gap
        self._missing = missing
        self._ended_at: Point | None = None
        self._changed = False
        self._agreed: dict[int, list[tuple[int, int]]] = {}
        self._lock = threading.Lock()

    @property
    def gap(self) -> GapNote:
        """The gap as it is known in memory."""
        return self._gap

    @property
    def missing_bytes(self) -> int:
        """Bytes of volumes that are still missing."""
        with self._lock:
            return size_of(self._missing)

    def applied(self, batches: Iterable[Batch]) -> None:
        """Note batches that restore has written to the volumes, in order."""
        batches = list(batches)
        with self._lock:
            for batch in batches:
                if batch.first_kind in CONTROL_KINDS:
                    self._note_events(batch)
            agreed = {volume: merged(ranges) for volume, ranges in self._agreed.items()}
            filled = union(replaced_by(batches), agreed)
            self._agreed = {}
            if filled:
                self._missing = without(self._missing, filled)
                self._changed = True

    def agrees(self, volume_id: int, offset: int, length: int) -> None:
        """Note that a piece of a volume is what a verify record says: it is not missing.

        That holds also if the volume is ahead of the record, after a crash: what is further up
        the log is applied again on top of it.
        """
        blocks = (-(-offset // BLOCK), (offset + length) // BLOCK)
        if blocks[0] < blocks[1]:
            with self._lock:
                self._agreed.setdefault(volume_id, []).append(blocks)

    def _note_events(self, batch: Batch) -> None:
        for record in batch.records():
            if record.kind == RecordKind.RESYNC_BEGIN:
                begin = decode_begin(batch.payload_of(record))
                if begin is not None and (self._site, self._gap.id) in begin.gaps:
                    self._gap = msgspec.structs.replace(self._gap, begun=begin.id)
                    self._changed = True
            elif record.kind == RecordKind.RESYNC_END:
                end = decode_end(batch.payload_of(record))
                if end is not None and self._gap.begun and end.id == self._gap.begun:
                    self._ended_at = batch.end

    def left_at(self, restored: Point) -> Left | None:
        """Return what the checkpoint at ``restored`` states, None if it is as it was.

        A copy above ``restored`` may be left out already: the own ring holds it, so a restart
        applies it again. The end counts only when the volumes are durable up to it.
        """
        with self._lock:
            if self._ended_at is not None and restored.position >= self._ended_at.position:
                return Left(None, {})
            if not self._changed:
                return None
            self._changed = False
            self._gap = msgspec.structs.replace(self._gap, missing_bytes=size_of(self._missing))
            return Left(self._gap, self._missing)
