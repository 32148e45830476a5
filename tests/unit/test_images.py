"""Clones by LVM, and which base leads to a point."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from replicator.codec.batch import LOG_START, Point
from replicator.codec.history import Catalog, Epoch, History, VolumeEntry
from replicator.codec.image_note import ImageNote, decode_note, encode_note
from replicator.codec.topology import Devices, Site
from replicator.errors import DeviceUnusable, Refused, UsageError
from replicator.group.image import Images, best_base
from replicator.seams.clone import How, ThinClones, run_command

CATALOG = Catalog(
    "orders",
    bytes(16),
    History((Epoch(bytes(16), 1, 0, bytes(16), "a"),)),
    (VolumeEntry(1, "db", 4096), VolumeEntry(2, "wal", 4096)),
)


def note(name: str, restart: int, consistent_from: int) -> ImageNote:
    return ImageNote(
        name=name,
        group="orders",
        site="a",
        group_id="",
        taken_at_ns=0,
        how="copy",
        restart=Point(restart, bytes(16), 0, 0),
        consistent_from=consistent_from,
        volumes=(),
    )


class Lvm:
    """The LVM commands of a node, as far as clones use them."""

    def __init__(self, pool: str = "pool") -> None:
        self.pool = pool
        self.volumes = {"orders-db"}
        self.ran: list[str] = []

    def __call__(self, command: Sequence[str]) -> str:
        self.ran.append(" ".join(command))
        if command[0] == "lvs" and "pool_lv" in command:
            return f"  {self.pool}\n"
        if command[0] == "lvs":
            return "\n".join(f"  {name}" for name in sorted(self.volumes))
        if command[0] == "lvcreate":
            self.volumes.add(command[command.index("--name") + 1])
        if command[0] == "lvremove":
            self.volumes.remove(command[-1].split("/")[1])
        return ""


def test_thin_clone_is_an_active_snapshot_and_is_dropped() -> None:
    lvm = Lvm()
    clones = ThinClones(lvm)
    assert clones.clone("/dev/towline/orders-db", "/dev/towline/orders-db.monday") == "snapshot"
    assert lvm.ran[-1] == (
        "lvcreate --snapshot --name orders-db.monday --setactivationskip n towline/orders-db"
    )
    clones.drop("/dev/towline/orders-db.monday")
    clones.drop("/dev/towline/orders-db.monday")
    assert lvm.volumes == {"orders-db"}


def test_thin_clone_of_a_thick_volume_is_refused() -> None:
    lvm = Lvm(pool="")
    with pytest.raises(DeviceUnusable, match="no thin volume"):
        ThinClones(lvm).clone("/dev/towline/orders-db", "/dev/towline/orders-db.monday")
    assert lvm.volumes == {"orders-db"}


def test_run_command_that_fails_is_told_in_one_line() -> None:
    with pytest.raises(DeviceUnusable, match="false"):
        run_command(["false"])


class BrokenClones:
    """Clones the first volume and fails at the second."""

    def __init__(self) -> None:
        self.there: set[str] = set()

    def clone(self, source: str, target: str) -> How:
        if "wal" in source:
            raise DeviceUnusable(f"{target}: no room")
        self.there.add(target)
        return "copy"

    def drop(self, target: str) -> None:
        self.there.discard(target)


def images(tmp_path: object, clones: BrokenClones | None = None) -> Images:
    devices = Devices(kind="directory", path=str(tmp_path))
    return Images(Site(name="a", address="198.51.100.11", devices=devices), "orders", clones)


def test_image_that_cannot_be_kept_whole_is_not_kept(tmp_path: object) -> None:
    clones = BrokenClones()
    kept = images(tmp_path, clones)
    with pytest.raises(DeviceUnusable, match="no room"):
        kept.keep("monday", CATALOG, LOG_START, lambda: 0, 0)
    assert clones.there == set()
    assert kept.list() == []
    with pytest.raises(UsageError, match="no image is called"):
        kept.get("monday")
    with pytest.raises(UsageError, match="bad name"):
        kept.keep("../monday", CATALOG, LOG_START, lambda: 0, 0)


def test_image_note_is_read_as_it_was_written() -> None:
    made = note("monday", 4096, 8192)
    assert decode_note(encode_note(made)) == made


def test_best_base_needs_the_least_to_redo() -> None:
    bases = [note("old", 4096, 8192), note("new", 16384, 20480), note("newer", 65536, 65536)]
    assert best_base(bases, 32768, 0).name == "new"
    assert best_base(bases, 16384, 0).name == "old"


def test_best_base_says_why_none_fits() -> None:
    bases = [note("old", 4096, 8192), note("new", 16384, 20480)]
    with pytest.raises(Refused, match="image old: needs the log from 4096 on, the ring begins at"):
        best_base(bases, 12288, 8192)
    with pytest.raises(Refused, match="image new: may hold the log up to 20480 already"):
        best_base(bases, 12288, 8192)
    with pytest.raises(Refused, match="there is none"):
        best_base([], 12288, 8192)
