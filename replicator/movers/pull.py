"""Pull: read the source's journal at an interval decided here, store it in the own ring.

Claims 1-12, at a third site 17-25 and 29-37. The command that requires the forwarding is an
iSCSI READ of the source's journal LUN (a pread of a file in the embedded lab); nothing runs at
the source for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from replicator.clock import Clock
from replicator.codec.batch import Invalid, Point
from replicator.codec.catalog_records import BadEvent, catalog_after
from replicator.codec.history import Catalog, Relation
from replicator.codec.page import Page, PullNote
from replicator.codec.topology import AdaptiveInterval, FixedInterval
from replicator.errors import Detached, JournalRotten, PeerRefused
from replicator.journal.gap import take_gap
from replicator.journal.journal import Journal
from replicator.journal.meeting import meet
from replicator.journal.peer import Peer
from replicator.journal.reader import (
    LIMIT,
    Run,
    batches_in,
    header_at,
    read_batches,
    read_committed,
)
from replicator.model import BLOCK
from replicator.movers.interval import (
    OWN_FULL,
    SOURCE_FULL,
    Decision,
    Measured,
    decide,
    first_interval,
)
from replicator.movers.read_ahead import ReadAhead, Start
from replicator.movers.traffic import TrafficAllowance
from replicator.status import used_bytes

BYTE_LIMIT = 8 << 20
"""Most that one pull reads, bytes; at least twice the largest batch."""

_GAP_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class PullReport:
    """One pull: what it brought, and when the next one comes and why."""

    source: str
    started_at: float
    seconds: float
    records: int
    bytes: int
    head: Point
    source_head: Point
    measured: Measured
    decision: Decision


@dataclass(slots=True)
class PullTotals:
    """What was pulled since the start."""

    pulls: int = 0
    records: int = 0
    bytes: int = 0


@dataclass(slots=True)
class _Found:
    """What was read of the source's journal."""

    runs: list[Run]
    limited: bool
    """There is more, behind the byte limit or the room."""
    full: bool
    """It was the room in the own ring that ended it."""


