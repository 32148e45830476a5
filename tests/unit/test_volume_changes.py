"""What a topology asks of a live group, who is ready for it, and what can never be."""

from __future__ import annotations

import random

import pytest

from replicator.codec.catalog_records import VolumeChange
from replicator.codec.history import Catalog, Epoch, History, VolumeEntry
from replicator.codec.topology import Group, GroupSite, JournalPolicy, Volume
from replicator.codec.volume_changes import covers, difference, promise_for
from replicator.errors import DeviceFailed, DeviceUnusable
from replicator.group.volume_set import VolumeSet
from replicator.group.volume_watch import MOST_PROMISES, VolumeWatch
from replicator.journal.pages import read_statement
from replicator.seams.blockdevice import VolumeDevice
from tests.fakes.group_on_sim import VOLUMES, Primary
from tests.sim.devices import SimVolumeDevice

MIB = 1 << 20
CATALOG = Catalog(
    "orders",
    bytes(16),
    History((Epoch(bytes(16), 1, 0, bytes(16), "a"),)),
    (VolumeEntry(1, "db", 4 * MIB), VolumeEntry(2, "wal", MIB)),
    retired=(3,),
)


def group(*volumes: tuple[int, str, int]) -> Group:
    return Group(
        name="orders",
        volumes=tuple(Volume(id=i, name=n, size_bytes=s) for i, n, s in volumes),
        journal=JournalPolicy(size_bytes=16 * MIB),
        sites=(GroupSite(name="a", primary=True),),
    )


def test_difference_of_the_same_volumes_is_nothing() -> None:
    found = difference(CATALOG, group((2, "wal", MIB), (1, "db", 4 * MIB)))
    assert (found.changes, found.violations) == ((), ())


def test_difference_names_what_is_added_grown_and_removed() -> None:
    found = difference(CATALOG, group((1, "db", 8 * MIB), (7, "logs", MIB)))
    assert found.violations == ()
    assert set(found.changes) == {
        VolumeChange("grow", 1, "db", 8 * MIB),
        VolumeChange("add", 7, "logs", MIB),
        VolumeChange("remove", 2, "wal", MIB),
    }


@pytest.mark.parametrize(
    ("volumes", "words"),
    [
        ([(1, "db", MIB), (2, "wal", MIB)], "never shrunk"),
        ([(1, "data", 4 * MIB), (2, "wal", MIB)], "not renamed; give data an id of its own"),
        ([(1, "wal", MIB)], "write wal: {id: 2, size: ...}"),
        ([(1, "db", 4 * MIB), (2, "wal", MIB), (3, "logs", MIB)], "write logs: {id: 4, size: ...}"),
    ],
)
def test_difference_refuses_what_can_never_be(
    volumes: list[tuple[int, str, int]], words: str
) -> None:
    found = difference(CATALOG, group(*volumes))
    assert len(found.violations) == 1
    assert words in found.violations[0]
    assert not any(change.action in ("add", "grow") for change in found.changes)


def test_covers_asks_for_the_name_and_at_least_the_size() -> None:
    grow = VolumeChange("grow", 1, "db", 8 * MIB)
    remove = VolumeChange("remove", 2, "wal", MIB)
    assert covers(promise_for(grow), grow)
    assert covers(("db", 9 * MIB), grow)
    assert not covers(("db", 7 * MIB), grow)
    assert not covers(("other", 8 * MIB), grow)
    assert not covers(None, grow)
    assert covers(promise_for(remove), remove)
    assert not covers(("wal", MIB), remove)


class Watched:
    """A site with a journal, its volumes and a topology that a test changes."""

    def __init__(self) -> None:
        self.primary = Primary()
        self.devices = {
            name: SimVolumeDevice(self.primary.machine, name, 2 * MIB) for name in ("logs", "more")
        }
        self.group = group(*((v.id, v.name, v.size_bytes) for v in VOLUMES))
        self.set = VolumeSet(self.open_volume, self.primary.volumes)
        self.watch = VolumeWatch(
            self.primary.journal, self.set, self.open_volume, self.group, lambda: self.group
        )

    def open_volume(self, name: str) -> VolumeDevice:
        if name not in self.devices:
            raise DeviceUnusable(f"{name}: there is no such device")
        self.devices[name].closed = False
        return self.devices[name]

    def want(self, *more: tuple[int, str, int]) -> None:
        self.group = group(*((v.id, v.name, v.size_bytes) for v in VOLUMES), *more)
        self.watch.step()

    @property
    def promises(self) -> dict[int, tuple[str, int]]:
        return self.primary.journal.body.prepared


