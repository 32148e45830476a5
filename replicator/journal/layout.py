"""Where things stand on a journal volume (docs/formats/journal.md, section "Layout").

Blocks 0 and 1: the owner's page, copies 0 and 1. Blocks 2 and 3: the writer's page of a sync leg.
From METADATA_AT to the ring: catalog slots 0 and 1 and room for dirty maps. Then the ring.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicator.model import BLOCK

OWNER_PAGE_AT = (0, BLOCK)
WRITER_PAGE_AT = (2 * BLOCK, 3 * BLOCK)
METADATA_AT = 16 * BLOCK
CATALOG_SLOT_BYTES = 64 << 10
CATALOG_SLOTS_AT = (METADATA_AT, METADATA_AT + CATALOG_SLOT_BYTES)
MAPS_AT = CATALOG_SLOTS_AT[1] + CATALOG_SLOT_BYTES
RING_AT = 1 << 20
MIN_RING = 1 << 20


@dataclass(frozen=True, slots=True)
class RingPlace:
    """A ring's place on its device: device offset and size, bytes."""

    offset: int
    size: int

    def segments(self, position: int, length: int) -> list[tuple[int, int]]:
        """Return the (device offset, length) pieces of a log range; two if it wraps."""
        assert 0 <= length <= self.size, (position, length, self.size)
        start = position % self.size
        first = min(length, self.size - start)
        pieces = [(self.offset + start, first)] if first else []
        if length > first:
            pieces.append((self.offset, length - first))
        return pieces


def map_slots(ring_offset: int) -> tuple[RingPlace, RingPlace]:
    """Return the two slots for dirty maps: equal halves of what lies between catalog and ring."""
    size = max(0, ring_offset - MAPS_AT) // 2 // BLOCK * BLOCK
    return RingPlace(MAPS_AT, size), RingPlace(MAPS_AT + size, size)


def ring_place(device_bytes: int) -> RingPlace:
    """Return the ring that a device of this size holds."""
    return RingPlace(RING_AT, (device_bytes - RING_AT) // BLOCK * BLOCK)
