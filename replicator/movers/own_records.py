"""Records that a group writes itself, waiting for the commit loop: events and chunks of volumes.

Both come in batches of their own. Events may use the space that is kept back from hosts. A chunk's
content is the volume after all lower records (design, model m5): it is read here, in the loop,
after every lower data write has returned, as COMPARE AND WRITE is. Whoever submits a chunk reads
it once before, so that this read finds it in the page cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from replicator.codec.batch import MAX_RECORDS, Content, batch_length
from replicator.codec.chunks import chunk_digest, encode_verify
from replicator.codec.records import RecordKind
from replicator.errors import DeviceFailed
from replicator.journal.journal import Journal
from replicator.model import BLOCK, ChunkRecord, ControlRecord
from replicator.seams.volume import DataVolume

LONGEST_CHUNK = 1 << 20
"""Bytes: what a chunk may have, and what one batch of chunks reads while hosts wait for it."""


class OwnBatch(NamedTuple):
    """Contents of one batch and the records that they came from, in the same order."""

    contents: list[Content]
    records: list[ControlRecord | ChunkRecord]


class OwnRecords:
    """The queue of a group's own records."""

    def __init__(
        self, journal: Journal, volumes: Mapping[int, DataVolume], batch_bound: int
    ) -> None:
        self._journal = journal
        self._volumes = volumes
        self._bound = batch_bound
        self._events: deque[ControlRecord] = deque()
        self._chunks: deque[ChunkRecord] = deque()

    @property
    def longest_chunk(self) -> int:
        """The most bytes of a volume that one chunk may cover, whole 4 KiB blocks."""
        return min(LONGEST_CHUNK, self._bound - BLOCK)

    @property
    def waiting(self) -> int:
        """Records that no batch has taken."""
        return len(self._events) + len(self._chunks)

    @property
    def next_reads(self) -> bool:
        """Whether the next batch of these reads volumes."""
        return bool(self._chunks) and not self._events

    def submit_events(self, records: Iterable[ControlRecord]) -> None:
        """Queue events, in order."""
        self._events.extend(records)

    def submit_chunks(self, records: Iterable[ChunkRecord]) -> None:
        """Queue chunks, in order; each at most ``longest_chunk`` bytes."""
        self._chunks.extend(records)

    def take(self) -> OwnBatch | None:
        """Return what the next batch is made of; None if nothing waits or the ring has no room."""
        if self._events:
            return self._take_events()
        if self._chunks:
            return self._take_chunks()
        return None

    def _take_events(self) -> OwnBatch | None:
        batch = OwnBatch([], [])
        payload = 0
        for record in self._events:
            length = batch_length(len(batch.records) + 1, payload + len(record.payload))
            if batch.records and (length > self._bound or len(batch.records) == MAX_RECORDS):
                break
            batch.contents.append(_event_content(record))
            batch.records.append(record)
            payload += len(record.payload)
        if batch_length(len(batch.records), payload) > self._journal.free_bytes:
            return None
        for _ in batch.records:
            self._events.popleft()
        return batch

    def _take_chunks(self) -> OwnBatch | None:
        room = self._journal.free_bytes - self._journal.kept_back_bytes
        batch = OwnBatch([], [])
        covered = payload = 0
        while self._chunks and len(batch.records) < MAX_RECORDS:
            chunk = self._chunks[0]
            hole = chunk.kind == RecordKind.ZERO
            most = 0 if hole else chunk.length
            length = batch_length(len(batch.records) + 1, payload + most)
            if length > min(room, self._bound):
                break
            if batch.records and covered + most > LONGEST_CHUNK:
                break
            self._chunks.popleft()
            content = self._chunk_content(chunk)
            if content is None:
                chunk.on_failed()
                continue
            batch.contents.append(content)
            batch.records.append(chunk)
            covered += most
            payload += sum(len(buffer) for buffer in content[4])
        return batch if batch.records else None

    def _chunk_content(self, chunk: ChunkRecord) -> Content | None:
        """Read a chunk and return its record; None if the volume cannot be read or is gone."""
        volume = self._volumes.get(chunk.volume_id)
        if volume is None or chunk.offset + chunk.length > volume.size_bytes:
            return None
        try:
            if chunk.kind == RecordKind.ZERO:
                return _hole_content(chunk, volume)
            found = bytearray(chunk.length)
            volume.read_into(chunk.offset, [memoryview(found)])
        except DeviceFailed:
            return None
        kind, content = RecordKind(chunk.kind), bytes(found)
        if kind == RecordKind.VERIFY:
            payload = encode_verify(chunk.length, chunk_digest(content))
            chunk.sent_bytes = len(payload)
            return (kind, chunk.volume_id, chunk.offset, len(payload), [payload])
        if content == bytes(chunk.length):
            chunk.sent_bytes = 0
            return (RecordKind.ZERO, chunk.volume_id, chunk.offset, chunk.length, [])
        chunk.sent_bytes = chunk.length
        return (kind, chunk.volume_id, chunk.offset, chunk.length, [content])


def _hole_content(chunk: ChunkRecord, volume: DataVolume) -> Content | None:
    """Return the record of a hole, None if something was written into it meanwhile."""
    if volume.device.next_content(chunk.offset) < chunk.offset + chunk.length:
        return None
    return (RecordKind.ZERO, chunk.volume_id, chunk.offset, chunk.length, [])


def _event_content(record: ControlRecord) -> Content:
    payload = [record.payload]
    kind = RecordKind(record.kind)
    return (kind, record.volume_id, record.offset, len(record.payload), payload)
