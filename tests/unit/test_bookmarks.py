"""Bookmarks: their payload, finding them in a ring, and the command at a running group."""

from __future__ import annotations

import msgspec
import pytest

from replicator.codec.bookmarks import decode_bookmark, encode_bookmark
from replicator.codec.records import RecordKind
from replicator.errors import JournalRotten, Refused, UsageError
from replicator.group.bookmarking import make_bookmark
from replicator.journal.bookmarks import find_bookmarks
from replicator.model import ControlRecord
from tests.fakes.group_on_sim import Primary
from tests.unit.test_site_runtime import Sites


@pytest.mark.parametrize("name", ["", "a b", ".hidden", "x" * 64, "näme", "a/b"])
def test_bookmark_name_that_breaks_the_rule_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="bad bookmark name"):
        encode_bookmark(name)


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", msgspec.msgpack.encode({"name": "a b"}), msgspec.msgpack.encode(7)]
)
def test_bookmark_payload_of_a_faulty_writer_says_nothing(payload: bytes) -> None:
    assert decode_bookmark(payload) is None


def _with_bookmarks(*names: str) -> Primary:
    primary = Primary(peers=())
    for index, name in enumerate(names):
        primary.write(1, index * 4096, b"x" * 4096)
        primary.commit.submit_control([ControlRecord(RecordKind.BOOKMARK, encode_bookmark(name))])
        while primary.commit.step(0.0):
            pass
    primary.journal.publish()
    return primary


def test_bookmarks_in_a_ring_are_found_in_order_at_the_ends_of_their_batches() -> None:
    primary = _with_bookmarks("before", "after.upgrade", "before")
    found = find_bookmarks(primary.device)
    assert [each.name for each in found] == ["before", "after.upgrade", "before"]
    assert found[-1].at == primary.journal.head
    assert found[0].at.position < found[1].at.position


def test_bookmarks_in_a_rotten_ring_are_not_guessed() -> None:
    primary = _with_bookmarks("one", "two")
    place = primary.journal.ring.place
    primary.machine["journal"].content[place.segments(0, 1)[0][0] + 4200] ^= 1
    with pytest.raises(JournalRotten, match="device offset"):
        find_bookmarks(primary.device)


def test_bookmark_command_is_durable_at_the_primary_and_refused_elsewhere() -> None:
    sites = Sites()
    sites.primary.start()
    sites.secondary.start()
    made = make_bookmark(sites.primary, "release-7")
    assert made.at.position == sites.a.journal.head.position
    assert made.at.digest == sites.a.journal.head.digest.hex()
    with pytest.raises(Refused, match="only a serving primary"):
        make_bookmark(sites.secondary, "release-7")
    with pytest.raises(UsageError, match="bad bookmark name"):
        make_bookmark(sites.primary, "a b")
    sites.primary.stop()
    sites.secondary.stop()
