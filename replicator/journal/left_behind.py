"""What a reader would miss if the ring were reclaimed past it: read from the own ring."""

from __future__ import annotations

from replicator.codec.batch import Point, parse_header
from replicator.codec.dirty_map import Extents, changed_by, everything, union
from replicator.journal.journal import Journal
from replicator.journal.reader import read_batches
from replicator.model import BLOCK

_WINDOW = 4 << 20


def changed_between(journal: Journal, site: str, limit: int) -> tuple[Point | None, Extents]:
    """Return what changed from where ``site`` is covered to the last batch end up to ``limit``.

    The point is that end, or None if not one batch lies between. If the own ring does not reach
    back that far (or its bytes are no batch), everything counts as changed.
    """
    covered = journal.covered(site)
    at = _point_at(journal, site, covered)
    if at is None:
        return None, everything(journal.catalog.volumes) if covered < limit else {}
    changed: list[Extents] = []
    end: Point | None = None
    catalog = journal.catalog
    while at.position < limit:
        run = read_batches(journal.ring, at, limit, catalog.group_id, catalog.history, _WINDOW)
        changed.append(changed_by(run.batches))
        at = run.end(at)
        end = at if run.batches else end
        if run.stop is not None:
            break
    return end, union(*changed)


def _point_at(journal: Journal, site: str, position: int) -> Point | None:
    """Return the point at ``position`` if a batch of the own ring begins there."""
    known = journal.maps.readers.get(site)
    if known is not None and known.end.position == position:
        return known.end
    if position == journal.head.position:
        return journal.head
    if not journal.body.reclaim <= position < journal.head.position:
        return None
    header = parse_header(journal.ring.read(position, BLOCK))
    if header is None or header.position != position:
        return None
    return Point(position, header.previous, header.first_sequence, header.time_ns)
