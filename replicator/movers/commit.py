"""Commit: one batch, one vectored journal write, one flush, then the data volumes, then answers.

Everything that waits becomes one batch; while it is flushed the next collects (group commit), so
Python's cost is per batch. One batch is in flight. A write is answered when it is durable in the
journal and readable from its data volume (claims 1, 7, 9, 10, 15).

``step`` does the whole of it for one batch. A runner with threads calls the same parts, so that
the data volume writes of a batch overlap the flush of the next one; answers stay in record order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from replicator.clock import Clock
from replicator.codec.batch import (
    MAX_RECORDS,
    Content,
    Context,
    Point,
    batch_length,
    build_batch,
    header_length,
)
from replicator.codec.catalog_records import fold_events
from replicator.codec.history import Catalog
from replicator.codec.records import ROW, RecordKind
from replicator.errors import DeviceFailed
from replicator.journal.journal import Journal
from replicator.model import BLOCK, ChunkRecord, ControlRecord, HostFailure, HostWrite, WriteKind
from replicator.movers.log_clock import LogClock
from replicator.movers.own_records import OwnRecords
from replicator.seams.volume import DataVolume


@dataclass(slots=True)
class Prepared:
    """A batch on its way: built in ``content``, to be answered to ``requests``."""

    requests: list[HostWrite]
    contents: list[Content]
    content: memoryview
    end: Point
    own: Sequence[ControlRecord | ChunkRecord] = ()
    """The group's own records that the batch is made of; it has either these or requests."""


@dataclass(slots=True)
class CommitTotals:
    """What was committed since the start."""

    batches: int = 0
    records: int = 0
    bytes: int = 0


class Mirror(Protocol):
    """A second ring that has to have each batch before it is answered (movers/sync_link.py)."""

    def begin(self, content: memoryview, end: Point) -> None:
        """Start to write the batch there; returns at once."""

    def finish(self, content: memoryview, end: Point) -> bool:
        """Say whether the batch may be answered; False: call again later, hosts are held."""

    @property
    def held(self) -> bool:
        """Whether hosts wait for the second ring."""


