"""Resync: send what inconsistent sites miss, as copies in the log, between a begin and an end.

Runs at the primary, whoever that is. It reads the maps that those sites publish in their own
journals. One resync at a time: it names every gap that is there when it begins, so one that
comes up meanwhile is served by the next. Copies go out at a bounded rate and stop while the ring is
nearly full, so that a resync cannot leave anybody behind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from replicator.codec.dirty_map import Extents, size_of, union, unpack
from replicator.codec.records import RecordKind
from replicator.codec.resync_events import ResyncBegin, ResyncEnd, encode_resync
from replicator.errors import DeviceFailed, PeerRefused
from replicator.journal.journal import Journal
from replicator.journal.peer import Peer
from replicator.model import BLOCK, ChunkRecord, ControlRecord, Pair
from replicator.movers.room import WARNING_FRACTION
from replicator.seams.volume import DataVolume

log = logging.getLogger(__name__)

CHUNK_BYTES = 256 << 10
GROUP_BYTES = 8 << 20
"""What is handed to the commit loop at once: holes of a volume cost a header a group."""
MOST_UNDER_WAY_BYTES = 2 * GROUP_BYTES
DEFAULT_RATE = 64 << 20
"""Bytes of volumes that are read and sent in a second."""
IDLE_SECONDS = 1.0
_BUSY_SECONDS = 0.02


class Submitter(Protocol):
    """Where a group's own records go: CommitRunner, or Commit in a simulation."""

    @property
    def longest_chunk(self) -> int: ...
    def submit_control(self, records: Sequence[ControlRecord]) -> None: ...
    def submit_chunks(self, records: Sequence[ChunkRecord]) -> None: ...


@dataclass(slots=True)
class Progress:
    """One resync: bytes of volumes to look at, looked at, and sent as payload."""

    id: bytes
    gaps: tuple[tuple[str, bytes], ...]
    total_bytes: int
    begun_at: float
    done_bytes: int = 0
    sent_bytes: int = 0
    ended: bool = False
    failed: str = ""

    @property
    def sites(self) -> list[str]:
        """The sites that it is for."""
        return [site for site, _ in self.gaps]


