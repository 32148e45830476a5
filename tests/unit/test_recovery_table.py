"""Each row of the recovery table in docs/formats/journal.md, and its worked example."""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.clock import SystemClock
from replicator.codec.history import VolumeEntry
from replicator.codec.topology import FixedInterval
from replicator.errors import JournalRotten, NotAJournal
from replicator.journal.format import NewJournal, format_journal
from replicator.journal.journal import Journal, Owner
from replicator.journal.peer import Peer
from replicator.journal.recovery import recover
from replicator.model import BLOCK, HostWrite, WriteKind
from replicator.movers.commit import Commit
from replicator.movers.pull import Pull
from replicator.seams.filedevice import CachedDevice, DirectDevice, aligned_buffer, preallocate
from replicator.seams.volume import DataVolume

BOOT = bytes(16)
RING = 4 << 20
DB = VolumeEntry(1, "db", 1 << 20)
DOCUMENT = Path(__file__).parents[2] / "docs" / "formats"


class Ignored:
    """An AnswerSink that nobody reads."""

    def answer(self, requests: object) -> None:
        del requests


class Pair:
    """A primary a and its secondary b on files, without threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        preallocate(folder / "a.img", DB.size_bytes)
        for site, upstream in (("a", None), ("b", "a")):
            path = folder / f"{site}.journal"
            preallocate(path, (1 << 20) + RING)
            device = DirectDevice(path, writable=True)
            new = NewJournal("orders", site, upstream, RING, () if upstream else (DB,))
            format_journal(device, new, os.urandom, BOOT)
            device.close()

    def open(self, site: str) -> Journal:
        device = DirectDevice(self.folder / f"{site}.journal", writable=True)
        other = "b" if site == "a" else "a"
        return Journal.open(device, Owner("orders", site, BOOT, (other,)))

    def write(self, journal: Journal, count: int) -> list[int]:
        """Commit ``count`` batches of one 4 KiB record; return the positions they begin at."""
        volume = DataVolume(1, "db", DB.size_bytes, CachedDevice(self.folder / "a.img"))
        commit = Commit(journal, {1: volume}, SystemClock(), aligned_buffer)
        begins = []
        for index in range(count):
            begins.append(journal.head.position)
            payload = bytes([index + 1]) * BLOCK
            commit.submit([HostWrite(Ignored(), 1, WriteKind.WRITE, 0, BLOCK, [payload])])
            assert commit.step(0.0)
        volume.device.close()
        return begins

    def damage(self, site: str, offset: int) -> None:
        """Flip one bit of the file."""
        with (self.folder / f"{site}.journal").open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))
            os.fsync(file.fileno())


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    yield Pair(tmp_path)


def test_recover_no_valid_page_is_refused(pair: Pair) -> None:
    pair.damage("a", 100)
    pair.damage("a", BLOCK + 100)
    with pytest.raises(NotAJournal, match=r"copy 0: .*copy 1: "):
        pair.open("a")


@pytest.mark.parametrize("copy", [0, 1])
def test_recover_one_damaged_page_uses_the_other(pair: Pair, copy: int) -> None:
    journal = pair.open("a")
    pair.write(journal, 3)
    journal.publish()
    head = journal.head
    pair.damage("a", copy * BLOCK + 100)
    journal = pair.open("a")
    assert recover(journal).head == head
    journal.publish()
    journal.publish()
    pair.write(journal, 1)
    assert recover(pair.open("a")).head == journal.head


def test_recover_rot_below_head_halts_with_offset(pair: Pair) -> None:
    journal = pair.open("a")
    begins = pair.write(journal, 3)
    journal.publish()
    offset = journal.ring.place.offset + begins[1]
    pair.damage("a", offset + BLOCK + 7)
    with pytest.raises(JournalRotten, match=rf"device offset {offset} .*V9"):
        recover(pair.open("a"))


def test_recover_primary_torn_tail_is_dropped(pair: Pair) -> None:
    journal = pair.open("a")
    begins = pair.write(journal, 3)
    pair.damage("a", journal.ring.place.offset + begins[2] + BLOCK + 7)
    journal = pair.open("a")
    assert recover(journal).head.position == begins[2]
    pair.write(journal, 2)
    again = pair.open("a")
    assert recover(again).head == journal.head


def test_recover_primary_later_batch_proves_rot(pair: Pair) -> None:
    journal = pair.open("a")
    begins = pair.write(journal, 4)
    offset = journal.ring.place.offset + begins[1]
    pair.damage("a", offset + BLOCK + 7)
    with pytest.raises(JournalRotten, match=rf"later batch stands at position {begins[2]}"):
        recover(pair.open("a"))


def test_recover_secondary_tail_above_head_is_ignored(pair: Pair) -> None:
    source = pair.open("a")
    begins = pair.write(source, 4)
    source.publish()
    own = pair.open("b")
    peer = Peer("a", DirectDevice(pair.folder / "a.journal", writable=False), own)
    Pull(own, peer, FixedInterval(seconds=0), SystemClock()).step(0.0)
    stated = own.head
    assert stated == source.head
    pair.write(source, 2)
    tail = bytes(source.ring.read(stated.position, source.head.position - stated.position))
    own.ring.write(stated.position, tail)
    own.ring.write(stated.position, bytes(BLOCK))  # torn: the first is lost, the second is whole
    again = pair.open("b")
    assert recover(again).head == stated
    assert begins[0] == 0


def test_worked_example_in_document_is_what_the_code_writes() -> None:
    example = runpy.run_path(str(DOCUMENT / "worked_example.py"))["worked_example"]()
    assert example in (DOCUMENT / "journal.md").read_text()