class Pull:
    """One puller: own journal, one source."""

    def __init__(
        self,
        journal: Journal,
        source: Peer,
        policy: FixedInterval | AdaptiveInterval,
        clock: Clock,
        byte_limit: int = BYTE_LIMIT,
        *,
        load: Callable[[], float] = lambda: 0.0,
        primary_head: Callable[[], Point | None] = lambda: None,
        ahead: Start | None = None,
        has_volumes: bool = True,
        random_bytes: Callable[[int], bytes] = os.urandom,
        keep_image: Callable[[], str] = lambda: "",
    ) -> None:
        """``load`` measures the own machine (0 to 1), ``primary_head`` is the furthest end of
        the primary's log that this node knows, for a target RPO. ``ahead`` begins a read while
        something else goes on (None: no read-ahead)."""
        self._journal = journal
        self._source = source
        self._policy = policy
        self._clock = clock
        self._byte_limit = byte_limit
        self._load = load
        self._primary_head = primary_head
        self._has_volumes = has_volumes
        self._random_bytes = random_bytes
        self._keep_image = keep_image
        self.gaps_taken = 0
        """Gaps in the log that this site has taken since the start."""
        self._interval = first_interval(policy)
        self._began_at: float | None = None
        self._allowance = _allowance(policy)
        self._ahead = ReadAhead(ahead) if ahead is not None and self._allowance is None else None
        self._counted_bytes = source.read_bytes
        self.due_at = float("-inf")
        self.last: PullReport | None = None
        self.totals = PullTotals()

    def step(self, now: float) -> PullReport | None:
        """Pull if it is due.

        On return what the report says is durable in the own ring and published. Where the source
        has reclaimed what comes next, the gap is taken instead (journal/gap.py). Raises
        PeerRefused, Detached or DeviceFailed with the own journal unchanged; the next try comes
        at the longest interval of the policy.
        """
        if now < self.due_at and not self.has_room_again:
            return None
        self.due_at = now + self._retry_seconds()
        started = self._clock.monotonic()
        if self._ahead is not None:
            self._ahead.wait()
        try:
            page = self._source.look().newer
            if not self._journal.attached:
                self._attach(page)
            self._check_history(page)
            if page.body.reclaim > self._journal.head.position:
                self._take_gap(now)
                self.due_at = now
                return None
            found = self._read(page, self._budget(now))
        finally:  # what crossed the link counts against its limit, whatever came of it
            crossed = self._count_traffic()
        measured = self._measure(now, page, found, crossed, started)
        report = self._store(now, page, found, measured, started)
        self._began_at = now
        self.due_at = now + report.decision.seconds
        self._interval = max(report.decision.seconds, 0.001)
        self.last = report
        self.totals.pulls += 1
        self.totals.records += report.records
        self.totals.bytes += report.bytes
        return report

    def take_tail(self) -> tuple[int, bool]:
        """Take valid batches beyond what the source states: durable on return.

        Returns bytes taken and whether that was all. For a promotion only, when the source's
        primary is fenced or vouched to be off: nobody will say any more what of its tail was
        durable, so what is valid is taken and made durable here (design: the seal, from afar).
        """
        journal, before = self._journal, self._journal.head
        while True:
            at = journal.head
            limit = at.position + min(journal.free_bytes, self._source.ring.place.size)
            run = self._batches(at, limit, self._byte_limit)
            if not run.batches:
                whole = run.stop is not None and run.stop.rule != LIMIT
                return at.position - before.position, whole
            journal.append([run.content], run.end(at), self._changed_catalog([run]))
            journal.publish()

    @property
    def link_bytes(self) -> int:
        """Everything that was read over the link since the start, pages included."""
        return self._source.read_bytes

    @property
    def has_room_again(self) -> bool:
        """Whether a pull that waits because the own journal was full need not wait any more."""
        if self.last is None or self.last.decision.winner != OWN_FULL:
            return False
        return self._journal.free_bytes >= self._journal.ring.place.size // 4

    def _count_traffic(self) -> int:
        """Return what crossed the link since this was asked last, and pay for it."""
        crossed = self._source.read_bytes - self._counted_bytes
        self._counted_bytes += crossed
        if self._allowance is not None:
            self._allowance.spend(crossed, excused=self._urgent)
        return crossed

    @property
    def _urgent(self) -> bool:
        """Whether this pull was called for by a nearly full source."""
        return self.last is not None and self.last.decision.winner == SOURCE_FULL

    def _retry_seconds(self) -> float:
        if isinstance(self._policy, FixedInterval):
            return self._policy.seconds
        return self._policy.max_seconds

    def _attach(self, page: Page) -> None:
        """Adopt the source's group at first contact; a gap follows if its beginning is gone."""
        self._journal.attach(page.group_id, self._source.catalog())

    def _take_gap(self, now: float) -> None:
        self.due_at = now + min(self._retry_seconds(), _GAP_RETRY_SECONDS)
        take_gap(
            self._journal,
            self._source,
            has_volumes=self._has_volumes,
            random_bytes=self._random_bytes,
            now_ns=self._clock.realtime_ns(),
            keep_image=self._keep_image,
        )
        self.gaps_taken += 1

    def _check_history(self, page: Page) -> None:
        """Enter epochs that the source is in and this site is not, or refuse to read from it."""
        relation = meet(self._journal, self._source)
        if relation is Relation.OLDER:
            own, theirs = self._journal.catalog.history, self._source.catalog().history
            raise PeerRefused(
                f"{self._source.device_name}: {page.body.site} is in epoch {theirs.last.number}, "
                f"this site in {own.last.number}; nothing is read from it until it has followed"
            )

    def _budget(self, now: float) -> int:
        """Return how many bytes may be read now; a nearly full source wins over the limit."""
        if self._allowance is None:
            return self._byte_limit
        left = self._allowance.left_bytes(now) // BLOCK * BLOCK  # reads are whole blocks
        return self._byte_limit if self._urgent else min(self._byte_limit, max(0, left))

    def _read(self, page: Page, budget: int) -> _Found:
        """Read whole batches up to the source's limit, ``budget`` bytes or one batch."""
        journal = self._journal
        at = journal.head
        stated = self._source.limit.stated
        if stated.position == at.position and stated.pair != at.pair:
            raise PeerRefused(
                f"{self._source.device_name}: {page.body.site} and this site have diverged: "
                f"{stated.pair} there, {at.pair} here"
            )
        if budget < self._byte_limit and stated.position - at.position > budget > 0:
            following = header_at(self._source.ring, at)  # one batch is the least that can be read
            budget = max(budget, following.length if following else 0)
        full = journal.free_bytes < budget
        budget = min(budget, journal.free_bytes)
        runs: list[Run] = []
        start = at.position
        while at.position < stated.position:
            left = budget - (at.position - start)
            limit = min(stated.position, at.position + left)
            run = self._batches(at, limit, left)
            if not run.batches:
                bad = run.stop is not None and (run.stop.rule != LIMIT or limit == stated.position)
                if bad and not runs:  # what is good before it is stored first
                    assert run.stop is not None
                    self._judge(at, run.stop)
                return _Found(runs, limited=True, full=full)
            runs.append(run)
            at = run.end(at)
        run = self._beyond_the_page(at, budget - (at.position - start))
        return _Found([*runs, run] if run.batches else runs, limited=False, full=False)

    def _batches(self, at: Point, limit: int, window: int) -> Run:
        catalog, ring = self._journal.catalog, self._source.ring
        content = self._ahead.take(ring, at.position) if self._ahead is not None else None
        if content is not None:
            window_end = limit - at.position
            run = batches_in(content[:window_end], at, catalog.group_id, catalog.history)
            if run.batches:  # else read it again: only fresh bytes are judged
                return Run(run.batches, run.content, None)
        return read_batches(ring, at, limit, catalog.group_id, catalog.history, window)

    def _read_ahead(self, page: Page, found: _Found) -> None:
        """Begin to read what the next pull needs, if that is known to be durable already."""
        if self._ahead is None or not found.limited or not found.runs:
            return
        after = found.runs[-1].end(self._journal.head).position
        room = self._journal.free_bytes - (after - self._journal.head.position)
        length = min(self._byte_limit, page.body.head.position - after, room)
        if length > 0:
            self._ahead.begin(self._source.ring, after, length // BLOCK * BLOCK)

    def _beyond_the_page(self, at: Point, left: int) -> Run:
        """Read what the primary has committed since a page last said so, where headers prove it."""
        proven_from = self._source.limit.headers_from
        if proven_from is None or at.position < proven_from:
            return Run([], memoryview(b""), None)
        catalog = self._journal.catalog
        return read_committed(self._source.ring, at, left, catalog.group_id, catalog.history)

    def _judge(self, at: Point, stop: Invalid) -> None:
        """Bytes below the source's limit are not a batch: overtaken, or rot at the source."""
        page = self._source.look().newer
        if page.body.reclaim > at.position:
            raise Detached(
                f"{self._source.device_name}: overtaken: {page.body.site} has reclaimed up to "
                f"{page.body.reclaim}, this site holds {at.position}"
            )
        offset = self._source.ring.place.segments(at.position, 1)[0][0]
        raise JournalRotten(
            f"{self._source.device_name}: rot in the journal of {page.body.site} at device offset "
            f"{offset} ({stop}), below its durable head {page.body.head.position}; nothing of it "
            "was stored; check that site: replicatorctl journal check"
        )

    def _changed_catalog(self, runs: list[Run]) -> Catalog | None:
        """Return the catalog after the events in ``runs``, None if it stays as it is."""
        catalog = self._journal.catalog
        try:
            changed = catalog_after(catalog, (batch for run in runs for batch in run.batches))
        except BadEvent as error:
            raise PeerRefused(f"{self._source.device_name}: {error}; nothing was stored") from error
        return None if changed is catalog else changed

    def _measure(
        self, now: float, page: Page, found: _Found, crossed: int, started: float
    ) -> Measured:
        """Return the inputs of the next decision; ``crossed`` bytes came over the link."""
        journal = self._journal
        after = found.runs[-1].end(journal.head) if found.runs else journal.head
        moved = after.position - journal.head.position
        elapsed = now - self._began_at if self._began_at is not None else self._interval
        elapsed = max(elapsed, self._clock.monotonic() - started, 0.001)
        ends = [page.body.head, self._primary_head() or after]
        newest = max(ends, key=lambda point: point.position)
        behind = newest.time_ns - after.time_ns if newest.position > after.position else 0
        others = {*journal.owner.peers, journal.owner.site} - {page.body.site}
        return Measured(
            interval_seconds=self._interval,
            records=after.sequence - journal.head.sequence,
            more_waiting=found.limited and (moved > 0 or not found.full),
            elapsed_seconds=elapsed,
            traffic=crossed / elapsed,
            traffic_wait_seconds=self._allowance.wait_seconds() if self._allowance else 0.0,
            used=journal.used_fraction,
            full=found.full,
            load=self._load(),
            source=used_bytes(page.body, others) / page.body.ring_size,
            source_urgent=self._urgent,
            lag_seconds=max(0, behind) / 1e9 if after.time_ns else 0.0,
            pull_seconds=self._clock.monotonic() - started,
        )

    def _store(
        self, now: float, page: Page, found: _Found, measured: Measured, started: float
    ) -> PullReport:
        journal = self._journal
        before = journal.head
        after = found.runs[-1].end(before) if found.runs else before
        moved = after.position - before.position
        decision = decide(self._policy, measured)
        if moved:
            self._read_ahead(page, found)
            journal.append(
                [run.content for run in found.runs], after, self._changed_catalog(found.runs)
            )
            note = PullNote(
                page.body.site,
                decision.seconds,
                decision.reason,
                measured.records,
                moved,
                self._clock.realtime_ns(),
            )
            journal.publish(pull=note)
        return PullReport(
            page.body.site,
            now,
            self._clock.monotonic() - started,
            measured.records,
            moved,
            after,
            max(page.body.head, after, key=lambda point: point.position),
            measured,
            decision,
        )


def _allowance(policy: FixedInterval | AdaptiveInterval) -> TrafficAllowance | None:
    if isinstance(policy, FixedInterval) or policy.traffic_limit is None:
        return None
    return TrafficAllowance(policy.traffic_limit)
