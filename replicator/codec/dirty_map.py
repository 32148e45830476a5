"""Dirty maps: which pieces of the volumes a site has not received, or no longer can.

Extents are half-open ranges of 4 KiB blocks of a volume, sorted, merged, never overlapping. A map
that outgrows its room is made coarser (it covers more), and never loses a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from replicator.codec.batch import Batch, Point
from replicator.codec.history import VolumeEntry
from replicator.codec.records import CONTROL_KINDS, RecordKind
from replicator.model import BLOCK

_CHANGING = frozenset({RecordKind.WRITE, RecordKind.ZERO, RecordKind.COPY})
_MOST_COARSE = 1 << 40

Extents = Mapping[int, tuple[tuple[int, int], ...]]
"""By volume id: ranges of blocks."""

NOTHING: Extents = {}


class ReaderMap(msgspec.Struct, frozen=True):
    """What a reader misses between two points of the log, and is not in this ring any more.

    Whoever has received up to ``begin`` or further, and goes on at ``end``, misses ``extents`` at
    most.
    """

    begin: int
    end: Point
    extents: dict[int, list[int]]


class MapSet(msgspec.Struct, frozen=True):
    """All maps of a journal: one for each reader left behind, and what its own site misses."""

    readers: dict[str, ReaderMap] = {}
    missing: dict[int, list[int]] | None = None


_MAP_SET = msgspec.msgpack.Decoder(MapSet)  # built now: see codec/__init__.py


NO_MAPS = MapSet()


def merged(extents: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return ``extents`` sorted, with those that touch or overlap made one."""
    done: list[tuple[int, int]] = []
    for start, end in sorted(extents):
        if done and start <= done[-1][1]:
            if end > done[-1][1]:
                done[-1] = (done[-1][0], end)
        else:
            done.append((start, end))
    return tuple(done)


def union(*sets: Extents) -> Extents:
    """Return the blocks that are in any of ``sets``."""
    volumes = {volume for each in sets for volume in each}
    return {
        volume: merged(extent for each in sets for extent in each.get(volume, ()))
        for volume in sorted(volumes)
    }


def without(extents: Extents, gone: Extents) -> Extents:
    """Return the blocks of ``extents`` that are not in ``gone``."""
    left: dict[int, tuple[tuple[int, int], ...]] = {}
    for volume, ranges in extents.items():
        holes = iter(merged(gone.get(volume, ())))
        hole = next(holes, None)
        rest: list[tuple[int, int]] = []
        for first, end in ranges:
            start = first
            while hole is not None and hole[1] <= start:
                hole = next(holes, None)
            while hole is not None and hole[0] < end:
                if hole[0] > start:
                    rest.append((start, hole[0]))
                start = max(start, hole[1])
                if hole[1] > end:
                    break
                hole = next(holes, None)
            if start < end:
                rest.append((start, end))
        if rest:
            left[volume] = tuple(rest)
    return left


def size_of(extents: Extents) -> int:
    """Return how many bytes ``extents`` cover."""
    return BLOCK * sum(end - start for ranges in extents.values() for start, end in ranges)


def everything(volumes: Iterable[VolumeEntry]) -> Extents:
    """Return all blocks of ``volumes``."""
    return {each.id: ((0, -(-each.size_bytes // BLOCK)),) for each in volumes}


def changed_by(batches: Iterable[Batch]) -> Extents:
    """Return the blocks that the records of ``batches`` touch."""
    touched: dict[int, list[tuple[int, int]]] = {}
    for batch in batches:
        if batch.first_kind in CONTROL_KINDS:
            continue
        for kind, volume_id, offset, length, _ in batch.records():
            if kind in _CHANGING:
                blocks = (offset // BLOCK, -(-(offset + length) // BLOCK))
                touched.setdefault(volume_id, []).append(blocks)
    return {volume: merged(ranges) for volume, ranges in touched.items()}


def replaced_by(batches: Iterable[Batch]) -> Extents:
    """Return the blocks whose whole content copies and zeros in ``batches`` state."""
    whole: dict[int, list[tuple[int, int]]] = {}
    for batch in batches:
        if batch.first_kind not in (RecordKind.COPY, RecordKind.ZERO, RecordKind.VERIFY):
            continue
        for kind, volume_id, offset, length, _ in batch.records():
            if kind in (RecordKind.COPY, RecordKind.ZERO):
                blocks = (-(-offset // BLOCK), (offset + length) // BLOCK)
                if blocks[0] < blocks[1]:
                    whole.setdefault(volume_id, []).append(blocks)
    return {volume: merged(ranges) for volume, ranges in whole.items()}


def coarser(extents: Extents, blocks: int) -> Extents:
    """Return ``extents`` widened to multiples of ``blocks``."""
    return {
        volume: merged(
            (start // blocks * blocks, -(-end // blocks) * blocks) for start, end in ranges
        )
        for volume, ranges in extents.items()
    }


def pack(extents: Extents) -> dict[int, list[int]]:
    """Return ``extents`` as they are encoded: gap and length in turn, in blocks."""
    packed: dict[int, list[int]] = {}
    for volume, ranges in extents.items():
        flat: list[int] = []
        at = 0
        for start, end in ranges:
            flat += (start - at, end - start)
            at = end
        if flat:
            packed[volume] = flat
    return packed


def unpack(packed: Mapping[int, list[int]]) -> Extents:
    """Return the extents of ``pack``; ValueError if they make no sense (a faulty writer)."""
    extents: dict[int, tuple[tuple[int, int], ...]] = {}
    for volume, flat in packed.items():
        if len(flat) % 2 or any(number < 0 for number in flat):
            raise ValueError(f"dirty map of volume {volume}: numbers that are no extents")
        ranges: list[tuple[int, int]] = []
        at = 0
        for gap, length in zip(flat[::2], flat[1::2], strict=True):
            ranges.append((at + gap, at + gap + length))
            at += gap + length
        extents[volume] = merged(ranges)
    return extents


def encode_maps(maps: MapSet, room_bytes: int) -> bytes:
    """Return the MessagePack of ``maps`` in at most ``room_bytes``, made coarser as far as needed.

    ValueError if they do not fit at all.
    """
    content = msgspec.msgpack.encode(maps)
    blocks = 2
    while len(content) > room_bytes:
        if blocks > _MOST_COARSE:
            raise ValueError(f"dirty maps of {len(content)} bytes, room for {room_bytes}")
        content = msgspec.msgpack.encode(_coarser_maps(maps, blocks))
        blocks *= 2
    return content


def _coarser_maps(maps: MapSet, blocks: int) -> MapSet:
    def widened(packed: dict[int, list[int]]) -> dict[int, list[int]]:
        return pack(coarser(unpack(packed), blocks))

    return MapSet(
        readers={
            site: msgspec.structs.replace(each, extents=widened(each.extents))
            for site, each in maps.readers.items()
        },
        missing=None if maps.missing is None else widened(maps.missing),
    )


def decode_maps(content: bytes) -> MapSet:
    """Return the maps; ValueError if the bytes are none that an owner could write."""
    try:
        maps = _MAP_SET.decode(content)
    except msgspec.MsgspecError as error:
        raise ValueError(f"dirty maps: {error}") from error
    for each in maps.readers.values():
        unpack(each.extents)
    if maps.missing is not None:
        unpack(maps.missing)
    return maps
