"""Promotion: a secondary becomes primary in numbered steps, durable and resumable.

1 intent: new epoch id in the own page. 2 look: read every other site. 3 drain: take what the
others' rings hold of the own epoch. 4 restore to the end of the log. 5 epoch: its batch and the
history entry (the commit point). 6 second look. 7 active. A crash before 5 leaves an intent that
the same command takes up, or gives up; after it the second look is repeated until it passes.

One ``step`` is one of these. Nothing here answers hosts: that begins when 7 is durable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from msgspec.structs import replace

from replicator.clock import Clock
from replicator.codec.batch import Context, Point, batch_length, build_batch
from replicator.codec.history import Epoch, History, Relation, encode_epoch
from replicator.codec.page import Intent, OwnerBody
from replicator.codec.records import RecordKind
from replicator.codec.topology import FixedInterval
from replicator.errors import JournalFailed, JournalFull, Refused, TowlineError
from replicator.journal.gap import why_not_promotable
from replicator.journal.journal import Journal
from replicator.journal.peer import Peer
from replicator.journal.second_look import in_the_way, is_fenced
from replicator.movers.pull import Pull
from replicator.movers.restore import Restore

log = logging.getLogger(__name__)

UNCONFIRMED = "hosts-unconfirmed"
"""The mark of a new primary that may lack answered writes: hosts wait for an operator's word."""

NOTE_LENGTH = 100
"""Characters of a note that a page and the history keep."""


class Step(IntEnum):
    """Where a promotion is; the numbers are those that operators see."""

    INTENT = 1
    LOOK = 2
    DRAIN = 3
    RESTORE = 4
    EPOCH = 5
    SECOND_LOOK = 6
    ACTIVE = 7
    DONE = 8


@dataclass(frozen=True, slots=True)
class Order:
    """What the operator asks for. ``without`` names sites that are vouched to be off (forced)."""

    without: tuple[str, ...] = ()
    note: str = ""


@dataclass(slots=True)
class Drained:
    """What was taken from other sites, and what may be missing."""

    bytes: int = 0
    records: int = 0
    tail_bytes: int = 0
    """Of these: valid, but not stated as durable by the ring that they came from."""
    whole_tail: bool = False
    """Whether that tail was taken to its end."""
    nothing_lost: bool = False
    """Whether every answered write is known to be below the own head."""
    bound: Point | None = None
    """The furthest end of the log that any site has stated; the own head may be behind it."""


