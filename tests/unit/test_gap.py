"""Taking a gap: the map is taken over, and what a source misses is handed on (model m8)."""

from __future__ import annotations

import pytest

from replicator.codec.batch import Point
from replicator.codec.dirty_map import (
    MapSet,
    ReaderMap,
    coarser,
    decode_maps,
    encode_maps,
    everything,
    merged,
    pack,
    size_of,
    union,
    unpack,
    without,
)
from replicator.codec.page import GapNote, RestoreStop
from replicator.errors import Detached
from replicator.journal.gap import take_gap, why_not_promotable
from replicator.journal.journal import INCONSISTENT
from tests.fakes.group_on_sim import VOLUMES, Primary, Secondary

BLOCK = 4096


def left_behind(primary: Primary, extents: dict[int, list[int]]) -> Point:
    """Let a say that b has been left behind up to a's head."""
    for index in range(4):
        primary.write(1, index * BLOCK, bytes([index + 1]) * BLOCK)
    while primary.commit.step(0.0):
        pass
    end = primary.journal.head
    primary.journal.publish(restored=end)
    reader = ReaderMap(begin=0, end=end, extents=extents)
    primary.journal.publish_maps(MapSet(readers={"b": reader}))
    return end


def attached(primary: Primary) -> Secondary:
    secondary = Secondary(primary)
    statement = secondary.peer.look()
    secondary.journal.attach(statement.newer.group_id, secondary.peer.catalog())
    return secondary


def jump(secondary: Secondary, *, has_volumes: bool = True) -> None:
    secondary.peer.look()
    take_gap(
        secondary.journal,
        secondary.peer,
        has_volumes=has_volumes,
        random_bytes=lambda length: b"g" * length,
        now_ns=7,
    )


def test_gap_takes_over_the_map_and_goes_on_at_its_end() -> None:
    primary = Primary()
    secondary = attached(primary)
    end = left_behind(primary, {1: [2, 3]})
    jump(secondary)
    journal = secondary.journal
    assert journal.head == journal.restored == end
    assert journal.body.reclaim == end.position
    assert journal.maps.missing == {1: [2, 3]}
    assert journal.body.gap == GapNote(id=b"g" * 16, after=0, since_ns=7, missing_bytes=3 * BLOCK)
    assert "12.0 KiB missing" in journal.body.marks[INCONSISTENT]
    secondary.open(primary)
    assert secondary.journal.gap is not None, "the gap is known after a restart"
    assert secondary.journal.gap.missing_bytes == 3 * BLOCK
    assert why_not_promotable(journal.body.marks, journal.body.gap)
    assert why_not_promotable({}, None) is None


def test_gap_of_a_site_that_no_map_knows_misses_everything() -> None:
    primary = Primary()
    secondary = attached(primary)
    end = left_behind(primary, {1: [2, 3]})
    primary.journal.publish_maps(MapSet())
    jump(secondary)
    assert secondary.journal.head == end
    assert unpack(secondary.journal.maps.missing or {}) == everything(VOLUMES)


def test_gap_waits_until_the_own_ring_is_restored() -> None:
    primary = Primary()
    secondary = attached(primary)
    left_behind(primary, {})
    secondary.journal.head = Point(BLOCK, b"x" * 16, 1, 1)
    with pytest.raises(Detached, match="when this site has restored what it holds"):
        jump(secondary)
    assert secondary.journal.body.gap is None


def test_gap_waits_while_an_operator_holds_the_volumes() -> None:
    primary = Primary()
    secondary = attached(primary)
    left_behind(primary, {})
    secondary.journal.set_restore_stop(RestoreStop("paused"))
    with pytest.raises(Detached, match="replicatorctl restore resume"):
        jump(secondary)
    secondary.journal.set_restore_stop(None)
    jump(secondary)
    assert secondary.journal.gap is not None


def test_gap_inherits_what_an_inconsistent_source_misses_and_hands_it_on() -> None:
    primary = Primary()
    secondary = attached(primary)
    end = left_behind(primary, {1: [2, 3]})
    source = primary.journal
    source.maps = MapSet(readers=source.maps.readers, missing={2: [0, 5]})
    source.publish_maps(source.maps)
    source.publish(mark={INCONSISTENT: "as if"})
    source.publish()
    secondary.journal.owner = type(secondary.journal.owner)("orders", "b", bytes(16), ("a", "c"))
    jump(secondary)
    misses = {1: [2, 3], 2: [0, 5]}
    assert secondary.journal.maps.missing == misses
    assert secondary.journal.maps.readers["c"] == ReaderMap(begin=0, end=end, extents=misses)
    assert "a" not in secondary.journal.maps.readers or (
        secondary.journal.peers["a"].received[0] < end.position
    )


def test_gap_of_a_site_without_volumes_marks_nothing_and_hands_on() -> None:
    primary = Primary()
    secondary = attached(primary)
    end = left_behind(primary, {1: [2, 3]})
    secondary.journal.owner = type(secondary.journal.owner)("orders", "b", bytes(16), ("c",))
    jump(secondary, has_volumes=False)
    assert secondary.journal.body.marks == {}
    assert secondary.journal.gap is None
    assert secondary.journal.maps.readers["c"] == ReaderMap(begin=0, end=end, extents={1: [2, 3]})


def test_extents_merge_join_and_leave_out() -> None:
    assert merged([(5, 7), (1, 3), (3, 4), (6, 9)]) == ((1, 4), (5, 9))
    assert union({1: ((0, 2),)}, {1: ((2, 4),), 2: ((9, 10),)}) == {1: ((0, 4),), 2: ((9, 10),)}
    assert without({1: ((0, 10), (20, 30))}, {1: ((0, 2), (5, 22), (29, 40))}) == {
        1: ((2, 5), (22, 29))
    }
    assert without({1: ((0, 10),)}, {1: ((0, 10),)}) == {}
    assert size_of({1: ((0, 2),), 3: ((1, 2),)}) == 3 * BLOCK
    assert unpack(pack({1: ((3, 5), (9, 10))})) == {1: ((3, 5), (9, 10))}


def test_maps_that_outgrow_their_room_get_coarser_and_lose_nothing() -> None:
    extents = {1: tuple((at * 4, at * 4 + 1) for at in range(5000))}
    maps = MapSet(missing=pack(extents))
    content = encode_maps(maps, 2000)
    assert len(content) <= 2000
    kept = unpack(decode_maps(content).missing or {})
    assert without(extents, kept) == {}
    assert kept == coarser(extents, 4) or size_of(kept) >= size_of(extents)
    with pytest.raises(ValueError, match="room for"):
        encode_maps(maps, 3)


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x81\xa7missing\x81\x01\x91\x01"])
def test_maps_that_make_no_sense_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="dirty map"):
        decode_maps(content)
