"""The last consistent state of a site's volumes is kept over a gap where that costs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator.codec.batch import Point
from replicator.codec.topology import Devices, Site
from replicator.errors import DeviceUnusable
from replicator.group.image import Images
from replicator.group.last_consistent import IMAGE, LastConsistent
from replicator.seams.clone import FileClones, How
from tests.fakes.group_on_sim import Primary, Secondary


class SharingClones:
    """A file system that shares blocks, as far as a clone shows it."""

    def clone(self, source: str, target: str) -> How:
        Path(target).write_bytes(Path(source).read_bytes())
        return "reflink"

    def drop(self, target: str) -> None:
        Path(target).unlink(missing_ok=True)


class Marked:
    """A journal as far as it is asked: head, catalog, gap."""

    def __init__(self, secondary: Secondary, position: int) -> None:
        self.head = Point(position, bytes(16), 1, 1)
        self.catalog = secondary.journal.catalog
        self.gap: object | None = None
        self.body = self


@pytest.fixture
def marked() -> Marked:
    primary = Primary()
    secondary = Secondary(primary)
    statement = secondary.peer.look()
    secondary.journal.attach(statement.newer.group_id, secondary.peer.catalog())
    return Marked(secondary, 8192)


def images(folder: Path, clones: SharingClones | FileClones) -> Images:
    site = Site(
        name="b", address="198.51.100.12", devices=Devices(kind="directory", path=str(folder))
    )
    return Images(site, "orders", clones)


def volumes(folder: Path, marked: Marked) -> None:
    for entry in marked.catalog.volumes:
        (folder / f"orders.{entry.name}.img").write_bytes(b"before" * 100)


def test_gap_keeps_the_state_before_until_the_site_is_consistent(
    tmp_path: Path, marked: Marked
) -> None:
    volumes(tmp_path, marked)
    kept = images(tmp_path, SharingClones())
    last = LastConsistent(marked, kept, lambda: 7)  # type: ignore[arg-type]
    assert IMAGE in last.keep()
    marked.gap = object()
    for entry in marked.catalog.volumes:
        (tmp_path / f"orders.{entry.name}.img").write_bytes(b"after" * 100)
    last.settle()
    marked.head = Point(20480, bytes(16), 3, 3)
    assert IMAGE in last.keep(), "a second gap keeps the image of before the first"
    note = kept.get(IMAGE)
    assert note.consistent_from == note.restart.position == 8192
    assert all(Path(each.path).read_bytes() == b"before" * 100 for each in note.volumes)
    marked.gap = None
    LastConsistent(marked, kept, lambda: 8).settle()  # type: ignore[arg-type]
    assert not kept.has(IMAGE), "also after a restart"
    assert not any(Path(each.path).exists() for each in note.volumes)


def test_gap_where_blocks_cannot_be_shared_is_taken_without_an_image(
    tmp_path: Path, marked: Marked
) -> None:
    volumes(tmp_path, marked)
    clones = FileClones(copies=False)
    source = next(tmp_path.glob("*.img"))
    try:
        clones.clone(str(source), f"{source}.probe")
    except DeviceUnusable as error:
        assert "cannot share blocks" in str(error)
    else:
        pytest.skip("this file system shares blocks")
    kept = images(tmp_path, clones)
    assert LastConsistent(marked, kept, lambda: 7).keep() == ""  # type: ignore[arg-type]
    assert not kept.list()
    assert not list(tmp_path.rglob(f"*{IMAGE}*"))


def test_site_that_has_received_nothing_keeps_nothing(tmp_path: Path, marked: Marked) -> None:
    marked.head = Point(0, bytes(16), 0, 0)
    kept = images(tmp_path, SharingClones())
    assert LastConsistent(marked, kept, lambda: 7).keep() == ""  # type: ignore[arg-type]
    assert not kept.list()
