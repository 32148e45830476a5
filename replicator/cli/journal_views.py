"""Journal pages and batches as flat values for printing."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from replicator.codec.batch import Batch, Point, parse_header
from replicator.codec.records import CONTROL_KINDS, RecordKind
from replicator.journal.survey import Survey
from replicator.model import BLOCK

_LONGEST_EVENT = 200


def describe(survey: Survey) -> dict[str, object]:
    """Return what the newest page and the catalog state, one value a name."""
    statement = survey.statement
    page, body = statement.newer, survey.body
    facts: dict[str, object] = {
        "device": survey.device.name,
        "group": body.group,
        "site": body.site,
        "role": body.role,
        "upstream": body.upstream or "none",
        "journal_id": page.journal_id.hex(),
        "group_id": page.group_id.hex(),
        "boot_id": page.boot_id.hex(),
        "generation": page.generation,
        "other_copy": statement.damaged or f"valid, generation {statement.older.generation}",
        "ring_offset": body.ring_offset,
        "ring_size": body.ring_size,
        "batch_bound": body.batch_bound,
        "head": _point(body.head),
        "restored": _point(body.restored),
        "reclaim": body.reclaim,
        "oldest": _oldest(survey),
    }
    for mark, reason in sorted(body.marks.items()):
        facts[f"mark_{mark}"] = reason
    for site, note in sorted(body.peers.items()):
        facts[f"peer_{site}"] = (
            f"received {note.received[0]}, restored {note.restored[0]}, "
            f"page generation {note.generation}"
        )
    catalog = survey.catalog
    if catalog is None:
        facts["catalog"] = "none yet: the journal has not met its source"
        return facts
    for volume in catalog.volumes:
        facts[f"volume_{volume.name}"] = f"id {volume.id}, {volume.size_bytes} bytes"
    for epoch in catalog.history.epochs:
        facts[f"epoch_{epoch.number}"] = (
            f"id {epoch.id.hex()}, primary {epoch.site}, from position {epoch.fork_position}"
        )
    return facts


def dump_row(batch: Batch) -> dict[str, object]:
    """Return one batch as the dump lists it."""
    header = batch.header
    return {
        "position": header.position,
        "length": header.length,
        "first_sequence": header.first_sequence,
        "record_count": header.record_count,
        "time": _time(header.time_ns),
        "committed": header.committed,
        "digest": header.header_digest.hex(),
    }


def record_rows(batch: Batch) -> list[dict[str, object]]:
    """Return the records of a batch in sequence order; offsets and lengths in bytes."""
    rows = []
    for sequence, record in enumerate(batch.records(), start=batch.header.first_sequence):
        row: dict[str, object] = {
            "sequence": sequence,
            "kind": RecordKind(record.kind).name.lower().replace("_", "-"),
            "volume_id": record.volume_id,
            "offset": record.offset,
            "length": record.length,
        }
        if record.kind in CONTROL_KINDS:
            row["says"] = _event_text(batch.payload_of(record))
        rows.append(row)
    return rows


def _event_text(payload: memoryview) -> str:
    """Return an event's payload as JSON, shortened; ``malformed`` if it is no MessagePack."""
    try:
        text = msgspec.json.encode(msgspec.msgpack.decode(payload)).decode()
    except (msgspec.MsgspecError, TypeError, UnicodeDecodeError):
        return "malformed"
    return text if len(text) <= _LONGEST_EVENT else text[:_LONGEST_EVENT] + "..."


def _point(point: Point) -> str:
    if not point.position:
        return "0, nothing yet"
    return (
        f"{point.position}:{point.digest.hex()}, {point.sequence} records, {_time(point.time_ns)}"
    )


def _oldest(survey: Survey) -> str:
    """Say from where on the ring holds the log: what ``restore to`` can be asked for."""
    first = survey.first()
    if first is None:
        return "nothing is held"
    header = parse_header(survey.ring.read(first.position, BLOCK))
    since = _time(header.time_ns) if header is not None else "unknown"
    return f"the log is held from position {first.position} on, {since}"


def _time(at_ns: int) -> str:
    whole = datetime.fromtimestamp(at_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{at_ns % 10**9 // 1000:06d}Z"
