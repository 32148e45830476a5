"""Repair: send the pieces again of which a site says that they differ, when its operator asked.

The site lists them in its own page (VerifyNote) with the number of the request; the primary reads
that page anyway. Each piece goes out as a copy, and as a verify record behind it, which takes the
piece off the site's list or leaves it there. For consistent sites a copy is what they already have.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from replicator.codec.differing import with_piece, without
from replicator.codec.page import Differing, VerifyNote
from replicator.codec.records import RecordKind
from replicator.journal.journal import Journal
from replicator.model import SECTOR, ChunkRecord, Pair
from replicator.movers.verify import CHUNK_BYTES, HOLD_FROM_FILL, Send

MOST_UNDER_WAY = 16
"""Chunks, copies and verify records, that are submitted and not durable, of one site's request."""


@dataclass(slots=True)
class _Request:
    """One site's request: what was sent for it."""

    number: int
    sent: list[Differing] = field(default_factory=list)
    submitted: int = 0
    done: int = 0

    def is_done(self, _: Pair | None = None) -> None:
        """Note that a chunk is durable or failed; from the commit thread."""
        self.done += 1


class Repair:
    """Answers the repair requests of a primary's peers."""

    def __init__(self, journal: Journal, send: Send, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._journal = journal
        self._send = send
        self._chunk_bytes = chunk_bytes
        self._requests: dict[str, _Request] = {}

    def look(self, site: str, note: VerifyNote) -> int:
        """Send a part of what ``site`` asks for and was not sent yet; return how many pieces.

        To be called whenever the site's page was read. A piece is sent once for each request.
        """
        if not note.repair or self._journal.used_fraction >= HOLD_FROM_FILL:
            return 0
        request = self._requests.get(site)
        if request is None or request.number != note.repair:
            request = self._requests[site] = _Request(note.repair)
        wanted = list(note.differs)
        for piece in request.sent:
            wanted = without(wanted, piece.volume_id, piece.offset, piece.end)
        count = 0
        for piece in wanted:
            at = piece.offset
            while at < piece.end and request.submitted - request.done < MOST_UNDER_WAY:
                length = min(self._chunk_bytes, piece.end - at)
                assert length % SECTOR == 0
                self._send_piece(request, Differing(piece.volume_id, at, length, 0))
                at += length
                count += 1
        return count

    def _send_piece(self, request: _Request, piece: Differing) -> None:
        place = (piece.volume_id, piece.offset, piece.length)
        records = [
            ChunkRecord(kind, *place, on_durable=request.is_done, on_failed=request.is_done)
            for kind in (RecordKind.COPY, RecordKind.VERIFY)
        ]
        request.submitted += len(records)
        request.sent = with_piece(request.sent, piece)
        self._send(records)
