"""Resync: send what inconsistent sites miss through the log, between a begin and an end.

Runs at the primary, whoever that is. It reads the maps that those sites publish in their own
journals. One resync at a time: it names every gap that is there when it begins, so one that
comes up meanwhile is served by the next. First it compares: holes of its volumes go out as zeros,
of everything else a digest, and a site strikes out of its map what agrees. Then it copies what the
maps still list. Both go at a bounded rate and stop while the ring is nearly full, so that a resync
cannot leave anybody behind. A restart begins anew, with maps that have shrunk.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from replicator.codec.dirty_map import Extents, size_of, union, unpack
from replicator.codec.page import OwnerBody
from replicator.codec.records import RecordKind
from replicator.codec.resync_events import ResyncBegin, ResyncEnd, encode_resync
from replicator.errors import DeviceFailed, PeerRefused
from replicator.journal.journal import Journal
from replicator.journal.peer import Peer
from replicator.model import BLOCK, ChunkRecord, ControlRecord, Pair
from replicator.movers.room import WARNING_FRACTION
from replicator.seams.volume import DataVolume

log = logging.getLogger(__name__)

_COPIES = (256 << 10, RecordKind.COPY)
_DIGESTS = (64 << 10, RecordKind.VERIFY)
"""Longest piece, bytes, and its kind."""
GROUP_BYTES = 1 << 20
"""Of chunks that are handed over at once, so that small ones share a batch."""
GROUP_CHUNKS = 256
MOST_UNDER_WAY_BYTES = 4 << 20
ANSWER_SECONDS = 60.0
"""How long sites may take to strike out what agrees; then everything they list is copied."""
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


Phase = Literal["beginning", "comparing", "waiting for maps", "copying", "ending"]


class Piece(NamedTuple):
    """A piece of a volume to be sent."""

    volume_id: int
    offset: int
    length: int
    kind: RecordKind

    @property
    def end(self) -> int:
        """First byte after it."""
        return self.offset + self.length


@dataclass(slots=True)
class Progress:
    """One resync. ``total_bytes`` and ``done_bytes`` are of volumes and count the phase that is
    under way; ``sent_bytes`` is the payload of all of it."""

    id: bytes
    gaps: tuple[tuple[str, bytes], ...]
    phase: Phase = "beginning"
    phase_since: float = 0.0
    total_bytes: int = 0
    done_bytes: int = 0
    sent_bytes: int = 0
    compared_to: int = 0
    """Position of the log up to which digests were sent."""
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
        self._pieces: Iterator[Piece] = iter(())
        self._next: Piece | None = None
        self._again: list[Piece] = []
        """Holes that were written into: to be sent as what they are now."""
        self._sent = self._sent_bytes = 0
        """Chunks handed over, and the bytes to be read for them: changed by this mover alone."""
        self._done = self._done_bytes = 0
        """The same of those that are durable or failed: changed by the commit thread alone."""
        self._allowed_at = float("-inf")
        self._begin_durable = False
        self._unread_since = float("inf")
        self.now: Progress | None = None
        """The resync that is under way."""
        self.last: Progress | None = None

    def step(self, now: float) -> float:
        """Do a little; return the seconds after which to come again."""
        progress = self.now
        if progress is None:
            self._begin(now)
            return IDLE_SECONDS if self.now is None else _BUSY_SECONDS
        if progress.failed:
            self._give_up()
            return IDLE_SECONDS
        if progress.phase in ("comparing", "copying"):
            return self._send(progress, now)
        if progress.phase == "beginning" and self._begin_durable:
            self._compare(progress, now)
        elif progress.phase == "waiting for maps" and self._answered(progress, now):
            self._copy(progress, now)
        elif progress.ended:
            log.info("resync ended sites=%s sent_bytes=%d", progress.sites, progress.sent_bytes)
            self.last, self.now = progress, None
            return 0.0
        return _BUSY_SECONDS

    @property
    def held(self) -> bool:
        """Whether copies wait because the ring is nearly full."""
        return self._journal.used_fraction >= WARNING_FRACTION

    # -- phases ------------------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        wanted = self._wanted()
        if not wanted:
            return
        progress = Progress(self._random_bytes(16), tuple(wanted), phase_since=now)
        self._begin_durable = False
        self._unread_since = float("inf")
        self.now = progress
        payload = encode_resync(ResyncBegin(progress.id, progress.gaps))
        log.info("resync begins sites=%s", progress.sites)

        def durable(_: Pair) -> None:
            self._begin_durable = True

        record = ControlRecord(RecordKind.RESYNC_BEGIN, payload, on_durable=durable)
        self._submitter.submit_control([record])

    def _compare(self, progress: Progress, now: float) -> None:
        listed = self._listed(progress, now)
        if listed is None:
            return
        self._enter(progress, "comparing", now, size_of(listed))
        self._pieces = self._cut(listed, *_DIGESTS)

    def _answered(self, progress: Progress, now: float) -> bool:
        """Whether every site has restored what was compared, or had its time."""
        if now - progress.phase_since >= ANSWER_SECONDS:
            return True
        return all(
            body.restored.position >= progress.compared_to
            for site, gap_id in progress.gaps
            if (body := self._gap_body(site, gap_id)) is not None
        )

    def _copy(self, progress: Progress, now: float) -> None:
        listed = self._listed(progress, now)
        if listed is None:
            return
        self._enter(progress, "copying", now, size_of(listed))
        self._pieces = self._cut(listed, *_COPIES)

    def _end(self, progress: Progress, now: float) -> None:
        self._enter(progress, "ending", now, 0)

        def durable(_: Pair) -> None:
            progress.ended = True

        payload = encode_resync(ResyncEnd(progress.id))
        record = ControlRecord(RecordKind.RESYNC_END, payload, on_durable=durable)
        self._submitter.submit_control([record])

    def _give_up(self) -> None:
        """End without an end record: nobody clears a mark; the next look begins anew."""
        assert self.now is not None
        if self._sent == self._done:
            log.error("resync given up reason=%r", self.now.failed)
            self._pieces, self._next, self._again = iter(()), None, []
            self.last, self.now = self.now, None

    def _enter(self, progress: Progress, phase: Phase, now: float, total: int) -> None:
        progress.phase, progress.phase_since = phase, now
        progress.total_bytes, progress.done_bytes = total, 0
        self._allowed_at = now

    # -- what is missing -----------------------------------------------------------------------

    def _gap_body(self, site: str, gap_id: bytes) -> OwnerBody | None:
        """Return what the site durably states, None if it has not this gap (any more)."""
        statement = self._peers[site].statement
        if statement is None or statement.older.body.gap is None:
            return None
        body = statement.older.body
        return body if statement.older.body.gap.id == gap_id else None

    def _wanted(self) -> list[tuple[str, bytes]]:
        """Return the gaps that no resync has covered yet and whose map can be read."""
        covered = set(self.last.gaps) if self.last is not None and not self.last.failed else set()
        wanted: list[tuple[str, bytes]] = []
        for site, peer in self._peers.items():
            if peer.statement is None:
                continue
            gap = peer.statement.older.body.gap
            if gap is None or (site, gap.id) in covered:
                continue
            try:
                peer.maps()
            except (PeerRefused, DeviceFailed) as error:
                log.info("map not read yet site=%s reason=%r", site, str(error))
                continue
            wanted.append((site, gap.id))
        return wanted

    def _listed(self, progress: Progress, now: float) -> Extents | None:
        """Return all that the maps of the gaps list now; a map only shrinks while its gap lasts.

        None if one cannot be read: its owner may be writing the next version over it, so it is
        tried again. If that goes on for too long the resync fails.
        """
        listed: list[Extents] = []
        for site, gap_id in progress.gaps:
            if self._gap_body(site, gap_id) is None:
                continue
            try:
                listed.append(unpack(self._peers[site].maps().missing or {}))
            except (PeerRefused, DeviceFailed) as error:
                self._unread_since = min(self._unread_since, now)
                if now - self._unread_since >= ANSWER_SECONDS:
                    progress.failed = str(error)
                return None
        self._unread_since = float("inf")
        return union(*listed)

    def _cut(self, extents: Extents, longest: int, kind: RecordKind) -> Iterator[Piece]:
        """Yield pieces of ``kind`` in the volumes' order; holes, found as it goes, as zeros."""
        for volume_id, ranges in extents.items():
            for start, end in ranges:
                yield from self._cut_range(volume_id, start * BLOCK, end * BLOCK, longest, kind)

    def _cut_range(
        self, volume_id: int, at: int, end: int, longest: int, kind: RecordKind
    ) -> Iterator[Piece]:
        longest = min(longest, self._submitter.longest_chunk) // BLOCK * BLOCK
        while (volume := self._volumes.get(volume_id)) is not None:
            end = min(end, volume.size_bytes)
            if at >= end:
                return
            content = min(end, self._next_content(volume, at) // BLOCK * BLOCK)
            if content > at:
                yield Piece(volume_id, at, content - at, RecordKind.ZERO)
                at = content
                continue
            stop = min(end, (at // longest + 1) * longest)
            yield Piece(volume_id, at, stop - at, kind)
            at = stop

    def _next_content(self, volume: DataVolume, offset: int) -> int:
        try:
            return volume.device.next_content(offset)
        except DeviceFailed:
            return offset  # the commit loop meets it too and calls on_failed

    # -- sending -----------------------------------------------------------------------------

    def _send(self, progress: Progress, now: float) -> float:
        if self.held or self._sent_bytes - self._done_bytes >= MOST_UNDER_WAY_BYTES:
            return _BUSY_SECONDS
        if now < self._allowed_at:
            return min(_BUSY_SECONDS, self._allowed_at - now)
        group = self._take_group()
        if group:
            read = sum(piece.length for piece in group if piece.kind != RecordKind.ZERO)
            self._allowed_at = max(self._allowed_at, now - 1.0) + read / self._rate
            self._submitter.submit_chunks([self._chunk(piece, progress) for piece in group])
            return 0.0
        if self._sent != self._done or self._again:
            return _BUSY_SECONDS
        if progress.phase == "comparing":
            total = progress.total_bytes
            self._enter(progress, "waiting for maps", now, total)
            progress.done_bytes = total
        else:
            self._end(progress, now)
        return 0.0

    def _take_group(self) -> list[Piece]:
        group: list[Piece] = []
        read = 0
        while len(group) < GROUP_CHUNKS:
            piece = self._peek()
            if piece is None:
                break
            more = 0 if piece.kind == RecordKind.ZERO else piece.length
            if group and read + more > GROUP_BYTES:
                break
            self._next = None
            group.append(piece)
            read += more
            if more:
                self._warm(piece)
        return group

    def _peek(self) -> Piece | None:
        if self._again:
            hole = self._again.pop()
            self._pieces = itertools.chain(self._recut(hole), self._pieces)
        if self._next is None:
            self._next = next(self._pieces, None)
        return self._next

    def _recut(self, hole: Piece) -> Iterator[Piece]:
        """Cut what was a hole anew: the host has written some of it since."""
        assert self.now is not None
        longest, kind = _COPIES if self.now.phase == "copying" else _DIGESTS
        return self._cut_range(hole.volume_id, hole.offset, hole.end, longest, kind)

    def _warm(self, piece: Piece) -> None:
        """Bring a piece into the page cache, where the commit loop reads it again."""
        volume = self._volumes.get(piece.volume_id)
        try:
            if volume is not None:
                volume.read_into(piece.offset, [memoryview(bytearray(piece.length))])
        except DeviceFailed:
            return  # the commit loop meets it too and calls on_failed

    def _chunk(self, piece: Piece, progress: Progress) -> ChunkRecord:
        """Return the record of a piece; it counts itself when it is durable."""
        chunk = ChunkRecord(piece.kind, piece.volume_id, piece.offset, piece.length)
        weight = 0 if piece.kind == RecordKind.ZERO else piece.length
        self._sent += 1
        self._sent_bytes += weight

        def settled() -> None:
            self._done_bytes += weight
            self._done += 1

        def durable(end: Pair) -> None:
            progress.done_bytes += piece.length
            progress.sent_bytes += chunk.sent_bytes
            progress.compared_to = end.position
            settled()

        def failed() -> None:
            if piece.kind == RecordKind.ZERO:
                self._again.append(piece)
            elif piece.volume_id in self._volumes:
                progress.failed = f"volume {piece.volume_id} cannot be read at {piece.offset}"
            settled()

        chunk.on_durable, chunk.on_failed = durable, failed
        return chunk
