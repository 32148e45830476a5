"""What a node says about a group: the values behind ``replicatorctl status`` and ``pulls``.

Pure: made from pages (a peer's, or one's own while no daemon runs) or filled by the daemon, and
sent as JSON (docs/reference/status.md). Positions and sizes are bytes, times seconds unless the
name says otherwise; lag is on the primary's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from replicator.codec.batch import Point
from replicator.codec.history import VolumeEntry
from replicator.codec.page import OwnerBody, PullNote, VerifyRun

SCHEMA = 1
"""Version of the JSON: fields are added under the same number, a changed meaning raises it."""

SILENT_SECONDS = 10.0
SILENT_INTERVALS = 3
"""A lagging site without a new page for longer than both allow is called silent."""

View = Literal["daemon", "page", "none"]
"""How this node knows: the running daemon's memory, a page on a journal, or not at all."""


class PositionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A point in the group's log: what ``received`` and ``restored`` are stated as."""

    position: int
    digest: str
    sequence: int
    time_ns: int


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """How far one point is behind another; ``seconds`` on the primary's clock."""

    records: int
    bytes: int
    seconds: float


class MeasuredStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull measured for its decision; ``used``, ``load`` and ``source`` are 0 to 1.

    ``traffic`` is bytes a second on the link over ``elapsed_seconds``; ``used`` the own journal,
    ``source`` the source's, each as far as somebody still needs it.
    """

    interval_seconds: float
    elapsed_seconds: float
    more_waiting: bool
    traffic: float
    traffic_wait_seconds: float
    used: float
    full: bool
    load: float
    source: float
    lag_seconds: float


class PullStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One pull; ``interval_seconds`` is what was decided for the next one, ``reason`` why.

    What was measured and what each input proposed (seconds) is there for a node's own pulls,
    not for those that a page notes.
    """

    source: str
    at_ns: int
    records: int
    bytes: int
    interval_seconds: float
    reason: str
    winner: str = ""
    seconds: float = 0.0
    """How long the pull took."""
    measured: MeasuredStatus | None = None
    proposals: dict[str, float] = {}


class RestoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a site's restore is getting on; ``state`` is running, slowed (by the own load), delayed,
    paused or stopped (both by an operator)."""

    state: str
    reason: str = ""
    stop_at: str = ""
    """Where an operator's stop is; empty without one."""
    applied: int
    """Position up to which the volumes hold the log (durable at the next checkpoint)."""
    behind_bytes: int
    """Bytes that the own journal holds and the volumes do not."""
    verified_bytes: int = 0
    mismatches: int = 0


class LinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The sync link of a primary, as its daemon knows it.

    ``state``: synced (each answer is durable at both sites), joining (nearly so), lost. ``held``:
    hosts wait, reads too (sync-or-stop). ``degraded``: hosts may have been answered what the near
    site lacks (sync-or-degrade); ``behind_bytes`` is how much, as far as is known.
    """

    site: str
    policy: str
    state: str
    reason: str
    since_seconds: float
    """How long it has been in this state."""
    held: bool
    degraded: bool
    behind_bytes: int


class GapStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Why a site is inconsistent: since when (its own clock), and how much is missing still."""

    reason: str
    since_ns: int
    missing_bytes: int
    begun: bool
    """Whether it has met the begin of a resync for this gap."""


class ResyncStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A resync that the primary has under way. ``total_bytes`` and ``done_bytes`` are of volumes
    and count the phase that is under way, ``sent_bytes`` is the payload of all phases."""

    sites: tuple[str, ...]
    phase: str
    total_bytes: int
    done_bytes: int
    sent_bytes: int
    seconds_left: float | None
    held: bool


class SiteStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One site as this node sees it.

    ``state`` is one of: serving (primary), held (a primary that waits for its sync link),
    following (secondary), sealed (its ring was closed), starting, unattached (its journal never
    met its source), stopped (own site, no daemon runs), halted and the other marks of its page,
    unreachable. ``reason`` says why it is not serving or following.
    """

    site: str
    view: View
    role: Literal["primary", "secondary", "unknown"]
    state: str
    reason: str = ""
    upstream: str | None = None
    received: PositionStatus | None = None
    restored: PositionStatus | None = None
    lag: Lag | None = None
    """What the primary holds and this site has not received."""
    restore_lag: Lag | None = None
    """What the primary holds and this site's data volumes do not durably have."""
    ring_bytes: int = 0
    used_bytes: int = 0
    """Bytes of the ring that this site or a reader still needs."""
    hosts_held: bool = False
    """Whether host writes wait because the ring is full (the daemon at a primary only)."""
    pull: PullStatus | None = None
    writer: str | None = None
    """At the near end of a sync link: the primary, which writes this site's ring."""
    link: LinkStatus | None = None
    """The sync link that begins here (the daemon at a primary only)."""
    restore: RestoreStatus | None = None
    """Null for the primary, a peer, and a site without data volumes."""
    differing_bytes: int = 0
    """How much of its volumes is known to differ from the primary's (verify records)."""
    gap: GapStatus | None = None
    """Not null while the site is inconsistent."""
    left_behind: dict[str, int] = {}
    """Readers that this site's ring does not wait for any more: bytes that each misses (the own
    site only)."""
    marks: dict[str, str] = {}
    faults: dict[str, str] = {}
    """Why a mover does not get on, by mover (the daemon's own site only)."""
    rpo_seconds: float | None = None
    """The most lag that the topology wants here."""
    unchanged_seconds: float | None = None
    """For how long this node has seen no new page of that site (the daemon only)."""


class VolumeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A data volume at this node."""

    id: int
    name: str
    size_bytes: int
    state: Literal["ok", "failed", "unknown"] = "unknown"
    reason: str = ""


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon has done since it started; ``link_bytes`` is all that crossed the link."""

    pulls: int = 0
    pulled_records: int = 0
    pulled_bytes: int = 0
    link_bytes: int = 0
    committed_batches: int = 0
    committed_records: int = 0
    committed_bytes: int = 0
    restored_batches: int = 0
    restored_records: int = 0
    restored_bytes: int = 0


class DifferingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a volume that differs from the primary's; the record at ``position`` says so."""

    volume: str
    volume_id: int
    offset: int
    length: int
    position: int


class VerifiedSite(msgspec.Struct, frozen=True, kw_only=True):
    """What verify records have shown at one site.

    The bytes compared and passed over since its start are known of the own site alone.
    """

    site: str
    view: View
    primary: bool = False
    """Whether it is the one that the others are compared with."""
    differs: tuple[DifferingStatus, ...] = ()
    unlisted_bytes: int = 0
    """Bytes that differ besides; a page lists the first pieces."""
    found: int = 0
    """Verify records that did not agree since the journal was made."""
    repair_asked: bool = False
    verified_bytes: int | None = None
    skipped_bytes: int | None = None
    reason: str = ""
    """Why nothing is known of it."""

    @property
    def differing_bytes(self) -> int:
        """How much of its volumes is known to differ."""
        return sum(piece.length for piece in self.differs) + self.unlisted_bytes


class VerifyRunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The verification that a primary runs; ``rate`` is bytes of volumes a second.

    ``state`` is running, held (with the reason), stopped or finished. ``began`` and ``ended`` are
    positions, ``ended`` that of the last pass that came to its end, 0 for none.
    """

    state: str
    reason: str = ""
    rate: float
    repeat: bool
    number: int
    volume: str
    done_bytes: int
    total_bytes: int
    unreadable_bytes: int = 0
    began: int
    began_ns: int
    ended: int
    ended_ns: int

    @property
    def remaining_seconds(self) -> float:
        """How long the pass still takes at its rate."""
        return (self.total_bytes - self.done_bytes) / self.rate


class VerifyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Verification of a group as node ``site`` sees it; ``run`` is None if there never was one."""

    group: str
    site: str
    run: VerifyRunStatus | None
    sites: tuple[VerifiedSite, ...]
    schema: int = SCHEMA


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The process that answered."""

    pid: int
    version: str
    uptime_seconds: float
    front_end: str = ""
    anonymous_memory_bytes: int = 0
    counters: Counters = Counters()


class GroupStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A group as node ``site`` sees it; ``daemon`` is None when only pages were read."""

    group: str
    site: str
    at_ns: int
    sites: tuple[SiteStatus, ...]
    volumes: tuple[VolumeStatus, ...] = ()
    group_id: str = ""
    epoch: int = 0
    resync: ResyncStatus | None = None
    """At the primary, while a resync is under way."""
    daemon: DaemonStatus | None = None
    schema: int = SCHEMA

    @property
    def own(self) -> SiteStatus:
        """The entry of the node that says all this."""
        return next(each for each in self.sites if each.site == self.site)


class PullHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The last pulls of a node, oldest first; ``limit`` is how many are kept."""

    group: str
    site: str
    pulls: tuple[PullStatus, ...]
    limit: int
    schema: int = SCHEMA


class BookmarkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A bookmark, and the end of its batch: it stands for everything below."""

    name: str
    at: PositionStatus


class BookmarkList(msgspec.Struct, frozen=True, kw_only=True):
    """The bookmarks that a site's ring still holds, oldest first."""

    group: str
    site: str
    bookmarks: tuple[BookmarkStatus, ...]
    schema: int = SCHEMA


class VolumeChangeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A change that the topology asks for; ``prepared`` says of each site what is missing.

    An empty text means that the site has published that it is prepared.
    """

    action: Literal["add", "remove", "grow"]
    id: int
    name: str
    size_bytes: int
    prepared: dict[str, str]

    @property
    def ready(self) -> bool:
        """Whether every site is prepared."""
        return not any(self.prepared.values())


class VolumeListing(msgspec.Struct, frozen=True, kw_only=True):
    """The group's volumes, and what the topology asks to be changed."""

    group: str
    site: str
    volumes: tuple[VolumeStatus, ...]
    changes: tuple[VolumeChangeStatus, ...] = ()
    violations: tuple[str, ...] = ()
    """What the topology asks for and can never be, and why it cannot be read."""
    schema: int = SCHEMA


class VolumeChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the group's volumes that is durable at the primary from ``position`` on."""

    action: str
    name: str
    position: int
    schema: int = SCHEMA


class PromotionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a promotion did, or with ``dry_run`` what stands in its way (reasons by site).

    ``fork`` is where the new epoch begins; ``drained_*`` was taken from other sites before;
    ``missing_records`` are known to be elsewhere and are not here. Only ``nothing_lost`` says that
    no answered write is missing; else hosts are held until an operator confirms.
    """

    group: str
    site: str
    dry_run: bool
    in_the_way: dict[str, str]
    epoch: int
    forced: bool
    fork: int
    head: PositionStatus
    drained_records: int
    drained_bytes: int
    missing_records: int
    nothing_lost: bool
    hosts_held: bool
    upstreams: dict[str, str]
    schema: int = SCHEMA


class HandoverStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A primary's last word: ``to`` may go on from ``at``."""

    group: str
    site: str
    to: str
    at: PositionStatus
    schema: int = SCHEMA


class EpochStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One term of a primary, as codec.history.Epoch; times in nanoseconds since 1970."""

    number: int
    id: str
    site: str
    fork_position: int
    fork_digest: str
    upstreams: dict[str, str]
    at_ns: int
    old_time_ns: int
    forced: bool
    note: str


class HistoryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The epochs that a site knows, oldest first."""

    group: str
    site: str
    epochs: tuple[EpochStatus, ...]
    schema: int = SCHEMA


class JournalMoved(msgspec.Struct, frozen=True, kw_only=True):
    """A journal that was moved: where it is now, and the size of its ring."""

    device: str
    journal_id: str
    ring_bytes: int
    ring_bytes_before: int
    schema: int = SCHEMA


def position_status(point: Point) -> PositionStatus:
    """Return ``point`` as it is stated."""
    return PositionStatus(
        position=point.position,
        digest=point.digest.hex(),
        sequence=point.sequence,
        time_ns=point.time_ns,
    )


def pull_status(note: PullNote | None) -> PullStatus | None:
    """Return the pull that a page notes."""
    if note is None:
        return None
    return PullStatus(
        source=note.source,
        at_ns=note.at_ns,
        records=note.records,
        bytes=note.bytes,
        interval_seconds=note.interval_seconds,
        reason=note.reason,
    )


def lag_between(ahead: Point, behind: Point) -> Lag:
    """Return how far ``behind`` is behind; nothing is less than 0.

    Seconds are between the two batches' times, so an idle primary adds none; a site that has
    received nothing has no time to compare, and its lag counts from the log's start as 0 s.
    """
    if behind.position >= ahead.position:
        return Lag(records=0, bytes=0, seconds=0.0)
    nanoseconds = ahead.time_ns - behind.time_ns if behind.time_ns else 0
    return Lag(
        records=max(0, ahead.sequence - behind.sequence),
        bytes=ahead.position - behind.position,
        seconds=max(0, nanoseconds) / 1e9,
    )