class Commit:
    """The commit loop of one group at its primary, without threads."""

    def __init__(
        self,
        journal: Journal,
        volumes: Mapping[int, DataVolume],
        clock: Clock,
        buffers: Callable[[int], memoryview],
        link: Mirror | None = None,
    ) -> None:
        """``buffers`` makes memory that the journal device writes without a copy; ``link`` has
        each batch durable at the near site of a sync link, too.

        The journal is recovered and redone: its head is applied to ``volumes``.
        """
        self._journal = journal
        self._volumes = volumes
        self._log_clock = LogClock(clock, journal.head.time_ns)
        self._link = link
        self.ahead: Prepared | None = None
        """A batch that is in the own ring and held by the sync link: to be appended again."""
        self._queue: deque[HostWrite] = deque()
        self._own_turn = False
        self._bound = journal.body.batch_bound
        self._own = OwnRecords(journal, volumes, self._bound)
        self._free = deque(buffers(self._bound) for _ in range(3))
        self.applied = journal.head
        """Every data volume write of records below has returned."""
        self._removed: frozenset[int] = frozenset()
        """Ids of volumes that were removed since the start: front ends may still have asked."""
        self.failed_volumes: dict[int, str] = {}
        self.held_by_space = False
        """The batch that comes next does not fit into the ring's free space (``hold``)."""
        self.totals = CommitTotals()

    @property
    def link_holds(self) -> bool:
        """Whether hosts wait because the near site's ring cannot be written."""
        return self._link is not None and self._link.held

    def submit(self, requests: Iterable[HostWrite]) -> None:
        """Queue requests, in order; nothing is done with them yet."""
        self._queue.extend(requests)

    def submit_control(self, records: Iterable[ControlRecord]) -> None:
        """Queue events of the group, in order; they come in batches of their own."""
        self._own.submit_events(records)

    def submit_chunks(self, records: Iterable[ChunkRecord]) -> None:
        """Queue chunks of volumes, in order; they come in batches of their own."""
        self._own.submit_chunks(records)

    @property
    def longest_chunk(self) -> int:
        """The most bytes that one chunk may cover."""
        return self._own.longest_chunk

    @property
    def waiting(self) -> int:
        """Requests and own records that no batch has taken."""
        return len(self._queue) + self._own.waiting

    @property
    def waiting_own(self) -> int:
        """Events and chunks that no batch has taken."""
        return self._own.waiting

    @property
    def waits_for_a_link(self) -> bool:
        """Whether a batch may be held by a sync link, for as long as that is away."""
        return self._link is not None

    @property
    def next_reads(self) -> bool:
        """Whether the next batch reads volumes: COMPARE AND WRITE, or chunks.

        Such a batch is prepared only after all lower data writes have returned (m12, m5).
        """
        if self._own_next:
            return self._own.next_reads or self._compares_next
        return self._compares_next

    @property
    def _compares_next(self) -> bool:
        return bool(self._queue) and self._queue[0].kind is WriteKind.COMPARE_AND_WRITE

    @property
    def _own_next(self) -> bool:
        """Own batches and host batches take turns while both wait."""
        return bool(self._own.waiting) and (self._own_turn or not self._queue)

    def step(self, now: float) -> bool:
        """Commit, apply and answer one batch; False if nothing waits or the ring is full."""
        del now
        prepared = self.ahead or self.prepare()
        if prepared is None or not self.append(prepared):
            return False
        self.apply(prepared)
        self.answer(prepared)
        return True

    def prepare(self) -> Prepared | None:
        """Build the next batch from what waits; None if nothing waits or there is no room.

        Requests that a comparison refused are in the batch's requests with their failure set;
        if nothing is left to be written ``end`` is the head as it is.
        """
        if not self._free:
            return None
        if self._own_next:
            self._own_turn = False
            own = self._own.take()
            if own is not None:
                buffer = self._free.popleft()
                end = self._build(own.contents, buffer)
                return Prepared([], own.contents, buffer, end, own.records)
        queue = self._queue
        if not queue:
            return None
        self._own_turn = True
        length = self._fitting()
        self.held_by_space = length > self._journal.free_bytes - self._journal.kept_back_bytes
        if self.held_by_space:
            return None
        requests = [queue.popleft() for _ in range(self._count)]
        first = requests[0]
        if self._removed:
            self._refuse_removed(requests)
        if not first.failure and first.kind is WriteKind.COMPARE_AND_WRITE:
            self._compare(first)
        contents: list[Content] = [_content(request) for request in requests if not request.failure]
        head = self._journal.head
        buffer = self._free.popleft()
        if not contents:
            return Prepared(requests, contents, buffer, head)
        return Prepared(requests, contents, buffer, self._build(contents, buffer))

    def _build(self, contents: list[Content], buffer: memoryview) -> Point:
        head = self._journal.head
        catalog = self._journal.catalog
        context = Context(
            catalog.group_id,
            catalog.history.last.id,
            head,
            max(head.time_ns, self._log_clock.now_ns()),
            head.position,
        )
        return build_batch(context, contents, buffer)

    def _fitting(self) -> int:
        """Count the requests that go into one batch; return the batch's length in bytes.

        COMPARE AND WRITE is only ever the first of a batch, so there is at most one.
        """
        payload = 0
        count = 0
        room = self._bound - batch_length(0, 0) - BLOCK  # rounding of table and payload
        for request in self._queue:
            kind = request.kind
            if count and kind is WriteKind.COMPARE_AND_WRITE:
                break
            more = payload if kind is WriteKind.ZERO else payload + request.length
            if (count and more + count * ROW.size > room) or count == MAX_RECORDS:
                break
            payload = more
            count += 1
        self._count = count
        length = batch_length(count, payload)
        assert length <= self._bound, f"a request of {payload} bytes fits into no batch"
        return length

    def _refuse_removed(self, requests: Iterable[HostWrite]) -> None:
        for request in requests:
            if request.volume_id in self._removed:
                request.failure = HostFailure.NO_VOLUME

    def _compare(self, request: HostWrite) -> None:
        """Compare the volume with what the host expects (SBC-4 5.3); sets the failure."""
        found = memoryview(bytearray(request.length))
        try:
            self._volumes[request.volume_id].read_into(request.offset, [found])
        except DeviceFailed:
            request.failure = HostFailure.MEDIUM_ERROR
            return
        if found != request.expected:
            differing = (at for at, byte in enumerate(found) if byte != request.expected[at])
            request.failure = HostFailure.MISCOMPARE
            request.failure_offset = next(differing)

    def append(self, prepared: Prepared) -> bool:
        """Write the batch to the journal and flush: durable on return in every ring that must
        have it. False: it is held by the sync link, call again with the same batch.

        Events take effect on the catalog here, and their ``on_durable`` is called. On DeviceFailed
        nothing of it may be answered or applied, and the site halts: whether the batch is in the
        journal is for the next recovery to find. ShutOut likewise: somebody may have gone on.
        """
        journal = self._journal
        length = prepared.end.position - journal.head.position
        if not length:
            return True
        if not self._append_in_all(prepared, prepared.content[:length]):
            return False
        journal.advance(prepared.end, self._changed_catalog(prepared))
        for record in prepared.own:
            record.on_durable(prepared.end.pair)
        return True

    def _append_in_all(self, prepared: Prepared, content: memoryview) -> bool:
        """Write the batch to the own and the near ring at the same time; False: held."""
        link = self._link
        if link is None:
            self._journal.write_ahead([content], prepared.end)
            return True
        if self.ahead is not prepared:
            link.begin(content, prepared.end)
            self._journal.write_ahead([content], prepared.end)
            self.ahead = prepared
        if not link.finish(content, prepared.end):
            return False
        self.ahead = None
        return True

    def _changed_catalog(self, prepared: Prepared) -> Catalog | None:
        """Return the catalog after the batch's events, None if it stays as it is."""
        events = [
            (each.kind, each.payload) for each in prepared.own if isinstance(each, ControlRecord)
        ]
        if not events:
            return None
        catalog = self._journal.catalog
        changed = fold_events(catalog, events, prepared.end.position)
        if changed is catalog:
            return None
        self._removed |= frozenset(changed.retired) - frozenset(catalog.retired)
        return changed

    def apply(self, prepared: Prepared) -> None:
        """Write the batch's records to the data volumes, in record order, through the page cache.

        A volume that fails is failed from then on, reads too; the answers stand, because the
        journal has the records (F11).
        """
        writes = () if prepared.own else _device_writes(prepared)
        for volume_id, offset, payload, zeros in writes:
            volume = self._volumes.get(volume_id)
            if volume is None or volume_id in self.failed_volumes:
                continue  # removed from the group, or failed
            device = volume.device
            try:
                if zeros:
                    device.zero(offset, zeros)
                else:
                    device.write_from(offset, [payload])
            except DeviceFailed as error:
                if volume_id in self._volumes:
                    self.failed_volumes[volume_id] = str(error)
        self.applied = prepared.end
        self.totals.batches += bool(prepared.contents)
        self.totals.records += len(prepared.contents)
        self.totals.bytes += sum(content[3] for content in prepared.contents)

    def answer(self, prepared: Prepared) -> None:
        """Answer every request of the batch, one call for each origin; the batch is done."""
        by_origin: dict[int, list[HostWrite]] = {}
        for request in prepared.requests:
            by_origin.setdefault(id(request.origin), []).append(request)
        for requests in by_origin.values():
            requests[0].origin.answer(requests)
        self._free.append(prepared.content)


def _content(request: HostWrite) -> Content:
    if request.kind is WriteKind.ZERO:
        return (RecordKind.ZERO, request.volume_id, request.offset, request.length, ())
    return (RecordKind.WRITE, request.volume_id, request.offset, request.length, request.buffers)


def _device_writes(prepared: Prepared) -> Iterable[tuple[int, int, memoryview, int]]:
    """Yield (volume id, offset, bytes, zero length); records that continue each other join.

    The bytes are those of the batch, not the host's: a host that changes its buffer in flight
    must not make the volume differ from the journal.
    """
    at = header_length(len(prepared.contents))
    volume = start = end = begin = 0
    for kind, volume_id, offset, length, _ in prepared.contents:
        joins = kind != RecordKind.ZERO and volume_id == volume and offset == end
        if begin and not joins:
            yield volume, start, prepared.content[begin:at], 0
            begin = 0
        if kind == RecordKind.ZERO:
            yield volume_id, offset, prepared.content[:0], length
            continue
        if not begin:
            volume, start, begin = volume_id, offset, at
        end = offset + length
        at += length
    if begin:
        yield volume, start, prepared.content[begin:at], 0
