"""Deliberately broken variants: each breaks one rule of the design, and each must be caught.

The models m1, m2, m10 and m12 are searches that broke an earlier text of the design; every one of
them became a rule, and the variant here is the code without that rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

from msgspec.structs import replace

from replicator.codec import batch as batch_codec
from replicator.codec.batch import Batch, Invalid, Point, header_digest_holds, parse_header
from replicator.codec.history import History
from replicator.codec.page import Page, PeerNote, RestoreStop
from replicator.codec.records import RecordKind
from replicator.codec.resync_events import decode_begin
from replicator.errors import DeviceFailed, JournalRotten, Refused
from replicator.journal.gap_progress import GapProgress
from replicator.journal.journal import FENCED, Journal, Owner
from replicator.journal.left_behind import changed_between
from replicator.journal.leg import WINDOW, Leg
from replicator.journal.limits import Limit
from replicator.journal.pages import Statement
from replicator.journal.peer import Peer
from replicator.journal.reader import Run, read_batches
from replicator.journal.recovery import Recovered, find_later_batch, recover
from replicator.model import BLOCK, WriteKind
from replicator.movers import room
from replicator.movers.checkpoint import Checkpoint
from replicator.movers.commit import Commit, Prepared
from replicator.movers.near import Near
from replicator.movers.restore import Restore
from replicator.movers.restore_pace import RestorePace
from replicator.movers.room import Room
from replicator.movers.sync_link import SyncLink
from replicator.seams.blockdevice import Buffer, JournalDevice
from replicator.seams.volume import DataVolume
from tests.sim import holds
from tests.sim.site import REAL, Parts


@dataclass(frozen=True)
class Variant:
    """A broken stack, the kind of run that must catch it, and within how many seeds."""

    name: str
    rule: str
    parts: Parts = REAL
    patch: Callable[[], AbstractContextManager[object]] = nullcontext
    run: str = "world"
    seeds: int = 200


def recover_by_later_batches_everywhere(journal: Journal) -> Recovered:
    """m1: take a valid later batch for proof of rot in a secondary's ring, too."""
    recovered = recover(journal)
    if journal.attached and journal.body.role == "secondary":
        later = find_later_batch(journal, journal.head.position)
        if later is not None:
            raise JournalRotten(f"{journal.device.name}: a later batch stands at {later}")
    return recovered


class PeerByAnyHeader(Peer):
    """m2: believe ``committed`` in the headers of a ring that the primary does not write."""

    @property
    def limit(self) -> Limit:
        return Limit(super().limit.stated, 0)


class JournalWithoutFlush(Journal):
    """Call a batch durable when it is written: the answer comes before the flush."""

    def write_ahead(self, parts: Sequence[Buffer], end: Point) -> None:
        at = self.head.position
        for part in parts:
            self.ring.write(at, part)
            at += len(part)


class JournalPublishingFirst(Journal):
    """State a head in the page before the ring was flushed; the page's flush does for both."""

    def write_ahead(self, parts: Sequence[Buffer], end: Point) -> None:
        at = self.head.position
        for part in parts:
            self.ring.write(at, part)
            at += len(part)
        self.head = end
        if self._lock.locked():  # the checkpoint is publishing
            self.device.flush()
            return
        self.publish()


class JournalByTheStalePage(Journal):
    """Open by the older copy of the page."""

    @classmethod
    def open(cls, device: JournalDevice, owner: Owner) -> Journal:
        journal = super().open(device, owner)
        older = journal._older
        return cls(device, owner, Statement(older, older), journal._catalog)


class JournalWithoutFullCheck(Journal):
    """Append whether there is room or not."""

    @property
    def free_bytes(self) -> int:
        return 1 << 40


class JournalReclaimingEarly(Journal):
    """m10, at home: overwrite what a page reclaims that is not durable yet."""

    @property
    def reclaim(self) -> int:
        return max(super().reclaim, self._planned())

    def _planned(self) -> int:
        body = self.body
        return min([body.head.position, *(note.received[0] for note in self.peers.values())])


class PeerByTheNewerCopy(Peer):
    """m10: count what a peer's newer, perhaps not durable page copy says it has received."""

    def look(self) -> Statement:
        statement = super().look()
        newer = statement.newer
        self._own.peers[self.site] = PeerNote(
            newer.journal_id, 0, tuple(newer.received), tuple(newer.restored)
        )
        return statement


class JournalRestorableToTheHead(Journal):
    """Restore above the limit: up to the head in memory instead of the durable statement."""

    @property
    def restorable(self) -> int:
        return self.head.position


