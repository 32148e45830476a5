"""Move a journal to a device of another size while it is written (docs/formats/journal.md).

Positions stay what they are; only the place of each changes. Order, each step durable before the
next: (0) a page on the new device says whose move it is for; (1) the log from the reclaim position
to the head is copied, again and again until little is missing; (2) with appends and pages held:
the rest of it, the metadata area, and both copies of a page that names the old journal's id in
``moved_from``; (3) the old journal's page names the new one in ``moved_to``: the commit point. A
crash before 3 leaves the old journal in force, after it the new one; the old one is never opened
again as a journal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import msgspec

from replicator.errors import DeviceUnusable, NotAJournal, NotBlank, Refused
from replicator.journal.format import first_stain
from replicator.journal.journal import Journal
from replicator.journal.layout import METADATA_AT, RING_AT, RingPlace, ring_place
from replicator.journal.pages import read_statement, write_page
from replicator.journal.ring import Ring
from replicator.seams.blockdevice import JournalDevice

_PIECE = 4 << 20
_LITTLE = 16 << 20
"""Bytes that may be left to copy while appends are held."""
_MOST_ROUNDS = 20
LONGEST_NAME = 112
"""Bytes of a device's path that a page has room for."""
_MOST_FORMER = 2
"""Former ids that a page names: a peer that was away over more moves needs a resync's care."""


def move_journal(
    journal: Journal,
    target: JournalDevice,
    random_bytes: Callable[[int], bytes],
    place: RingPlace | None = None,
) -> None:
    """Move ``journal`` to ``target`` and go on there: durable on return.

    Raises NotBlank, DeviceUnusable (the ring would be too small for the group's batches) or
    Refused (what is still needed does not fit) with the old journal in force; DeviceFailed of the
    target likewise. A failure of the old device after that is the site's own (JournalFailed).
    """
    new_place = place or ring_place(target.size_bytes)
    _expect_fit(journal, target, new_place)
    _expect_free(journal, target)
    _claim(journal, target, random_bytes(16))
    ring = Ring(target, new_place)
    copied = _floor(journal, new_place)
    for _ in range(_MOST_ROUNDS):
        head = journal.head.position
        copied = max(copied, _floor(journal, new_place))
        _copy(journal.ring, ring, copied, head)
        little = head - copied < min(_LITTLE, new_place.size // 8)
        copied = head
        if little:
            break
    with journal.held():
        _finish(journal, target, ring, copied, random_bytes)


def _claim(journal: Journal, target: JournalDevice, claim_id: bytes) -> None:
    """Write a page that is no journal's: it says whose unfinished move this device is for."""
    old = journal.page
    body = msgspec.structs.replace(
        old.body,
        moved_from=(old.journal_id,),
        moved_to=(old.journal_id, journal.device.name),
        peers={},
        prepared={},
    )
    write_page(target, dataclasses.replace(old, generation=1, journal_id=claim_id, body=body))


def _finish(
    journal: Journal,
    target: JournalDevice,
    ring: Ring,
    copied: int,
    random_bytes: Callable[[int], bytes],
) -> None:
    """Copy the rest with nothing changing, write the new pages, and let the old one name them."""
    head = journal.head
    start = _floor(journal, ring.place)
    end = journal.written  # a batch that waits for another ring may stand above the head
    if end - start > ring.place.size:
        raise Refused(f"{target.name}: hosts write faster than it can be copied; try again later")
    if copied < start:
        copied = start
    _copy(journal.ring, ring, copied, end)
    offset = METADATA_AT
    ring_at = min(RING_AT, journal.body.ring_offset, ring.place.offset)
    while offset < ring_at:
        length = min(_PIECE, ring_at - offset)
        target.write(offset, bytes(journal.device.read(offset, length)))
        offset += length
    target.flush()
    old = journal.page
    body = msgspec.structs.replace(
        old.body,
        ring_offset=ring.place.offset,
        ring_size=ring.place.size,
        head=head,
        reclaim=start,
        peers=dict(journal.peers),
        moved_from=(*old.body.moved_from, old.journal_id)[-_MOST_FORMER:],
        moved_to=None,
    )
    new = dataclasses.replace(old, journal_id=random_bytes(16), body=body)
    first = dataclasses.replace(new, generation=old.generation + 2)
    second = dataclasses.replace(new, generation=old.generation + 3)
    write_page(target, first)
    write_page(target, second)
    journal.leave(target, ring, (first, second))


def _floor(journal: Journal, place: RingPlace) -> int:
    """Return the first position that the new ring holds: all that is held, or what fits."""
    body = journal.body
    head = journal.head.position
    needed = min(body.restored.position, *journal.received(), head)
    fits = (head - place.size * 3 // 4) // 4096 * 4096
    return max(body.reclaim, min(needed // 4096 * 4096, max(0, fits)))


def _expect_fit(journal: Journal, target: JournalDevice, place: RingPlace) -> None:
    if max(len(target.name.encode()), len(journal.device.name.encode())) > LONGEST_NAME:
        raise DeviceUnusable(f"{target.name}: a journal's path has at most {LONGEST_NAME} bytes")
    bound = journal.body.batch_bound
    if place.size < 8 * bound:
        raise DeviceUnusable(
            f"{target.name}: leaves a ring of {max(0, place.size)} bytes; the group's batches are "
            f"up to {bound}, so every ring has at least {8 * bound}"
        )
    used = journal.head.position - _floor(journal, place)
    if used > place.size * 7 // 8:
        raise Refused(
            f"{target.name}: a ring of {place.size} bytes is too small for the {used} bytes that "
            "this site or a reader still needs; wait until they have been received"
        )


def _expect_free(journal: Journal, target: JournalDevice) -> None:
    """Take a blank device, or one on which an earlier try to move this journal has ended."""
    if first_stain(target) is None:
        return
    try:
        page = read_statement(target).newer
    except NotAJournal as error:
        raise NotBlank(
            f"{target.name}: not blank, and no unfinished move of this journal"
        ) from error
    if journal.page.journal_id not in page.body.moved_from:
        raise NotBlank(
            f"{target.name}: holds a journal of group {page.body.group} at site {page.body.site}"
        )


def _copy(source: Ring, target: Ring, start: int, end: int) -> None:
    while start < end:
        length = min(_PIECE, end - start)
        target.write(start, bytes(source.read(start, length)))
        start += length
