"""What a topology file asks of a live group's volumes: the difference to the group's catalog.

The catalog is what the group *has* (a fold over the log), the topology is what the operator wants.
A volume is known by its id; ids are never reused, names never change, sizes never shrink.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicator.codec.catalog_records import VolumeChange
from replicator.codec.history import Catalog, VolumeEntry
from replicator.codec.topology import Group
from replicator.units import format_size

Promise = tuple[str, int]
"""A volume's name and the size that a site is prepared for; size 0: its topology is without it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The changes that a topology asks for, and what it asks for that can never be."""

    changes: tuple[VolumeChange, ...] = ()
    violations: tuple[str, ...] = ()


def difference(catalog: Catalog, group: Group) -> Difference:
    """Return what leads from the group's volumes to those that the topology names."""
    has = {entry.id: entry for entry in catalog.volumes}
    ids = {entry.name: entry.id for entry in catalog.volumes}
    changes: list[VolumeChange] = []
    violations: list[str] = []
    for wanted in group.volumes:
        entry = has.pop(wanted.id, None)
        known_id = ids.get(wanted.name, wanted.id)
        if known_id != wanted.id:
            violations.append(
                f"volume {wanted.name} has id {known_id} in the group, {wanted.id} in the "
                f"topology; write {wanted.name}: {{id: {known_id}, size: ...}}"
            )
        elif entry is None and wanted.id in catalog.retired:
            violations.append(
                f"volume {wanted.name}: id {wanted.id} was a removed volume's and is never used "
                f"again; write {wanted.name}: {{id: {_free_id(catalog, group)}, size: ...}}"
            )
        elif entry is None:
            changes.append(VolumeChange("add", wanted.id, wanted.name, wanted.size_bytes))
        elif entry.name != wanted.name:
            violations.append(
                f"volume id {wanted.id} is {entry.name} in the group, {wanted.name} in the "
                f"topology: volumes are not renamed; give {wanted.name} an id of its own, such as "
                f"{_free_id(catalog, group)}"
            )
        elif wanted.size_bytes < entry.size_bytes:
            violations.append(
                f"volume {wanted.name} has {format_size(entry.size_bytes)} in the group, "
                f"{format_size(wanted.size_bytes)} in the topology: volumes are never shrunk"
            )
        elif wanted.size_bytes > entry.size_bytes:
            changes.append(VolumeChange("grow", wanted.id, wanted.name, wanted.size_bytes))
    misnamed = {wanted.name for wanted in group.volumes}
    changes += [
        VolumeChange("remove", entry.id, entry.name, entry.size_bytes)
        for entry in has.values()
        if entry.name not in misnamed
    ]
    return Difference(tuple(changes), tuple(violations))


def _free_id(catalog: Catalog, group: Group) -> int:
    """Return the lowest id above all that were ever used."""
    used = {*(entry.id for entry in catalog.volumes), *catalog.retired}
    return max(used | {volume.id for volume in group.volumes}, default=0) + 1


def promise_for(change: VolumeChange) -> Promise:
    """Return what a site that is ready for ``change`` publishes under the volume's id."""
    return change.name, 0 if change.action == "remove" else change.size_bytes


def covers(promise: Promise | None, change: VolumeChange) -> bool:
    """Whether a site that published ``promise`` is prepared for ``change``."""
    if promise is None or promise[0] != change.name:
        return False
    if change.action == "remove":
        return promise[1] == 0
    return promise[1] >= change.size_bytes


def describe_change(change: VolumeChange, entry: VolumeEntry | None = None) -> str:
    """Return a change for people, such as ``add logs (id 3, 1.0 GiB)``."""
    size = format_size(change.size_bytes)
    if change.action == "grow" and entry is not None:
        size = f"{format_size(entry.size_bytes)} to {size}"
    return f"{change.action} {change.name} (id {change.id}, {size})"