class JournalTrustingAVisiblePage(Journal):
    """Start on a page that can be read, durable or not."""

    def settle(self) -> None:
        """Write nothing."""


class JournalHoldingInMemory(Journal):
    """Hold restore without writing that down."""

    def set_restore_stop(self, stop: RestoreStop | None) -> None:
        body = replace(self._newer.body, restore_stop=stop)
        self._newer = dataclasses.replace(self._newer, body=body)


class RestorePaceAsRead(RestorePace):
    """Apply a whole window of which a part lies beyond an operator's stop."""

    def _before_the_stop(self, batches: Sequence[Batch]) -> int:
        return len(batches) if super()._before_the_stop(batches) else 0


@contextmanager
def stops_by_the_window() -> Iterator[None]:
    """Ask where to stop only before each window."""
    with mock.patch.object(holds, "RestorePace", RestorePaceAsRead):
        yield


class RestoreOfRemovedVolumes(Restore):
    """Knows nothing of volumes that were removed further up the log."""

    def _volume(self, volume_id: int, offset: int) -> DataVolume | None:
        volume = self._volumes.get(volume_id)
        if volume is None:
            raise Refused(f"a record names volume {volume_id}")
        return volume


class CheckpointBeforeFlush(Checkpoint):
    """State a checkpoint, then flush the data volumes."""

    def run(self, now: float) -> None:
        self._journal.publish(restored=self._applied())
        for volume in self._volumes.values():
            volume.device.flush()
        self._checkpointed_at = self._published_at = now


class CheckpointOfTheHead(Checkpoint):
    """State as restored what is journaled, applied or not."""

    def run(self, now: float) -> None:
        for volume in self._volumes.values():
            volume.device.flush()
        self._journal.publish(restored=self._journal.head)
        self._checkpointed_at = self._published_at = now


class CommitComparingEarly(Commit):
    """m12: compare while lower writes are not on the volume yet."""

    @property
    def next_reads(self) -> bool:
        return self._own_next and self._own.next_reads


class CommitCopyingEarly(Commit):
    """m5: read a chunk while a lower write is not on the volume yet."""

    @property
    def next_reads(self) -> bool:
        return self._compares_next


class RestoreJudgingEverything(Restore):
    """m6: judge verify records below the head that the ring had at the start."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.judge.judges_from = 0


class CommitAnsweringFailures(Commit):
    """Answer although the journal's write or flush failed."""

    def append(self, prepared: Prepared) -> bool:
        try:
            return super().append(prepared)
        except DeviceFailed:
            self._journal.head = prepared.end
            return True


class CommitAnsweringBeforeTheVolume(Commit):
    """Forget the order of overlapping writes: apply a batch's records backwards."""

    def apply(self, prepared: Prepared) -> None:
        for request in reversed(prepared.requests):
            if request.failure is None:
                device = self._volumes[request.volume_id].device
                if request.kind is WriteKind.ZERO:
                    device.zero(request.offset, request.length)
                else:
                    device.write_from(request.offset, request.buffers)
        self.applied = prepared.end


@contextmanager
def no_payload_digest() -> Iterator[None]:
    """Let every payload digest be zeros, when built and when checked."""
    with mock.patch.object(batch_codec, "digest", lambda content: bytes(16)):
        yield


@contextmanager
def any_position() -> Iterator[None]:
    """Accept a batch by its digests alone: no position, chain, epoch or sequence."""

    def check(content: memoryview, at: Point, group_id: bytes, history: History) -> Batch | Invalid:
        header = parse_header(content) if len(content) >= 4096 else None
        if header is None:
            needs = 4096 if len(content) < 4096 else 0
            return Invalid(at.position, "V1", "no header", needs)
        if len(content) < header.length:
            return Invalid(at.position, "V2", "more", header.length)
        if not header_digest_holds(content, header):
            return Invalid(at.position, "V3", "digest")
        here = header._replace(position=at.position, first_sequence=at.sequence)
        return Batch(here, content[: header.length])

    with mock.patch.object(batch_codec, "check_batch", check):
        yield


class NearByItsOwnHead(Near):
    """m3: the near owner publishes what its ring validly holds, as a site that pulls would."""

    def _believed(self, at: Point) -> Run:
        journal = self._journal
        catalog = journal.catalog
        end = journal.reclaim + journal.ring.place.size
        return read_batches(journal.ring, at, end, catalog.group_id, catalog.history, self._window)