class Resync:
    """The resync mover of one group at its primary."""

    def __init__(
        self,
        journal: Journal,
        peers: Mapping[str, Peer],
        volumes: Mapping[int, DataVolume],
        submitter: Submitter,
        random_bytes: Callable[[int], bytes],
        rate: float = DEFAULT_RATE,
    ) -> None:
        self._journal = journal
        self._peers = peers
        self._volumes = volumes
        self._submitter = submitter
        self._random_bytes = random_bytes
        self._rate = rate
        self._chunks: list[tuple[int, int, int]] = []
        self._under_way = 0
        self._allowed_at = float("-inf")
        self._begin_durable = False
        self._end_asked = False
        self.now: Progress | None = None
        """The resync that is under way."""
        self.last: Progress | None = None

    def step(self, now: float) -> float:
        """Do a little; return the seconds after which to come again."""
        if self.now is None:
            self._begin(now)
            return IDLE_SECONDS if self.now is None else _BUSY_SECONDS
        if self.now.failed:
            self._give_up()
            return IDLE_SECONDS
        if not self._begin_durable:
            return _BUSY_SECONDS
        if self._chunks:
            return self._send(now)
        if self._under_way == 0 and not self._end_asked:
            self._ask_end()
        if self.now.ended:
            log.info("resync ended sites=%s sent_bytes=%d", self.now.sites, self.now.sent_bytes)
            self.last, self.now = self.now, None
            return 0.0
        return _BUSY_SECONDS

    @property
    def held(self) -> bool:
        """Whether copies wait because the ring is nearly full."""
        return self._journal.used_fraction >= WARNING_FRACTION

    # -- beginning ---------------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        wanted = self._wanted()
        if not wanted:
            return
        extents = union(*wanted.values())
        progress = Progress(self._random_bytes(16), tuple(wanted), size_of(extents), now)
        self._chunks = self._cut(extents)
        self._begin_durable = self._end_asked = False
        self._allowed_at = now
        self.now = progress
        payload = encode_resync(ResyncBegin(progress.id, progress.gaps))
        log.info("resync begins sites=%s bytes=%d", progress.sites, progress.total_bytes)

        def durable(_: Pair) -> None:
            self._begin_durable = True

        record = ControlRecord(RecordKind.RESYNC_BEGIN, payload, on_durable=durable)
        self._submitter.submit_control([record])

    def _wanted(self) -> dict[tuple[str, bytes], Extents]:
        """Return what each gap misses that no resync has covered yet."""
        covered = set(self.last.gaps) if self.last is not None and not self.last.failed else set()
        wanted: dict[tuple[str, bytes], Extents] = {}
        for site, peer in self._peers.items():
            if peer.statement is None:
                continue
            gap = peer.statement.older.body.gap
            if gap is None or (site, gap.id) in covered:
                continue
            try:
                wanted[site, gap.id] = unpack(peer.maps().missing or {})
            except (PeerRefused, DeviceFailed) as error:
                log.info("map not read yet site=%s reason=%r", site, str(error))
        return wanted

    def _cut(self, extents: Extents) -> list[tuple[int, int, int]]:
        """Return (volume, offset, length) of chunks, last first: they are taken from the end."""
        longest = min(CHUNK_BYTES, self._submitter.longest_chunk) // BLOCK * BLOCK
        chunks = []
        for volume_id, ranges in extents.items():
            volume = self._volumes.get(volume_id)
            if volume is None:
                continue
            for start, end in ranges:
                stop = min(end * BLOCK, volume.size_bytes)
                for offset in range(start * BLOCK, stop, longest):
                    chunks.append((volume_id, offset, min(longest, stop - offset)))
        chunks.reverse()
        return chunks

    # -- copying -----------------------------------------------------------------------------

    def _send(self, now: float) -> float:
        if self.held or self._under_way >= MOST_UNDER_WAY_BYTES:
            return _BUSY_SECONDS
        if now < self._allowed_at:
            return min(_BUSY_SECONDS, self._allowed_at - now)
        records: list[ChunkRecord] = []
        taken = 0
        while self._chunks and taken < GROUP_BYTES:
            volume_id, offset, length = self._chunks.pop()
            self._warm(volume_id, offset, length)
            records.append(self._chunk(volume_id, offset, length))
            taken += length
        self._under_way += taken
        self._allowed_at = max(self._allowed_at, now - 1.0) + taken / self._rate
        self._submitter.submit_chunks(records)
        return 0.0

    def _chunk(self, volume_id: int, offset: int, length: int) -> ChunkRecord:
        progress = self.now
        assert progress is not None
        chunk = ChunkRecord(RecordKind.COPY, volume_id, offset, length)

        def durable(_: Pair) -> None:
            self._under_way -= length
            progress.done_bytes += length
            progress.sent_bytes += chunk.sent_bytes

        def failed() -> None:
            self._under_way -= length
            progress.failed = f"volume {volume_id} cannot be read at {offset}"

        chunk.on_durable, chunk.on_failed = durable, failed
        return chunk

    def _warm(self, volume_id: int, offset: int, length: int) -> None:
        """Bring a chunk into the page cache, where the commit loop reads it again."""
        try:
            self._volumes[volume_id].read_into(offset, [memoryview(bytearray(length))])
        except DeviceFailed:
            return  # the commit loop meets it too and calls on_failed

    # -- ending ------------------------------------------------------------------------------

    def _ask_end(self) -> None:
        progress = self.now
        assert progress is not None
        self._end_asked = True

        def durable(_: Pair) -> None:
            progress.ended = True

        payload = encode_resync(ResyncEnd(progress.id))
        record = ControlRecord(RecordKind.RESYNC_END, payload, on_durable=durable)
        self._submitter.submit_control([record])

    def _give_up(self) -> None:
        """End without an end record: nobody clears a mark; the next look begins anew."""
        assert self.now is not None
        log.error("resync given up reason=%r", self.now.failed)
        if self._under_way == 0:
            self._chunks = []
            self.last, self.now = self.now, None
