"""A site's own data volumes while the group's catalog changes: devices that come, grow and go.

Shared by the movers of a site through ``by_id``. The journal calls ``prepare`` before it publishes
a new catalog and ``settle`` after: what comes or grows is there before a record can name it, what
goes is let go when no record can any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from replicator.codec.history import VolumeEntry
from replicator.errors import DeviceUnusable
from replicator.seams.blockdevice import VolumeDevice
from replicator.seams.volume import DataVolume

OpenVolume = Callable[[str], VolumeDevice]
"""Opens the device of a volume by the volume's name, exclusively."""


class VolumeSet:
    """The open data volumes, by id, as the catalog in force says."""

    def __init__(self, open_volume: OpenVolume, by_id: dict[int, DataVolume] | None = None) -> None:
        self._open_volume = open_volume
        self.by_id = {} if by_id is None else by_id

    def prepare(self, entries: Iterable[VolumeEntry]) -> None:
        """Open what is new and let volumes grow.

        Raises DeviceUnusable or DeviceBusy, with nothing changed but what was opened; calling it
        again goes on from there.
        """
        for entry in entries:
            volume = self.by_id.get(entry.id)
            if volume is None:
                self.by_id[entry.id] = self._opened(entry)
            elif entry.size_bytes > volume.size_bytes:
                _expect_size(volume.device, entry)
                volume.size_bytes = entry.size_bytes

    def settle(self, entries: Iterable[VolumeEntry]) -> None:
        """Let go of volumes that the group has no more; who still uses one gets DeviceFailed."""
        kept = {entry.id for entry in entries}
        for volume_id in [each for each in self.by_id if each not in kept]:
            self.by_id.pop(volume_id).device.retire()

    def close(self) -> None:
        """Close every device."""
        for volume in self.by_id.values():
            volume.device.close()

    def _opened(self, entry: VolumeEntry) -> DataVolume:
        device = self._open_volume(entry.name)
        try:
            _expect_size(device, entry)
        except DeviceUnusable:
            device.close()
            raise
        return DataVolume(entry.id, entry.name, entry.size_bytes, device)


def _expect_size(device: VolumeDevice, entry: VolumeEntry) -> None:
    size = device.measure()
    if size < entry.size_bytes:
        raise DeviceUnusable(
            f"{device.name}: is {size} bytes, volume {entry.name} needs {entry.size_bytes}; make "
            "the device larger"
        )