def seal_at_the_limit(journal: Journal, shut_out: Callable[[], None], reason: str) -> Point:
    """m3: seal at what is stated, without the tail that nobody has spoken of."""
    shut_out()
    journal.publish(mark={FENCED: reason}, sealed=journal.head)
    return journal.head


class LinkServingAtOnce(SyncLink):
    """m3: after a restart the own ring is the truth, and hosts are served at once."""

    def admit(self) -> bool:
        return True


class LegByPosition(Leg):
    """m3: after a restart compare tails by position alone, and send what the near ring lacks."""

    def _proved(self, page: Page) -> Point:
        at = super()._proved(page)
        own = self._own
        catalog = own.catalog
        end = own.head.position
        mine = read_batches(own.ring, at, end, catalog.group_id, catalog.history, WINDOW)
        theirs = read_batches(
            self._ring, at, end + BLOCK, catalog.group_id, catalog.history, WINDOW
        )
        reached = theirs.end(at).position
        ends = [batch.end for batch in mine.batches if batch.end.position <= reached]
        return ends[-1] if ends else at


class LegLeavingATail(Leg):
    """Own ring wins, but what the near ring holds behind it is left for a seal to find."""

    def cut_tail(self) -> None:
        """Leave it."""


class LegTrustingItsFlush(Leg):
    """m11: a write and a flush that succeeded, on whatever connection, call it durable."""

    def _confirm(self, pieces: list[tuple[int, memoryview]]) -> None:
        """Look at nothing."""


class LegWithoutANewSession(Leg):
    """F23: go on after a loss without ending the session that may still deliver its writes."""

    def connect(self) -> None:
        device = self._device
        with mock.patch.object(device, "renew", lambda: None):
            super().connect()


class LegKeepingItsWord(Leg):
    """Bring the near ring up while the writer's page still says that headers prove."""

    def begin(self) -> None:
        """State nothing."""


class LegWithoutFullCheck(Leg):
    """Write the near ring whether it has room or not."""

    def _room(self, wanted: int) -> int:
        return max(super()._room(0), wanted)


class LinkAnsweringBeforeTheMark(SyncLink):
    """Go on alone without the durable degraded mark."""

    def _degrade(self) -> None:
        """State nothing."""


@contextmanager
def any_end_clears() -> Iterator[None]:
    """m8: take the first end whose begin lies after the gap, whatever gaps the begin names."""

    def note_events(progress: GapProgress, batch: Batch) -> None:
        for record in batch.records():
            if record.kind == RecordKind.RESYNC_BEGIN:
                begin = decode_begin(batch.payload_of(record))
                assert begin is not None
                progress._gap = replace(progress._gap, begun=begin.id)
            elif record.kind == RecordKind.RESYNC_END and progress._gap.begun:
                progress._ended_at = batch.end

    with mock.patch.object(GapProgress, "_note_events", note_events):
        yield


@contextmanager
def gap_without_a_mark() -> Iterator[None]:
    """m8: go on over a gap without saying so; a begin in the stream may be far away."""
    real = Journal.take_gap

    def take_gap(journal: Journal, *given: Any) -> None:
        entry, catalog, maps, _, reason = given
        real(journal, entry, catalog, maps, None, reason)

    with mock.patch.object(Journal, "take_gap", take_gap):
        yield


class RoomForgetting(Room):
    """Reclaim past a reader and note nothing of what it misses."""

    def _leave_behind(self, site: str) -> bool:
        with mock.patch.object(
            room, "changed_between", lambda *given: (changed_between(*given)[0], {})
        ):
            return super()._leave_behind(site)