def used_bytes(body: OwnerBody, others: Iterable[str]) -> int:
    """Return the bytes of the ring that its owner or any of ``others`` still needs."""
    received = [body.peers[site].received[0] if site in body.peers else 0 for site in others]
    floor = max(body.reclaim, min([body.restored.position, *received]))
    return min(body.ring_size, max(0, body.head.position - floor))


def site_from_page(
    body: OwnerBody, others: Sequence[str], primary_head: Point | None, *, own: bool = False
) -> SiteStatus:
    """Return what a page says of its site; ``others`` are the group's other sites.

    ``primary_head`` is the furthest known end of the primary's log, None if nobody knows it.
    ``own`` is for the node's own page while no daemon runs.
    """
    role: Literal["primary", "secondary"] = "primary" if body.role == "primary" else "secondary"
    state = "serving" if role == "primary" else "following"
    reason = ""
    if own:
        state, reason = "stopped", "no replicatord answers; this is what the journal's page says"
    if body.catalog is None:
        state, reason = "unattached", "its journal has not met its source yet"
    if body.marks:
        state, reason = sorted(body.marks.items())[0]
    return SiteStatus(
        site=body.site,
        view="page",
        role=role,
        state=state,
        reason=reason,
        upstream=body.upstream,
        received=position_status(body.head),
        restored=position_status(body.restored),
        lag=lag_between(primary_head, body.head) if primary_head else None,
        restore_lag=lag_between(primary_head, body.restored) if primary_head else None,
        ring_bytes=body.ring_size,
        used_bytes=used_bytes(body, others),
        pull=pull_status(body.pull),
        differing_bytes=differing_bytes(body),
        writer=body.writer,
        gap=gap_status(body),
        marks=dict(body.marks),
    )


def differing_bytes(body: OwnerBody) -> int:
    """Return how much of the owner's volumes is known to differ from the primary's."""
    return sum(piece.length for piece in body.verified.differs) + body.verified.unlisted_bytes


def verified_site(body: OwnerBody, names: Mapping[int, str], view: View) -> VerifiedSite:
    """Return what a page says of its site's volumes; ``names`` are volumes' names by id."""
    note = body.verified
    return VerifiedSite(
        site=body.site,
        view=view,
        primary=body.role == "primary",
        differs=tuple(
            DifferingStatus(
                volume=names.get(piece.volume_id, f"id {piece.volume_id}"),
                volume_id=piece.volume_id,
                offset=piece.offset,
                length=piece.length,
                position=piece.position,
            )
            for piece in note.differs
        ),
        unlisted_bytes=note.unlisted_bytes,
        found=note.found,
        repair_asked=bool(note.repair),
    )


def verify_run_status(run: VerifyRun, volumes: Sequence[VolumeEntry]) -> VerifyRunStatus:
    """Return how far a primary's verification is; ``volumes`` are the group's."""
    done = total = 0
    name = ""
    for entry in volumes:
        if run.only not in (0, entry.id):
            continue
        total += entry.size_bytes
        if run.state == "finished" or entry.id < run.volume_id:
            done += entry.size_bytes
        elif entry.id == run.volume_id:
            done += min(run.offset, entry.size_bytes)
            name = entry.name
    return VerifyRunStatus(
        state=run.state,
        rate=run.rate,
        repeat=run.repeat,
        number=run.number,
        volume=name,
        done_bytes=done,
        total_bytes=total,
        began=run.began,
        began_ns=run.began_ns,
        ended=run.ended,
        ended_ns=run.ended_ns,
    )


def gap_status(body: OwnerBody) -> GapStatus | None:
    """Return what a page says of its site's gap."""
    gap = body.gap
    if gap is None:
        return None
    return GapStatus(
        reason=body.marks.get("inconsistent", ""),
        since_ns=gap.since_ns,
        missing_bytes=gap.missing_bytes,
        begun=bool(gap.begun),
    )


def is_silent(site: SiteStatus) -> bool:
    """Say whether a peer that lags has published no page for longer than its interval allows.

    A site that has all there is has nothing to publish, so silence alone proves nothing.
    """
    if site.unchanged_seconds is None or site.lag is None or not site.lag.bytes:
        return False
    interval = site.pull.interval_seconds if site.pull else 0.0
    return site.unchanged_seconds > max(SILENT_SECONDS, SILENT_INTERVALS * interval)


def unseen_site(site: str, reason: str) -> SiteStatus:
    """Return the entry of a site whose page cannot be read, with why."""
    return SiteStatus(site=site, view="none", role="unknown", state="unreachable", reason=reason)
