"""Events of the group in the simulation, and what each site's catalog must be at its head."""

from __future__ import annotations

import random
from collections import Counter

from replicator.codec.bookmarks import encode_bookmark
from replicator.codec.catalog_records import VolumeChange, encode_event
from replicator.codec.history import VolumeEntry
from replicator.codec.records import RecordKind
from replicator.journal.journal import Journal
from replicator.model import ControlRecord
from replicator.movers.commit import Prepared
from tests.sim.oracle import BrokenPromise
from tests.sim.plans import Shape

_MOST_WAITING = 6
Volumes = tuple[VolumeEntry, ...]


class Events:
    """Asks for events, and knows the group's volumes after each batch that changed them."""

    def __init__(self, shape: Shape, rng: random.Random, counts: Counter[str]) -> None:
        self._counts = counts
        self._rng = rng
        self._largest = {entry.id: entry for entry in shape.later}
        self._next_id = 199
        self._asked: dict[bytes, VolumeChange] = {}
        """Changes on their way: one that depends on another is asked for when that is journaled."""
        self._volumes_at: dict[int, Volumes] = {0: shape.volumes}
        self._retired_at: dict[int, tuple[int, ...]] = {0: ()}

    def ask(self, waiting: int) -> list[ControlRecord]:
        """Return a few events: bookmarks, and volumes that come, grow and go."""
        if waiting >= _MOST_WAITING:
            return []
        records = []
        for _ in range(self._rng.choice((1, 1, 2, 3))):
            draw = self._rng.random()
            if not self._largest and draw >= 0.6:
                change: VolumeChange | None = self._unused()
            else:
                change = self._next_change() if self._largest and draw < 0.8 else None
            if change is None:
                records.append(ControlRecord(RecordKind.BOOKMARK, encode_bookmark("here")))
                continue
            payload = encode_event(change)
            records.append(ControlRecord(RecordKind.VOLUME, payload))
            self._asked[payload] = change
        return records

    def _unused(self) -> VolumeChange:
        """Return the coming of a volume that no host uses: for plans without volumes to come."""
        self._next_id += 1
        return VolumeChange("add", self._next_id, f"v{self._next_id}", 1 << 20)

    def _next_change(self) -> VolumeChange | None:
        """Choose a change that fits the end of the log; None while one is on its way."""
        if self._asked:
            return None
        volumes = {entry.id: entry for entry in self._volumes_at[max(self._volumes_at)]}
        retired = self._retired_at[max(self._retired_at)]
        choices = []
        for largest in self._largest.values():
            entry = volumes.get(largest.id)
            if entry is None and largest.id not in retired:
                size = self._rng.choice((largest.size_bytes // 2, largest.size_bytes))
                choices.append(VolumeChange("add", largest.id, largest.name, size))
            elif entry is not None and entry.size_bytes < largest.size_bytes:
                choices.append(VolumeChange("grow", entry.id, entry.name, largest.size_bytes))
            elif entry is not None:
                choices.append(VolumeChange("remove", entry.id, entry.name, entry.size_bytes))
        return self._rng.choice(choices) if choices else None

    def journaled(self, prepared: Prepared) -> None:
        """Note the events of a batch, in log order, before the batch is written."""
        for record in prepared.own:
            if not isinstance(record, ControlRecord):
                continue
            change = self._asked.pop(bytes(record.payload), None)
            if change is not None:
                self._note(change, prepared.end.position)

    def _note(self, change: VolumeChange, end: int) -> None:
        self._counts[f"volume {change.action}"] += 1
        volumes = {entry.id: entry for entry in self._volumes_at[max(self._volumes_at)]}
        retired = self._retired_at[max(self._retired_at)]
        if change.action == "remove":
            del volumes[change.id]
            retired = (*retired, change.id)
        else:
            volumes[change.id] = VolumeEntry(change.id, change.name, change.size_bytes)
        self._volumes_at[end] = tuple(volumes.values())
        self._retired_at[end] = retired

    def truncate(self, position: int) -> None:
        """Forget events above the head of a recovered primary, and what was asked of it."""
        self._asked.clear()
        for known in (self._volumes_at, self._retired_at):
            for end in [each for each in known if each > position]:
                del known[end]

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
