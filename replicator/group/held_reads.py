"""Reads wait while a sync-or-stop link is lost: what they would see may be another site's past."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from replicator.errors import DeviceFailed
from replicator.model import HostVolume

_LOOK_SECONDS = 0.05


class HeldVolume:
    """A data volume whose reads wait (model.HostVolume)."""

    def __init__(
        self, volume: HostVolume, held: Callable[[], bool], ended: threading.Event
    ) -> None:
        self._volume = volume
        self._held = held
        self._ended = ended

    @property
    def name(self) -> str:
        """The volume's name."""
        return self._volume.name

    @property
    def volume_id(self) -> int:
        """What the journal calls it."""
        return self._volume.volume_id

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return self._volume.size_bytes

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Read as the volume does, once hosts are not held; DeviceFailed when the site ends."""
        while self._held():
            if self._ended.wait(_LOOK_SECONDS):
                raise DeviceFailed(f"volume {self.name}: the site ended while hosts were held")
        self._volume.read_into(offset, buffers)
