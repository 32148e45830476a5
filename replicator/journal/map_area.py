"""Dirty maps on a journal volume: two slots between the catalog and the ring.

A new version goes into the slot that the current page does not name, is flushed, and is in force
with the page that names it (docs/formats/journal.md, section "Dirty maps").
"""

from __future__ import annotations

from replicator.codec.digest import digest
from replicator.codec.dirty_map import NO_MAPS, MapSet, decode_maps, encode_maps
from replicator.codec.page import CatalogRef, Page
from replicator.errors import JournalRotten, NoRoomForMaps
from replicator.journal.layout import map_slots
from replicator.model import BLOCK
from replicator.seams.blockdevice import JournalDevice


def write_maps(device: JournalDevice, current: Page, maps: MapSet) -> CatalogRef | None:
    """Write ``maps`` into the free slot and flush; None (nothing written) if there are none.

    Raises NoRoomForMaps, the device's errors.
    """
    if maps == NO_MAPS:
        return None
    slots = map_slots(current.body.ring_offset)
    used = current.body.maps.offset if current.body.maps else None
    slot = slots[1] if used == slots[0].offset else slots[0]
    try:
        content = encode_maps(maps, slot.size)
    except ValueError as error:
        raise NoRoomForMaps(f"{device.name}: {error}: hosts wait instead") from error
    device.write(slot.offset, content + bytes(-len(content) % BLOCK))
    device.flush()
    return CatalogRef(slot.offset, len(content), digest(content))


def read_maps(device: JournalDevice, page: Page) -> MapSet:
    """Return the maps that ``page`` names; JournalRotten if they are damaged."""
    reference = page.body.maps
    if reference is None:
        return NO_MAPS
    slots = map_slots(page.body.ring_offset)
    if reference.offset not in [each.offset for each in slots] or reference.length > slots[0].size:
        raise JournalRotten(f"{device.name}: the page names dirty maps at {reference.offset}")
    padded = -(-reference.length // BLOCK) * BLOCK
    content = bytes(device.read(reference.offset, padded))[: reference.length]
    if digest(content) != reference.digest:
        raise JournalRotten(
            f"{device.name}: dirty maps damaged at device offset {reference.offset}: what a reader "
            "misses is not known any more; restart that reader with a full copy"
        )
    try:
        return decode_maps(content)
    except ValueError as error:
        raise JournalRotten(f"{device.name}: {error}") from error
