"""A data volume of a group: its identity and the device that holds it."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.seams.blockdevice import VolumeDevice


class DataVolume:
    """A data volume as front ends (model.HostVolume) and movers see it."""

    def __init__(self, volume_id: int, name: str, size_bytes: int, device: VolumeDevice) -> None:
        self.volume_id = volume_id
        self.name = name
        self.size_bytes = size_bytes
        self.device = device

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Fill ``buffers`` from the page cache or the disk; waits behind no flush."""
        self.device.read_into(offset, buffers)
