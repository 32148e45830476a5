"""Make a journal on a blank device, and check that a device is blank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from replicator.codec.batch import LOG_START, batch_bound
from replicator.codec.history import Catalog, Epoch, History, VolumeEntry
from replicator.codec.page import OwnerBody, Page
from replicator.errors import DeviceUnusable, NotBlank
from replicator.journal.journal import write_catalog
from replicator.journal.layout import MIN_RING, RingPlace, ring_place
from replicator.journal.pages import write_page
from replicator.model import BLOCK
from replicator.seams.blockdevice import JournalDevice

_EDGE = 1 << 20
"""Bytes at both ends of a device that must be zeros for it to be called blank."""


@dataclass(frozen=True, slots=True)
class NewJournal:
    """What a new journal is for. ``volumes`` is given for the primary only.

    ``writer`` is the primary that will write this ring over a sync link, None for the owner.

    ``place`` puts the ring elsewhere than to the device's end, and may be smaller than MIN_RING:
    the simulator's rings wrap every few batches.
    """

    group: str
    site: str
    upstream: str | None
    smallest_ring: int
    volumes: tuple[VolumeEntry, ...] = ()
    place: RingPlace | None = None
    writer: str | None = None


def first_stain(device: JournalDevice) -> int | None:
    """Return the offset of the first non-zero block at the device's edges, or None if blank."""
    size = device.size_bytes // BLOCK * BLOCK
    edges = {0: min(_EDGE, size), max(0, size - _EDGE): min(_EDGE, size)}
    for start, length in edges.items():
        content = bytes(device.read(start, length))
        if content.count(0) != len(content):
            stain = next(at for at, byte in enumerate(content) if byte)
            return start + stain // BLOCK * BLOCK
    return None


def format_journal(
    device: JournalDevice,
    new: NewJournal,
    random_bytes: Callable[[int], bytes],
    boot_id: bytes,
    *,
    overwrite: bool = False,
) -> Page:
    """Write both pages (and at a primary the catalog): durable on return.

    Raises NotBlank unless ``overwrite``; DeviceUnusable if the ring would be too small.
    """
    stain = None if overwrite else first_stain(device)
    if stain is not None:
        raise NotBlank(
            f"{device.name}: not blank (bytes at offset {stain}); look at it with "
            f"replicatorctl journal info; only --overwrite {device.name} formats it all the same"
        )
    place = new.place or ring_place(device.size_bytes)
    if new.place is None and place.size < MIN_RING:
        raise DeviceUnusable(
            f"{device.name}: {device.size_bytes} bytes leave a ring of {max(0, place.size)}, "
            f"expected at least {MIN_RING}"
        )
    primary = new.upstream is None
    group_id = random_bytes(16) if primary else bytes(16)
    reference = None
    if primary:
        epoch = Epoch(random_bytes(16), 1, 0, bytes(16), new.site)
        catalog = Catalog(new.group, group_id, History((epoch,)), new.volumes)
        reference = write_catalog(device, None, catalog)
    body = OwnerBody(
        group=new.group,
        site=new.site,
        role="primary" if primary else "secondary",
        upstream=new.upstream,
        ring_offset=place.offset,
        ring_size=place.size,
        batch_bound=batch_bound(min(place.size, new.smallest_ring)),
        catalog=reference,
        head=LOG_START,
        restored=LOG_START,
        reclaim=0,
        writer=new.writer,
    )
    journal_id = random_bytes(16)
    page = Page(1, group_id, journal_id, boot_id, body)
    write_page(device, page)
    page = Page(2, group_id, journal_id, boot_id, body)
    write_page(device, page)
    return page
