"""Read everything that a journal volume holds, and change nothing: for looking, not for running.

Recovery begins at the checkpoint; a survey begins at the oldest batch that the ring still holds,
so it also judges what peers may still read. Works on a device that a daemon has open; what a
running primary overwrites meanwhile lies below its reclaim position, which a survey never reads.
"""

from __future__ import annotations

from collections.abc import Iterator

from replicator.codec.batch import MAGIC, Batch, Invalid, Point, header_digest_holds, parse_header
from replicator.codec.history import Catalog
from replicator.codec.page import OwnerBody
from replicator.errors import JournalRotten, WrongJournal
from replicator.journal.journal import read_catalog
from replicator.journal.layout import RingPlace
from replicator.journal.pages import Statement, read_statement
from replicator.journal.reader import read_batches
from replicator.journal.ring import Ring
from replicator.model import BLOCK
from replicator.seams.blockdevice import JournalDevice

_WINDOW = 4 << 20


class Survey:
    """The pages, the catalog and the batches of one journal volume.

    Raises NotAJournal without a valid page, WrongJournal if its ring does not fit the device,
    JournalRotten if its catalog is damaged, DeviceFailed.
    """

    def __init__(self, device: JournalDevice) -> None:
        self.device = device
        self.statement: Statement = read_statement(device)
        body = self.body
        if body.ring_size < BLOCK or body.ring_offset + body.ring_size > device.size_bytes:
            raise WrongJournal(
                f"{device.name}: its page states a ring of {body.ring_size} bytes at "
                f"{body.ring_offset}, the device has {device.size_bytes}; was it cut short?"
            )
        self.ring = Ring(device, RingPlace(body.ring_offset, body.ring_size))
        self.catalog: Catalog | None = read_catalog(device, self.statement.newer)

    @property
    def body(self) -> OwnerBody:
        """The newest valid statement of the owner."""
        return self.statement.newer.body

    def first(self, position: int = 0) -> Point | None:
        """Return the point at which the first batch at or after ``position`` begins.

        Its chain is taken on trust: the batches before it are gone. None if the ring holds none.
        """
        head = self.body.head.position
        at = max(position, self.body.reclaim, head - self.ring.place.size, 0)
        at = -(-at // BLOCK) * BLOCK
        while at < head:
            content = self.ring.read(at, min(_WINDOW, head - at))
            found = self._first_in(content, at)
            if found is not None:
                return found
            at += len(content)
        return None

    def latest_first(self) -> int:
        """Return the position at or before which the first batch must begin.

        The reclaim position lies inside a batch, so the next one begins up to a batch later; but
        the log's start and the checkpoint are known to be ends of batches.
        """
        body = self.body
        oldest = max(body.reclaim, body.head.position - self.ring.place.size)
        if oldest <= 0:
            return 0
        beginning = oldest + body.batch_bound
        if body.restored.position >= oldest:
            beginning = min(beginning, body.restored.position)
        return min(beginning, body.head.position)

    def batches(self, at: Point, limit: int) -> Iterator[Batch | Invalid]:
        """Yield the valid batches from ``at`` to ``limit``; an Invalid, if any, is the last.

        A batch's content is valid until the next one is asked for.
        """
        if self.catalog is None:
            return
        group_id, history = self.catalog.group_id, self.catalog.history
        while at.position < limit:
            run = read_batches(self.ring, at, limit, group_id, history, _WINDOW)
            yield from run.batches
            if run.stop is not None:
                yield run.stop
                return
            at = run.end(at)

    def device_offset(self, position: int) -> int:
        """Return where on the device the byte at ``position`` of the log stands."""
        return self.ring.place.segments(position, BLOCK)[0][0]

    def rotten(self, verdict: Invalid) -> JournalRotten:
        """Return the error for an invalid batch below what the page states as durable."""
        return JournalRotten(
            f"{self.device.name}: journal rot at device offset "
            f"{self.device_offset(verdict.position)}, {verdict}; the page states "
            f"{self.body.head.position} as durable; compare with a peer's ring, and do not "
            "format this device before its volumes are saved"
        )

    def _first_in(self, content: memoryview, start: int) -> Point | None:
        text = bytes(content)
        at = text.find(MAGIC)
        while at >= 0:
            if at % BLOCK == 0 and (point := self._point_at(start + at, text[at : at + BLOCK])):
                return point
            at = text.find(MAGIC, at + 1)
        return None

    def _point_at(self, position: int, block: bytes) -> Point | None:
        header = parse_header(block)
        if header is None or header.position != position:
            return None
        if header.length > self.ring.place.size:
            return None
        if not header_digest_holds(self.ring.read(position, header.header_length), header):
            return None
        return Point(position, header.previous, header.first_sequence, header.time_ns)