class Promotion:
    """Makes this site the primary of a new epoch."""

    def __init__(
        self,
        journal: Journal,
        peers: Mapping[str, Peer],
        restore: Restore,
        checkpoint: Callable[[float], None],
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        order: Order,
    ) -> None:
        """``checkpoint`` flushes the data volumes and publishes what is restored.

        A primary that boots, and cannot read every other site, begins a new epoch without those
        that ``order`` names. Raises Refused for a site that serves already or whose volumes are
        inconsistent.
        """
        self._journal = journal
        self._peers = peers
        self._restore = restore
        self._checkpoint = checkpoint
        self._clock = clock
        self._random = random_bytes
        self._order = order
        self.drained = Drained()
        self.next = self._first_step()

    def _first_step(self) -> Step:
        journal = self._journal
        body = journal.body
        if body.role == "primary":
            return self._first_step_of_a_primary(body)
        if not journal.attached:
            raise Refused(f"{self._who} holds nothing of the group yet: choose another site")
        inconsistent = why_not_promotable(body.marks, body.gap)
        if inconsistent is not None:
            raise Refused(
                f"{self._who} is inconsistent ({inconsistent}): its volumes equal no "
                "point of the log; wait for the resync to end, or choose another site"
            )
        if body.restore_stop is not None:
            raise Refused(
                f"{self._who}: an operator holds its restore back; a primary needs all of the log: "
                "replicatorctl restore resume, then promote"
            )
        return Step.INTENT

    def _first_step_of_a_primary(self, body: OwnerBody) -> Step:
        if body.intent is not None and body.intent.promotes:
            return Step.SECOND_LOOK
        if body.active_on == self._journal.owner.boot_id:
            raise Refused(f"{self._who} is primary already: nothing is to be done")
        if not self._order.without:
            raise Refused(
                f"{self._who} is primary and boots: it serves as soon as it has read every other "
                "site; to go on without one that is off or cut from hosts: --force --without SITE"
            )
        return Step.INTENT

    @property
    def _who(self) -> str:
        owner = self._journal.owner
        return f"group {owner.group}: site {owner.site}"

    @property
    def _noted(self) -> str:
        without = ", ".join(self._order.without)
        return f"{self._order.note} without {without}" if without else self._order.note

    def step(self, now: float) -> Step:
        """Do the next step and return the one that follows; DONE when the site is active.

        Raises Refused when another site is in the way: at step 2 the intent is withdrawn, at step
        6 the epoch has begun and the site stays a primary that answers nobody. Raises DeviceFailed
        and JournalFull with everything before the step durable.
        """
        match self.next:
            case Step.INTENT:
                self._state_intent()
            case Step.LOOK:
                self._look()
            case Step.DRAIN:
                self._drain(now)
            case Step.RESTORE:
                self._restore_all(now)
            case Step.EPOCH:
                self._begin()
            case Step.SECOND_LOOK:
                self._look_again()
            case Step.ACTIVE:
                self._activate()
            case Step.DONE:
                return self.next
        self.next = Step(self.next + 1)
        return self.next

    def abandon(self) -> None:
        """Withdraw an intent whose epoch has not begun: durable on return."""
        self._journal.restate(lambda body: replace(body, intent=None))

    def _state_intent(self) -> None:
        body = self._journal.body
        begun = body.intent if body.intent is not None and body.intent.promotes else None
        intent = Intent(
            begun.epoch_id if begun is not None else self._random(16),
            self._journal.catalog.history.last.number + 1,
            self._clock.realtime_ns(),
            self._order.without,
            self._noted[:NOTE_LENGTH],
        )
        self._journal.restate(lambda body: replace(body, intent=intent))

    def _look(self) -> None:
        found = in_the_way(self._journal, self._peers, self._order.without)
        if found:
            self.abandon()
            raise Refused(
                f"{self._who} is not promoted: {_listed(found)}; nothing was changed; demote or "
                "fence that site, or name it with --force --without SITE if it is off or cut from "
                "hosts"
            )

    def _drain(self, now: float) -> None:
        """Take what others hold of the own epoch, the furthest first."""
        journal = self._journal
        before = journal.head
        for peer in sorted(self._readable(), key=_stated_head, reverse=True):
            try:
                self._drain_from(peer, now)
            except JournalFailed:
                raise
            except TowlineError as error:
                log.warning("not drained to its end site=%s reason=%r", peer.site, str(error))
        heads = [_stated_head(peer) for peer in self._peers.values() if peer.statement]
        self.drained.bound = max([journal.head, *heads], key=lambda point: point.position)
        self.drained.bytes = journal.head.position - before.position
        self.drained.records = journal.head.sequence - before.sequence
        self.drained.nothing_lost = self._holds_every_answer()

    def _drain_from(self, peer: Peer, now: float) -> None:
        pull = Pull(self._journal, peer, FixedInterval(seconds=0.0), self._clock)
        while (report := pull.step(now)) is not None and report.bytes:
            pass
        if peer.statement is not None and peer.statement.newer.body.role == "primary":
            taken, self.drained.whole_tail = pull.take_tail()
            self.drained.tail_bytes += taken

    def _readable(self) -> list[Peer]:
        """Return the sites that are in the own epoch and can be read."""
        found = []
        for peer in self._peers.values():
            try:
                statement = peer.look()
                known = statement.newer.body.catalog is not None
            except TowlineError:
                continue  # in the look it was vouched for, or the second look will say so
            history = self._journal.catalog.history
            if known and history.compare(peer.catalog().history).relation is Relation.SAME:
                found.append(peer)
        return found

    def _holds_every_answer(self) -> bool:
        """Whether the last primary answers nobody and its ring ends where the own one does.

        Then it has handed over, or was fenced durably and drained to the end of its valid tail.
        """
        journal = self._journal
        last = journal.catalog.history.last.site
        if last == journal.owner.site:
            return True
        statement = self._peers[last].statement if last in self._peers else None
        if statement is None:
            return False
        body = statement.newer.body
        if body.role == "secondary":
            return body.head.pair == journal.head.pair
        return self.drained.whole_tail and is_fenced(statement)

    def _restore_all(self, now: float) -> None:
        """Restore without delay or pace, to the end of the log."""
        self._restore.pace = None
        while self._restore.step(now):
            pass
        self._checkpoint(now)
        assert self._restore.applied.position == self._journal.head.position

    def _begin(self) -> None:
        journal = self._journal
        history, head, intent = journal.catalog.history, journal.head, journal.body.intent
        assert intent is not None
        epoch = Epoch(
            id=intent.epoch_id,
            number=history.last.number + 1,
            fork_position=head.position,
            fork_digest=head.digest,
            site=journal.owner.site,
            upstreams=self._upstreams(),
            old_time_ns=head.time_ns,
            at_ns=self._clock.realtime_ns(),
            forced=bool(intent.without),
            note=intent.note,
        )
        payload = encode_epoch(epoch)
        batch = memoryview(bytearray(batch_length(1, len(payload))))
        if len(batch) > journal.free_bytes:
            raise JournalFull(
                f"{self._who}: no room for the epoch's batch: {journal.free_bytes} bytes are free; "
                "a site that lags keeps the journal full: replicatorctl status"
            )
        time_ns = max(head.time_ns, self._clock.realtime_ns())
        context = Context(journal.catalog.group_id, epoch.id, head, time_ns, head.position)
        end = build_batch(context, [(RecordKind.EPOCH, 0, 0, len(payload), [payload])], batch)
        journal.begin_epoch(batch, end, History((*history.epochs, epoch)), self._begun)

    def _begun(self, body: OwnerBody) -> OwnerBody:
        """What else the entry's page says: not active yet, hosts held unless nothing is missing."""
        if self.drained.nothing_lost:
            return replace(body, active_on=b"")
        behind = self.drained.bound
        missing = max(0, behind.sequence - body.head.sequence) if behind else 0
        reason = f"answered writes may be missing: {missing} records known of, or more"
        return replace(body, active_on=b"", marks={**body.marks, UNCONFIRMED: reason})

    def _upstreams(self) -> tuple[tuple[str, str], ...]:
        """Return whom each other site reads from now on.

        The way from here to the old primary is turned round; sites that are vouched to be off are
        left out of it, and whoever read one of those reads here.
        """
        here = self._journal.owner.site
        before = dict(self._journal.catalog.history.last.upstreams)
        for site, peer in self._peers.items():
            if peer.statement is not None and peer.statement.newer.body.upstream is not None:
                before[site] = peer.statement.newer.body.upstream
        own = self._journal.body.upstream
        if own is not None:
            before[here] = own
        after = {site: before.get(site, here) for site in self._journal.owner.peers}
        reached, at = here, here
        for _ in before:
            if (at := before.get(at, "")) not in after:
                break
            if at not in self._order.without:
                after[at], reached = reached, at
        for site, upstream in after.items():
            if upstream in self._order.without or site in self._order.without or upstream == site:
                after[site] = here
        return tuple(sorted(after.items()))

    def _look_again(self) -> None:
        intent = self._journal.body.intent
        assert intent is not None
        found = in_the_way(self._journal, self._peers, intent.without)
        if found:
            raise Refused(
                f"{self._who} has begun its epoch but answers nobody yet: {_listed(found)}; it is "
                "looked at again when this command is repeated; fence that site, or restart it so "
                "that it steps down"
            )

    def _activate(self) -> None:
        boot_id = self._journal.owner.boot_id
        self._journal.restate(lambda body: replace(body, intent=None, active_on=boot_id))


def _stated_head(peer: Peer) -> Point:
    assert peer.statement is not None
    return peer.statement.newer.body.head


def _listed(found: Mapping[str, str]) -> str:
    return "; ".join(f"site {site} {reason}" for site, reason in sorted(found.items()))