def test_watch_promises_what_it_made_ready_in_both_page_copies() -> None:
    site = Watched()
    site.devices["logs"] = logs = SimVolumeDevice(site.primary.machine, "big", 4 * MIB)
    logs.content[2 * MIB : 2 * MIB + 4096] = b"x" * 4096  # between the edges: old garbage
    site.want((9, "logs", 4 * MIB))
    assert site.watch.obstacles == {}
    assert site.promises == {9: ("logs", 4 * MIB)}
    assert read_statement(site.primary.device).older.body.prepared == site.promises
    assert logs.surviving(random.Random(1), "none") == bytes(4 * MIB), "zeros, durably"


def test_watch_says_why_a_site_is_not_ready_and_promises_nothing() -> None:
    site = Watched()
    site.want((9, "absent", MIB), (10, "logs", 4 * MIB))
    assert site.promises == {}
    assert "no such device" in site.watch.obstacles[9]
    assert "make the device larger" in site.watch.obstacles[10]


def test_watch_refuses_a_device_that_is_not_blank_at_its_edges() -> None:
    site = Watched()
    site.devices["logs"].content[0] = 1
    site.want((9, "logs", 2 * MIB))
    assert "not blank" in site.watch.obstacles[9]
    assert site.promises == {}
    assert site.devices["logs"].content[0] == 1, "nothing was erased"


def test_watch_keeps_a_promise_to_add_although_the_topology_changed_its_mind() -> None:
    site = Watched()
    site.want((9, "logs", 2 * MIB))
    site.want()
    assert site.promises == {9: ("logs", 2 * MIB)}


def test_watch_withdraws_a_promise_to_remove() -> None:
    site = Watched()
    site.group = group((VOLUMES[0].id, VOLUMES[0].name, VOLUMES[0].size_bytes))
    site.watch.step()
    assert site.promises == {VOLUMES[1].id: (VOLUMES[1].name, 0)}
    site.want()
    assert site.promises == {}


def test_watch_never_promises_more_than_a_page_holds() -> None:
    site = Watched()
    names = [f"n{number}" for number in range(MOST_PROMISES + 2)]
    for name in names:
        site.devices[name] = SimVolumeDevice(site.primary.machine, name, 4096)
    site.want(*((20 + at, name, 4096) for at, name in enumerate(names)))
    assert len(site.promises) == MOST_PROMISES
    assert len(site.watch.obstacles) == 2


def test_watch_zeroes_only_what_becomes_visible_when_a_volume_grows() -> None:
    site = Watched()
    first = VOLUMES[0]
    device = SimVolumeDevice(site.primary.machine, "big", 2 * first.size_bytes)
    device.content[:] = b"o" * len(device.content)
    site.primary.volumes[first.id].device = device
    site.group = group(
        (first.id, first.name, 2 * first.size_bytes),
        *((v.id, v.name, v.size_bytes) for v in VOLUMES[1:]),
    )
    site.watch.step()
    assert site.promises == {first.id: (first.name, 2 * first.size_bytes)}
    assert device.content[: first.size_bytes] == b"o" * first.size_bytes
    assert device.content[first.size_bytes :] == bytes(first.size_bytes)


def test_volume_set_retires_a_removed_volume_for_those_who_still_use_it() -> None:
    site = Watched()
    volume = site.primary.volumes[VOLUMES[1].id]
    site.set.settle(VOLUMES[:1])
    assert list(site.primary.volumes) == [VOLUMES[0].id]
    with pytest.raises(DeviceFailed):
        volume.read_into(0, [memoryview(bytearray(512))])
