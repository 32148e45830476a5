"""Events of the group in the simulation, and what each site's catalog must be at its head."""

from __future__ import annotations

import random

from replicator.codec.bookmarks import encode_bookmark
from replicator.codec.catalog_records import VolumeChange, encode_event
from replicator.codec.history import VolumeEntry
from replicator.codec.records import RecordKind
from replicator.journal.journal import Journal
from replicator.model import ControlRecord
from replicator.movers.commit import Prepared
from tests.sim.oracle import BrokenPromise

_MOST_WAITING = 6
_FIRST_ID = 100
"""Ids of volumes that come by events; no host writes to them and no site needs a device."""


class Events:
    """Asks for events, and knows the group's volumes after each batch that changed them."""

    def __init__(self, volumes: tuple[VolumeEntry, ...], rng: random.Random) -> None:
        self._rng = rng
        self._next_id = _FIRST_ID
        self._asked: dict[bytes, VolumeChange] = {}
        self._volumes_at: dict[int, tuple[VolumeEntry, ...]] = {0: volumes}

    def ask(self, waiting: int) -> list[ControlRecord]:
        """Return a few events: bookmarks and added volumes."""
        if waiting >= _MOST_WAITING:
            return []
        records = []
        for _ in range(self._rng.choice((1, 1, 2, 3))):
            if self._rng.random() < 0.6:
                records.append(ControlRecord(RecordKind.BOOKMARK, encode_bookmark("here")))
                continue
            change = VolumeChange("add", self._next_id, f"v{self._next_id}", 1 << 20)
            self._next_id += 1
            payload = encode_event(change)
            records.append(ControlRecord(RecordKind.VOLUME, payload))
            self._asked[payload] = change
        return records

    def journaled(self, prepared: Prepared) -> None:
        """Note the events of a batch, in log order, before the batch is written."""
        volumes = self.volumes_at(prepared.end.position)
        for record in prepared.own:
            if not isinstance(record, ControlRecord):
                continue
            change = self._asked.get(bytes(record.payload))
            if change is not None:
                entry = VolumeEntry(change.id, change.name, change.size_bytes)
                volumes = (*volumes, entry)
        if prepared.own:
            self._volumes_at[prepared.end.position] = volumes

    def truncate(self, position: int) -> None:
        """Forget events above the head of a recovered primary."""
        self._volumes_at = {
            end: volumes for end, volumes in self._volumes_at.items() if end <= position
        }

    def volumes_at(self, position: int) -> tuple[VolumeEntry, ...]:
        """Return the group's volumes after the events up to ``position``."""
        return self._volumes_at[max(end for end in self._volumes_at if end <= position)]

    def judge(self, name: str, journal: Journal) -> None:
        """A site's catalog is the fold over the events up to its head, or a source's later one."""
        expected = self.volumes_at(max(journal.head.position, journal.catalog.as_of))
        if journal.catalog.volumes != expected:
            raise BrokenPromise(
                f"{name}: catalog {journal.catalog.volumes} at head {journal.head.position}, "
                f"expected {expected}"
            )
