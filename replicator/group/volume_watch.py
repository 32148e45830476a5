"""What a site does when its topology file asks for other volumes: get ready, and say so.

Each site gets ready on its own: the device is there, large enough, and the part that will become
visible reads as zeros. Only then its page promises so, durably, and a promise to add or to grow is
kept until the change is in this site's catalog. The primary appends the change (``volume add``,
``grow``, ``remove``) when every attached site has promised.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from replicator.codec.catalog_records import VolumeChange
from replicator.codec.history import Catalog
from replicator.codec.topology import Group
from replicator.codec.volume_changes import Difference, Promise, covers, difference, promise_for
from replicator.errors import ConfigError, DeviceUnusable, NotBlank, Refused, TowlineError
from replicator.group.volume_set import OpenVolume, VolumeSet
from replicator.journal.journal import Journal
from replicator.seams.blockdevice import VolumeDevice

log = logging.getLogger(__name__)

MOST_PROMISES = 5
"""A page is one block: more changes than these wait for their turn."""
_EDGE = 1 << 20
_CHUNK = 64 << 20


class VolumeWatch:
    """Compares topology and catalog; ``step`` is called about once a second, at every site."""

    def __init__(
        self,
        journal: Journal,
        volumes: VolumeSet,
        open_volume: OpenVolume,
        group: Group,
        read_group: Callable[[], Group | None] = lambda: None,
        *,
        has_data: bool = True,
    ) -> None:
        """``read_group`` returns the group anew if the topology file changed, else None.

        ``has_data`` False is for a site that keeps a journal only: it is always prepared.
        """
        self._journal = journal
        self._volumes = volumes
        self._open_volume = open_volume
        self._read_group = read_group
        self._has_data = has_data
        self._lock = threading.Lock()
        self.group = group
        self.difference = Difference()
        self.obstacles: dict[int, str] = {}
        """Why this site is not prepared for a change, by volume id."""
        self.unreadable = ""
        """Why the topology file cannot be read any more; the last good one is in force."""

    def step(self) -> None:
        """Look at the topology, get ready for what it asks, and publish what is new.

        What cannot be done yet is in ``obstacles`` and tried again; raises only JournalFailed.
        """
        with self._lock:  # the thread's turn, or a command's
            self._step()

    def _step(self) -> None:
        self._look_at_topology()
        if not self._journal.attached:
            return
        catalog = self._journal.catalog
        self.difference = difference(catalog, self.group)
        promises = _kept(self._journal.body.prepared, catalog)
        self.obstacles = {}
        for change in self.difference.changes:
            if covers(promises.get(change.id), change):
                continue
            if len(promises) >= MOST_PROMISES:
                self.obstacles[change.id] = f"{MOST_PROMISES} other changes are promised first"
                continue
            try:
                self._get_ready(change, promises.get(change.id))
            except TowlineError as error:
                self.obstacles[change.id] = str(error)
                continue
            promises[change.id] = promise_for(change)
        for volume_id in self._withdrawn(promises):
            del promises[volume_id]
        if promises != self._journal.body.prepared:
            self._journal.publish(prepared=promises)
            self._journal.publish()  # durable in both copies: the primary acts on the older one
            log.info("prepared for changes of volumes promises=%r", promises)

    def _look_at_topology(self) -> None:
        try:
            group = self._read_group()
        except ConfigError as error:
            self.unreadable = str(error)
            return
        if group is not None:
            self.group, self.unreadable = group, ""

    def _withdrawn(self, promises: Mapping[int, Promise]) -> list[int]:
        """Return promises of a removal that the topology no longer asks for."""
        asked = {each.id for each in self.difference.changes if each.action == "remove"}
        return [each for each, (_, size) in promises.items() if size == 0 and each not in asked]

    def _get_ready(self, change: VolumeChange, promise: Promise | None) -> None:
        """Check the device and make what will become visible read as zeros, durably."""
        if change.action == "remove" or not self._has_data:
            return
        if change.action == "grow":
            volume = self._volumes.by_id.get(change.id)
            if volume is None:
                raise Refused(f"volume {change.name} is not open here")
            _expect_size(volume.device, change)
            start = max(volume.size_bytes, promise[1] if promise else 0)
            _blank(volume.device, start, change.size_bytes)
            return
        device = self._open_volume(change.name)
        try:
            _expect_size(device, change)
            _expect_blank(device, change)
            _blank(device, promise[1] if promise else 0, change.size_bytes)
        finally:
            device.close()


def _kept(promises: Mapping[int, Promise], catalog: Catalog) -> dict[int, Promise]:
    """Return the promises that the catalog has not caught up with."""
    sizes = {entry.id: entry.size_bytes for entry in catalog.volumes}
    kept = {}
    for volume_id, (name, size) in promises.items():
        done = volume_id in catalog.retired or (0 < size <= sizes.get(volume_id, 0))
        if not done:
            kept[volume_id] = (name, size)
    return kept


def _expect_size(device: VolumeDevice, change: VolumeChange) -> None:
    size = device.measure()
    if size < change.size_bytes:
        raise DeviceUnusable(
            f"{device.name}: is {size} bytes, the topology says {change.size_bytes}; make the "
            "device larger"
        )


def _expect_blank(device: VolumeDevice, change: VolumeChange) -> None:
    """Refuse a device that holds something at its edges, where file systems and labels are."""
    size = device.measure()
    for start in {0, max(0, size - _EDGE)}:
        content = memoryview(bytearray(min(_EDGE, size - start)))
        device.read_into(start, [content])
        if bytes(content).count(0) != len(content):
            raise NotBlank(
                f"{device.name}: not blank, so it may hold somebody's data; if it is the right "
                f"device for the new volume {change.name}: replicatorctl volume blank "
                f"{change.name} --overwrite {device.name}"
            )


def _blank(device: VolumeDevice, start: int, end: int) -> None:
    for at in range(start, end, _CHUNK):
        device.zero(at, min(_CHUNK, end - at))
    device.flush()