VARIANTS = (
    Variant(
        "gap-without-a-mark",
        "m8: a site marks itself when it takes a gap, not when the stream says so",
        patch=gap_without_a_mark,
        run="detach",
        seeds=100,
    ),
    Variant(
        "any-end-clears",
        "m8: only the end of a begin that named the gap clears the mark",
        patch=any_end_clears,
        run="detach",
        seeds=600,
    ),
    Variant(
        "forgetful-reclaim",
        "what a reader misses is noted before it is reclaimed",
        Parts(room=RoomForgetting),
        run="detach",
        seeds=300,
    ),
    Variant(
        "rot-proof-at-a-secondary",
        "m1: only the own mark proves rot in a secondary's ring",
        Parts(recover=recover_by_later_batches_everywhere),
    ),
    Variant(
        "headers-of-any-ring",
        "m2: committed in a header proves nothing in another ring",
        Parts(peer=PeerByAnyHeader),
    ),
    Variant("answer-before-flush", "write-ahead", Parts(journal=JournalWithoutFlush)),
    Variant(
        "publish-before-flush",
        "a page states what is durable",
        Parts(journal=JournalPublishingFirst),
    ),
    Variant("no-payload-digest", "promise 3: the payload digest", patch=no_payload_digest),
    Variant("stale-page", "the newest valid copy counts", Parts(journal=JournalByTheStalePage)),
    Variant("no-full-check", "a ring is never overrun", Parts(journal=JournalWithoutFullCheck)),
    Variant(
        "early-reclaim",
        "m10: reclaim is durable before a byte is overwritten",
        Parts(journal=JournalReclaimingEarly),
    ),
    Variant(
        "peers-newer-copy",
        "m10: act on the older copy of a peer's page",
        Parts(peer=PeerByTheNewerCopy),
    ),
    Variant("any-position", "a batch is valid at its own place only", patch=any_position),
    Variant(
        "restore-above-the-limit",
        "restore takes nothing above the own statement",
        Parts(journal=JournalRestorableToTheHead),
        run="crash-points",
    ),
    Variant(
        "restore-removed-volumes",
        "records of a removed volume are passed over",
        Parts(restore=RestoreOfRemovedVolumes),
    ),
    Variant(
        "visible-page",
        "a restart makes the newest page durable first",
        Parts(journal=JournalTrustingAVisiblePage),
        run="crash-points",
    ),
    Variant(
        "checkpoint-before-flush",
        "volumes are flushed before a checkpoint says so",
        Parts(checkpoint=CheckpointBeforeFlush),
    ),
    Variant(
        "checkpoint-of-the-head",
        "a checkpoint covers what was applied",
        Parts(checkpoint=CheckpointOfTheHead),
    ),
    Variant(
        "compare-early",
        "m12: compare after all lower data writes",
        Parts(commit=CommitComparingEarly),
    ),
    Variant(
        "copy-early",
        "m5: a chunk is read after all lower data writes",
        Parts(commit=CommitCopyingEarly),
    ),
    Variant(
        "judge-everything",
        "m6: no verify record below the ring's head at the start is judged",
        Parts(restore=RestoreJudgingEverything),
        seeds=600,
    ),
    Variant(
        "hold-in-memory",
        "an operator's hold on restore is durable",
        Parts(journal=JournalHoldingInMemory),
    ),
    Variant(
        "stop-by-the-window",
        "restore stops at the point, not behind it",
        patch=stops_by_the_window,
    ),
    Variant(
        "answer-a-failed-write",
        "F10: no answer after a failed flush",
        Parts(commit=CommitAnsweringFailures),
        run="fault",
        seeds=600,
    ),
    Variant(
        "near-by-its-own-head",
        "m3: in a near ring only the writer's word proves",
        Parts(near=NearByItsOwnHead),
        run="sync",
    ),
    Variant(
        "seal-at-the-limit",
        "m3: only a seal passes the limit",
        Parts(seal=seal_at_the_limit),
        run="bunker",
    ),
    Variant(
        "serve-at-once",
        "m3: a restarted primary has its tail durable at the near site before it serves",
        Parts(link=LinkServingAtOnce),
        run="sync",
    ),
    Variant(
        "tails-by-position",
        "m3: tails are compared by their pairs",
        Parts(leg=LegByPosition),
        run="sync",
        seeds=1000,
    ),
    Variant(
        "tail-left-at-the-near-site",
        "where tails differ above committed the own ring wins",
        Parts(leg=LegLeavingATail),
        run="bunker",
        seeds=5000,
    ),
    Variant(
        "any-connection",
        "m11: write and flush on one unbroken connection",
        Parts(leg=LegTrustingItsFlush),
        run="bunker",
        seeds=600,
    ),
    Variant(
        "no-new-session",
        "F23: nothing is written before the old session is gone",
        Parts(leg=LegWithoutANewSession),
        run="bunker",
        seeds=600,
    ),
    Variant(
        "headers-while-brought-up",
        "synced_since is taken back before the near ring is brought up",
        Parts(leg=LegKeepingItsWord),
        run="sync",
        seeds=600,
    ),
    Variant(
        "near-ring-overrun",
        "a full near ring is a lost leg",
        Parts(leg=LegWithoutFullCheck),
        run="bunker",
    ),
    Variant(
        "answer-before-the-mark",
        "or-degrade: the mark is durable before the first answer",
        Parts(link=LinkAnsweringBeforeTheMark),
        run="sync",
    ),
    Variant(
        "apply-out-of-order",
        "record order on the volume",
        Parts(commit=CommitAnsweringBeforeTheVolume),
    ),
)
