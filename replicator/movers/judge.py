"""Judge verify records on the own volumes, and keep what they show in the own page.

A record is judged on the volume after everything below it in the log and before everything above
it. Not below the head that the ring had at the start, because after a crash the volume may hold
later records already; and not while the site is inconsistent, because it knows that it differs
(model m6). Such records are passed over; the next pass of the verification judges again.
"""

from __future__ import annotations

import logging

from msgspec.structs import replace

from replicator.codec.chunks import chunk_digest
from replicator.codec.coalesce import Check
from replicator.codec.differing import overlaps, total_bytes, with_piece, without
from replicator.codec.page import Differing, OwnerBody, VerifyNote
from replicator.journal.gap_progress import GapProgress
from replicator.journal.journal import INCONSISTENT, Journal
from replicator.seams.volume import DataVolume

log = logging.getLogger(__name__)

MOST_LISTED = 8
"""Pieces that differ, in the page: it is one block. More are kept in memory, until they fit."""
MOST_KEPT = 1000
"""Pieces in memory; what is beyond them is found again by the next pass."""


class Judge:
    """What verify records say about one site's volumes since the start."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.judges_from = journal.head.position
        self.differs: list[Differing] = list(journal.body.verified.differs)
        """Every piece that is known to differ."""
        self.verified_bytes = 0
        """Bytes of volumes that were compared."""
        self.skipped_bytes = 0
        """Bytes of volumes whose record could not be judged."""
        self.mismatches = 0
        """Records that did not agree."""
        self._changed = False
        self._found = 0

    def judge(self, check: Check, volume: DataVolume) -> None:
        """Compare a verify record with the own volume, where that can be told.

        Raises DeviceFailed if the volume cannot be read.
        """
        gap = self._journal.gap
        if gap is not None:
            self._strike(check, volume, gap)
        if check.position < self.judges_from or INCONSISTENT in self._journal.body.marks:
            self.skipped_bytes += check.length
            return
        found = bytearray(check.length)
        volume.read_into(check.offset, [memoryview(found)])
        self.verified_bytes += check.length
        if chunk_digest(found) == check.digest:
            if self.differs:
                self._agrees(check)
        else:
            self._disagrees(check, volume.name)

    def _strike(self, check: Check, volume: DataVolume, gap: GapProgress) -> None:
        """Tell an inconsistent site's map of a piece that is there already."""
        found = bytearray(check.length)
        volume.read_into(check.offset, [memoryview(found)])
        if chunk_digest(found) == check.digest:
            gap.agrees(check.volume_id, check.offset, check.length)

    def publish(self) -> None:
        """State in the page what has changed: durable on return. To be called after each window.

        A crash before it loses what the window showed; the next pass shows it again.
        """
        if self.differs:
            self._forget_retired()
        if self._changed:
            self._journal.restate(self._stated)
            self._found = 0
            self._changed = False

    def _forget_retired(self) -> None:
        """Drop what is known of volumes that the group has no more."""
        retired = self._journal.catalog.retired
        kept = [piece for piece in self.differs if piece.volume_id not in retired]
        if len(kept) != len(self.differs):
            self.differs = kept
            self._changed = True

    def _agrees(self, check: Check) -> None:
        left = without(self.differs, check.volume_id, check.offset, check.offset + check.length)
        if left != self.differs:
            self.differs = left
            self._changed = True

    def _disagrees(self, check: Check, volume: str) -> None:
        self.mismatches += 1
        self._found += 1
        self._changed = True
        piece = Differing(check.volume_id, check.offset, check.length, check.position)
        if len(self.differs) < MOST_KEPT and not overlaps(self.differs, [piece]):
            log.error(
                "volume differs from the primary's volume=%s offset=%d length=%d position=%d",
                volume,
                check.offset,
                check.length,
                check.position,
            )
        self.differs = with_piece(self.differs, piece)[:MOST_KEPT]

    def _stated(self, body: OwnerBody) -> OwnerBody:
        note = VerifyNote(
            differs=tuple(self.differs[:MOST_LISTED]),
            unlisted_bytes=total_bytes(self.differs[MOST_LISTED:]),
            found=body.verified.found + self._found,
            repair=body.verified.repair if self.differs else 0,
        )
        return replace(body, verified=note)
