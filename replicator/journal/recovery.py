"""What a site does with its own journal after a start, whatever ended the run before.

The decision table is in docs/formats/journal.md, section "Recovery". In short: at a secondary
the head is what its own page states, and anything invalid below it is rot (model m1). At a
primary the head is the end of the valid tail, which is written again durably; a tail that ends
below the page's head, or a valid later batch of the current epoch, is rot. A secondary that finds
one copy of its page damaged goes to the end of its valid tail, too: the copy may have been the
newer one, and its volumes may hold what it stated. A ring that another site writes is never
written here: its owner finds by the writer's word how far it may go (movers/near.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from replicator.codec.batch import MAGIC, Invalid, Point, header_digest_holds, parse_header
from replicator.codec.catalog_records import BadEvent, catalog_after
from replicator.codec.history import Catalog
from replicator.errors import JournalRotten
from replicator.journal.journal import Journal
from replicator.journal.reader import read_batches
from replicator.model import BLOCK

_WINDOW = 4 << 20
_BATCHES_LOOKED_AT = 4
"""Largest batches beyond the end in which a later header is looked for. The next header stands
within one; looking through the whole ring would cost a start its time and find no more, unless
rot has eaten every header between."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What recovery found: where redo starts and where the log ends."""

    restart: Point
    head: Point
    batches: int
    stopped_by: str


def recover(journal: Journal) -> Recovered:
    """Find the head, prove that everything below it is there, make the tail durable, publish.

    Idempotent: a crash at any point leaves a journal that recovers to the same or a later head.
    Raises JournalRotten with the offset; nothing was changed then.
    """
    journal.settle()
    if not journal.attached:
        return Recovered(journal.restored, journal.head, 0, "not attached yet")
    primary = journal.body.role == "primary"
    stated = journal.body.head
    written_here = journal.body.writer is None
    whole_tail = primary or (journal.damaged_copy is not None and written_here)
    found, catalog, batches, stop = _scan(journal, None if whole_tail else stated.position)
    if found.position < stated.position:
        raise _rotten(journal, found, stop, f"the page states {stated.position} as durable")
    if primary:
        later = find_later_batch(journal, found.position)
        if later is not None:
            raise _rotten(journal, found, stop, f"a later batch stands at position {later}")
    elif found.position == stated.position and found.pair != stated.pair:
        raise _rotten(journal, found, stop, f"the page states the pair {stated.pair}")
    if whole_tail:
        _write_again(journal, stated, found)
    if catalog is not journal.catalog:
        journal.adopt(found, catalog)
    journal.head = found
    if found.position > stated.position and not primary:
        journal.publish()
    return Recovered(journal.restored, found, batches, str(stop) if stop else "the stated head")


def _scan(journal: Journal, limit: int | None) -> tuple[Point, Catalog, int, Invalid | None]:
    """Walk from the checkpoint to ``limit`` (None: to the end of the valid tail).

    Returns the catalog at the end, too: the page's one holds at the page's head, and events above
    it are folded in.
    """
    at = journal.restored
    end = journal.reclaim + journal.ring.place.size if limit is None else limit
    stated = journal.body.head.position
    catalog = journal.catalog
    count = 0
    while at.position < end:
        run = read_batches(journal.ring, at, end, catalog.group_id, catalog.history, _WINDOW)
        count += len(run.batches)
        above = [batch for batch in run.batches if batch.header.position >= stated]
        try:
            catalog = catalog_after(catalog, above)
        except BadEvent as error:
            raise JournalRotten(f"{journal.device.name}: behind {at.position}: {error}") from error
        at = run.end(at)
        if run.stop is not None:
            return at, catalog, count, run.stop
    return at, catalog, count, None


def find_later_batch(journal: Journal, end: int) -> int | None:
    """Return the position of a valid batch header of the current epoch beyond ``end``, or None.

    One batch is in flight, so a later header in the writer's own ring proves that the batch at
    ``end`` was durable: it is rot, not a torn tail. Only for the writer's own ring.
    """
    epoch_id = journal.catalog.history.last.id
    group_id = journal.catalog.group_id
    ring = journal.ring
    position = end + BLOCK
    limit = min(
        journal.reclaim + ring.place.size,
        end + _BATCHES_LOOKED_AT * journal.body.batch_bound,
    )
    while position < limit:
        content = ring.read(position, min(_WINDOW, limit - position))
        text = bytes(content)
        at = text.find(MAGIC)
        while at >= 0:
            if at % BLOCK == 0:
                header = parse_header(text[at : at + BLOCK])
                if (
                    header is not None
                    and header.position == position + at
                    and header.group_id == group_id
                    and header.epoch_id == epoch_id
                    and position + at + header.header_length <= limit
                    and header_digest_holds(ring.read(position + at, header.header_length), header)
                ):
                    return position + at
            at = text.find(MAGIC, at + 1)
        position += len(content)
    return None


def _write_again(journal: Journal, stated: Point, found: Point) -> None:
    """Write [stated head, found head) again and flush: it was valid, now it is durable."""
    start = stated.position
    while start < found.position:
        length = min(_WINDOW, found.position - start)
        journal.ring.write(start, bytes(journal.ring.read(start, length)))
        start += length
    journal.device.flush()


def _rotten(journal: Journal, at: Point, stop: Invalid | None, evidence: str) -> JournalRotten:
    offset = journal.ring.place.segments(at.position, BLOCK)[0][0]
    return JournalRotten(
        f"{journal.device.name}: journal rot at device offset {offset} (position {at.position}, "
        f"{stop or 'digest differs'}): {evidence}, so committed records are damaged; nothing was "
        "changed; compare with a peer's ring: replicatorctl journal check"
    )
