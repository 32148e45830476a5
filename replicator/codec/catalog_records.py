"""Events that change the catalog, and their one effect: a pure fold over the log.

A site's catalog in force is the fold over the events up to its head, or further where it adopted
its source's catalog (``Catalog.as_of``; events below that are passed over). At the primary
an event takes effect when its batch is durable in the own ring; at a secondary with the
page that publishes the new head; recovery folds what it finds above the page's head. All three
call ``catalog_after`` (docs/formats/journal.md, section "Catalog").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from replicator.codec.batch import Batch
from replicator.codec.history import Catalog, VolumeEntry, decode_epoch
from replicator.codec.records import CATALOG_KINDS, CONTROL_KINDS, RecordKind


class BadEvent(ValueError):
    """An event that cannot be: the message names it; only a faulty writer makes one."""


class VolumeChange(msgspec.Struct, frozen=True):
    """Payload of a ``volume`` event; ``size_bytes`` is the new size (the old one for remove)."""

    action: Literal["add", "remove", "grow"]
    id: int
    name: str
    size_bytes: int


_VOLUME_CHANGE = msgspec.msgpack.Decoder(VolumeChange)  # built now: see codec/__init__.py


def encode_event(event: VolumeChange) -> bytes:
    """Return the payload of an event."""
    return msgspec.msgpack.encode(event)


def catalog_after(catalog: Catalog, batches: Iterable[Batch]) -> Catalog:
    """Return the catalog after ``batches``; the same object if nothing in them changes it.

    Raises BadEvent for an event that does not fit the catalog that it meets. An ``epoch`` event
    changes nothing: its batch is valid only where the history has the epoch already (rule V7).
    """
    for batch in batches:
        if batch.first_kind in CONTROL_KINDS:
            _check_epochs(catalog, batch)
            events = ((each.kind, batch.payload_of(each)) for each in batch.records())
            catalog = fold_events(catalog, events, batch.end.position)
    return catalog


def _check_epochs(catalog: Catalog, batch: Batch) -> None:
    """Refuse an ``epoch`` event that differs from the history's entry for its own batch."""
    for record in batch.records():
        if record.kind != RecordKind.EPOCH:
            continue
        try:
            epoch = decode_epoch(batch.payload_of(record))
        except msgspec.MsgspecError as error:
            raise BadEvent(f"epoch event: {error}") from error
        entry = catalog.history.epoch_at(batch.header.position)
        if epoch != entry:
            raise BadEvent(
                f"epoch event of epoch {epoch.number} by {epoch.site}, the history has "
                f"{entry.number} by {entry.site} there"
            )


def fold_events(
    catalog: Catalog, events: Iterable[tuple[int, bytes | memoryview]], end: int
) -> Catalog:
    """Return the catalog after a batch of (kind, payload) that ends at ``end``, or BadEvent."""
    if end <= catalog.as_of:
        return catalog
    changed = catalog
    for kind, payload in events:
        if kind in CATALOG_KINDS:
            changed = _fold(changed, kind, bytes(payload))
    return catalog if changed is catalog else msgspec.structs.replace(changed, as_of=end)


def _fold(catalog: Catalog, kind: int, payload: bytes) -> Catalog:
    assert kind == RecordKind.VOLUME
    try:
        change = _VOLUME_CHANGE.decode(payload)
    except msgspec.MsgspecError as error:
        raise BadEvent(f"volume event: {error}") from error
    retired = (change.id,) if change.action == "remove" else ()
    return msgspec.structs.replace(
        catalog,
        volumes=changed_volumes(catalog, change),
        retired=catalog.retired + retired,
    )


def changed_volumes(catalog: Catalog, change: VolumeChange) -> tuple[VolumeEntry, ...]:
    """Return the group's volumes after ``change``; BadEvent if it does not fit them."""
    volumes = {entry.id: entry for entry in catalog.volumes}
    entry = volumes.get(change.id)
    what = f"volume event {change.action} of {change.id}:{change.name}"
    if change.action == "add":
        if change.id in catalog.retired or entry is not None:
            raise BadEvent(f"{what}: the id was used before")
        if any(each.name == change.name for each in volumes.values()):
            raise BadEvent(f"{what}: the name is in use")
    elif entry is None or entry.name != change.name:
        raise BadEvent(f"{what}: there is no such volume")
    elif change.action == "grow" and change.size_bytes <= entry.size_bytes:
        raise BadEvent(f"{what}: {change.size_bytes} bytes is no growth of {entry.size_bytes}")
    if change.action == "remove":
        del volumes[change.id]
    else:
        volumes[change.id] = VolumeEntry(change.id, change.name, change.size_bytes)
    return tuple(volumes.values())
