"""Seal a ring: nobody writes it any more, and its valid tail is part of the log.

The last answered batch has nobody after it to say that it was committed, so a reader's limit stops
short of it. Only a seal passes the limit (model m3): shut the ring's writer out, wait until its
session is gone, scan to the end of the valid tail, write that tail again durably, publish it.
"""

from __future__ import annotations

from collections.abc import Callable

from replicator.codec.batch import Point
from replicator.codec.catalog_records import BadEvent, catalog_after
from replicator.codec.history import Catalog
from replicator.errors import JournalRotten, NotAJournal
from replicator.journal.journal import FENCED, Journal
from replicator.journal.limits import ring_limit
from replicator.journal.pages import read_writer_page
from replicator.journal.reader import read_batches
from replicator.journal.recovery import recover

_WINDOW = 4 << 20


def seal(journal: Journal, shut_out: Callable[[], None], reason: str) -> Point:
    """Close the ring for good and return the point at which it ends: durable on return.

    Order, each step durable before the next: the fenced mark (what the target exports follows it,
    also after a reboot); ``shut_out``, which returns when no write of the ring's writer can arrive
    any more; the tail, written again; the page with the sealed pair. Again after a crash or a
    failure in between it goes on; on a sealed ring it changes nothing. Raises what ``shut_out``
    raises, NotAJournal (it never met its group), JournalRotten.
    """
    journal.settle()
    if not journal.attached:
        raise NotAJournal(
            f"{journal.device.name}: has not met its source yet, so there is nothing to seal"
        )
    body = journal.body
    if body.sealed is not None:
        return body.head
    if FENCED not in body.marks:
        journal.publish(mark={FENCED: reason})
    shut_out()
    if body.role == "primary" or body.writer is None:
        end = recover(journal).head
    else:
        end, catalog = _tail(journal)
        _write_again(journal, end)
        journal.advance(end, None if catalog is journal.catalog else catalog)
    journal.publish(sealed=end)
    journal.publish()  # both copies state it: whoever acts on the older one sees it, too
    return end


def _tail(journal: Journal) -> tuple[Point, Catalog]:
    """Return the end of the valid tail behind the head, and the catalog there."""
    at = journal.head
    catalog = journal.catalog
    proved = ring_limit(journal.page, read_writer_page(journal.device)).stated.position
    end = journal.reclaim + journal.ring.place.size
    while at.position < end:
        run = read_batches(journal.ring, at, end, catalog.group_id, catalog.history, _WINDOW)
        try:
            catalog = catalog_after(catalog, run.batches)
        except BadEvent as error:
            raise JournalRotten(f"{journal.device.name}: behind {at.position}: {error}") from error
        at = run.end(at)
        if run.stop is not None:
            break
    if at.position < proved:
        offset = journal.ring.place.segments(at.position, 1)[0][0]
        raise JournalRotten(
            f"{journal.device.name}: journal rot at device offset {offset} (position "
            f"{at.position}): its writer states {proved} as durable; not sealed; look at the "
            "primary's ring, if there is one: replicatorctl journal check"
        )
    return at, catalog


def _write_again(journal: Journal, end: Point) -> None:
    """Write what stands between the head and ``end`` again, and flush: durable on return."""
    start = journal.head.position
    while start < end.position:
        length = min(_WINDOW, end.position - start)
        journal.ring.write(start, bytes(journal.ring.read(start, length)))
        start += length
    journal.device.flush()
