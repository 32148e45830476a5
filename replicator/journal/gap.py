"""Take a gap: go on at a source that has reclaimed what this site has not received.

The source has noted in a dirty map what was in the reclaimed range. This site takes that map over
(so it survives its source), marks itself inconsistent with a new gap id, hands on to its own
readers what they will miss too, and begins an empty ring at the end of the map. A site that no map
knows misses everything: that is the initial copy.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from replicator.codec.batch import Point
from replicator.codec.dirty_map import (
    Extents,
    MapSet,
    ReaderMap,
    everything,
    pack,
    size_of,
    union,
    unpack,
)
from replicator.codec.page import GapNote
from replicator.errors import Detached
from replicator.journal.journal import INCONSISTENT, Journal
from replicator.journal.left_behind import changed_between
from replicator.journal.peer import Peer
from replicator.units import format_size


def take_gap(
    journal: Journal,
    source: Peer,
    *,
    has_volumes: bool,
    random_bytes: Callable[[int], bytes],
    now_ns: int,
    keep_image: Callable[[], str] = lambda: "",
) -> None:
    """Jump to where the source can serve this site from: durable on return.

    The source was looked at just before. ``keep_image`` may keep the volumes as they are, and says
    so. Raises Detached, with nothing changed, while that cannot
    be done yet: the own ring holds records that are not in the volumes, or what the source says is
    not durable there.
    """
    if journal.body.restore_stop is not None:
        raise Detached(
            f"{source.device_name}: {source.site} has reclaimed what follows "
            f"{journal.head.position}, and an operator holds the volumes of this site as they are; "
            "a resync would change them: replicatorctl restore resume lets it begin"
        )
    if journal.restored.pair != journal.head.pair:
        raise Detached(
            f"{source.device_name}: {source.site} has reclaimed what follows "
            f"{journal.head.position}; a resync begins when this site has restored what it holds "
            f"(now at {journal.restored.position})"
        )
    entry, missed = _entry(journal, source)
    missing = union(missed, _inherited(source), unpack(journal.maps.missing or {}))
    gap = GapNote(
        id=random_bytes(16),
        after=journal.head.position,
        since_ns=now_ns,
        missing_bytes=size_of(missing),
    )
    kept = keep_image() if has_volumes else ""
    reason = (
        f"gap in the log between {journal.head.position} and {entry.position}: up to "
        f"{format_size(size_of(missing))} missing until a resync has ended{kept}"
    )
    readers = _hand_on(journal, entry, missing)
    maps = MapSet(readers=readers, missing=pack(missing) if has_volumes else None)
    journal.take_gap(entry, source.catalog(), maps, gap if has_volumes else None, reason)


def _entry(journal: Journal, source: Peer) -> tuple[Point, Extents]:
    """Return where to go on, and what lies between the own head and there."""
    assert source.statement is not None
    newer, older = source.statement.newer.body, source.statement.older.body
    mine = source.maps().readers.get(journal.owner.site)
    head = journal.head.position
    if mine is not None and mine.begin <= head and head < mine.end.position:
        entry, missed = mine.end, unpack(mine.extents)
    else:
        entry, missed = older.restored, everything(source.catalog().volumes)
    if not newer.reclaim <= entry.position <= older.head.position:
        raise Detached(
            f"{source.device_name}: {source.site} is about to say where this site, which holds "
            f"{head}, can go on; asked again soon"
        )
    return entry, missed


def _inherited(source: Peer) -> Extents:
    """What an inconsistent source misses itself, this site will not get from its log either."""
    assert source.statement is not None
    if INCONSISTENT not in source.statement.newer.body.marks:
        return {}
    return unpack(source.maps().missing or {})


def _hand_on(journal: Journal, entry: Point, missing: Extents) -> dict[str, ReaderMap]:
    """Return the maps of the own readers that have not received up to ``entry``."""
    readers: dict[str, ReaderMap] = {}
    for site in journal.owner.peers:
        note = journal.peers.get(site)
        received = note.received[0] if note is not None else 0
        if received >= entry.position:
            continue
        known = journal.maps.readers.get(site)
        extents = union(
            missing,
            unpack(known.extents) if known is not None else {},
            changed_between(journal, site, journal.head.position)[1],
        )
        begin = min(received, known.begin) if known is not None else received
        readers[site] = ReaderMap(begin=begin, end=entry, extents=pack(extents))
    return readers


def why_not_promotable(marks: dict[str, str], gap: GapNote | None) -> str | None:
    """Return why a site with such a page must not become primary, None if it may."""
    if INCONSISTENT not in marks and gap is None:
        return None
    return marks.get(INCONSISTENT, "a gap in its log")


def without_reader(maps: MapSet, site: str) -> MapSet:
    """Return ``maps`` without the map of ``site``, which needs it no more."""
    readers = {name: each for name, each in maps.readers.items() if name != site}
    return msgspec.structs.replace(maps, readers=readers)
