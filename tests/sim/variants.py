"""Deliberately broken variants: each breaks one rule of the design, and each must be caught.

The models m1, m2, m10 and m12 are searches that broke an earlier text of the design; every one of
them became a rule, and the variant here is the code without that rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

from replicator.codec import batch as batch_codec
from replicator.codec.batch import Batch, Invalid, Point, header_digest_holds, parse_header
from replicator.codec.history import History
from replicator.codec.page import Page, PeerNote
from replicator.errors import DeviceFailed, JournalRotten
from replicator.journal.journal import Journal, Owner
from replicator.journal.pages import Statement
from replicator.journal.peer import Peer
from replicator.journal.recovery import Recovered, find_later_batch, recover
from replicator.model import WriteKind
from replicator.movers.checkpoint import Checkpoint
from replicator.movers.commit import Commit, Prepared
from replicator.movers.pull import Pull
from replicator.movers.restore import Restore
from replicator.seams.blockdevice import Buffer, JournalDevice
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


class PullByAnyHeader(Pull):
    """m2: believe ``committed`` in the headers of a ring that the primary does not write."""

    @staticmethod
    def _headers_prove(page: Page) -> bool:
        return bool(page.body.role)


class JournalWithoutFlush(Journal):
    """Call a batch durable when it is written: the answer comes before the flush."""

    def append(self, parts: Sequence[Buffer], end: Point) -> None:
        at = self.head.position
        for part in parts:
            self.ring.write(at, part)
            at += len(part)
        self.head = end


class JournalPublishingFirst(Journal):
    """State a head in the page before the ring was flushed; the page's flush does for both."""

    def append(self, parts: Sequence[Buffer], end: Point) -> None:
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
        return False


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

    def append(self, prepared: Prepared) -> None:
        try:
            super().append(prepared)
        except DeviceFailed:
            self._journal.head = prepared.end


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


VARIANTS = (
    Variant(
        "rot-proof-at-a-secondary",
        "m1: only the own mark proves rot in a secondary's ring",
        Parts(recover=recover_by_later_batches_everywhere),
    ),
    Variant(
        "headers-of-any-ring",
        "m2: committed in a header proves nothing in another ring",
        Parts(pull=PullByAnyHeader),
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
        "answer-a-failed-write",
        "F10: no answer after a failed flush",
        Parts(commit=CommitAnsweringFailures),
        run="fault",
        seeds=600,
    ),
    Variant(
        "apply-out-of-order",
        "record order on the volume",
        Parts(commit=CommitAnsweringBeforeTheVolume),
    ),
)
