"""What a running site says: the values behind the control commands ``status`` and ``pulls``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from replicator import __version__
from replicator.codec.batch import Point
from replicator.codec.dirty_map import size_of, unpack
from replicator.group.site import KEPT_PULLS, SiteRuntime, known_primary_head
from replicator.journal.journal import INCONSISTENT
from replicator.movers.pull import PullReport
from replicator.movers.restore_pace import RUNNING, describe_stop
from replicator.status import (
    Counters,
    DaemonStatus,
    GroupStatus,
    LinkStatus,
    MeasuredStatus,
    PullHistory,
    PullStatus,
    RestoreStatus,
    ResyncStatus,
    SiteStatus,
    VolumeStatus,
    differing_bytes,
    gap_status,
    lag_between,
    position_status,
    pull_status,
    site_from_page,
    unseen_site,
)


def group_status(runtime: SiteRuntime, front_end: str, started_at: float) -> GroupStatus:
    """Return the group as this node sees it now; reads no device."""
    journal = runtime.journal
    head = primary_head(runtime)
    sites = tuple(
        _own_status(runtime, head)
        if part.name == runtime.part.name
        else _peer_status(runtime, part.name, head)
        for part in runtime.group.sites
    )
    attached = journal.attached
    return GroupStatus(
        group=runtime.group.name,
        site=runtime.part.name,
        at_ns=runtime.clock.realtime_ns(),
        sites=sites,
        volumes=volume_statuses(runtime),
        resync=resync_status(runtime),
        group_id=journal.catalog.group_id.hex() if attached else "",
        epoch=journal.catalog.history.last.number if attached else 0,
        daemon=DaemonStatus(
            pid=os.getpid(),
            version=__version__,
            uptime_seconds=runtime.clock.monotonic() - started_at,
            front_end=front_end,
            anonymous_memory_bytes=_anonymous_memory(),
            counters=_counters(runtime),
        ),
    )


def _counters(runtime: SiteRuntime) -> Counters:
    pulled, restored = runtime.pull.totals if runtime.pull else None, runtime.restore_totals
    committed = runtime.commit.totals if runtime.commit else None
    return Counters(
        pulls=pulled.pulls if pulled else 0,
        pulled_records=pulled.records if pulled else 0,
        pulled_bytes=pulled.bytes if pulled else 0,
        link_bytes=runtime.pull.link_bytes if runtime.pull else 0,
        committed_batches=committed.batches if committed else 0,
        committed_records=committed.records if committed else 0,
        committed_bytes=committed.bytes if committed else 0,
        restored_batches=restored.batches,
        restored_records=restored.records,
        restored_bytes=restored.bytes,
    )


def pull_history(runtime: SiteRuntime) -> PullHistory:
    """Return the last pulls, oldest first."""
    return PullHistory(
        group=runtime.group.name,
        site=runtime.part.name,
        pulls=_pulls(runtime),
        limit=KEPT_PULLS,
    )


def _pulls(runtime: SiteRuntime) -> tuple[PullStatus, ...]:
    return tuple(
        PullStatus(
            source=report.source,
            at_ns=at_ns,
            records=report.records,
            bytes=report.bytes,
            interval_seconds=report.decision.seconds,
            reason=report.decision.reason,
            winner=report.decision.winner,
            seconds=report.seconds,
            measured=_measured(report),
            proposals=dict(report.decision.proposals),
        )
        for at_ns, report in list(runtime.pulls)
    )


def _measured(report: PullReport) -> MeasuredStatus:
    measured = report.measured
    return MeasuredStatus(
        interval_seconds=measured.interval_seconds,
        elapsed_seconds=measured.elapsed_seconds,
        more_waiting=measured.more_waiting,
        traffic=measured.traffic,
        traffic_wait_seconds=measured.traffic_wait_seconds,
        used=measured.used,
        full=measured.full,
        load=measured.load,
        source=measured.source,
        lag_seconds=measured.lag_seconds,
    )


def primary_head(runtime: SiteRuntime) -> Point | None:
    """Return the furthest end of the primary's log that this node knows."""
    if runtime.primary:
        return runtime.journal.head
    known = [runtime.journal.head] if runtime.journal.attached else []
    stated = known_primary_head(runtime.devices.peers.values())
    known += [stated] if stated else []
    return max(known, key=lambda point: point.position, default=None)


def resync_status(runtime: SiteRuntime) -> ResyncStatus | None:
    """Return the resync that is under way at this primary."""
    progress = runtime.resync.now if runtime.resync is not None else None
    if progress is None or runtime.resync is None:
        return None
    elapsed = runtime.clock.monotonic() - progress.phase_since
    left = progress.total_bytes - progress.done_bytes
    rate = progress.done_bytes / elapsed if elapsed > 0 else 0.0
    return ResyncStatus(
        sites=tuple(progress.sites),
        phase=progress.phase,
        total_bytes=progress.total_bytes,
        done_bytes=progress.done_bytes,
        sent_bytes=progress.sent_bytes,
        seconds_left=left / rate if rate else None,
        held=runtime.resync.held,
    )


def restore_status(runtime: SiteRuntime) -> RestoreStatus:
    """Return how the own restore is getting on."""
    restore = runtime.restore
    stop = runtime.journal.body.restore_stop
    pace = restore.pace.now if restore.pace is not None else RUNNING
    return RestoreStatus(
        state=pace.state,
        reason=pace.reason,
        stop_at=describe_stop(stop) if stop is not None and stop.kind != "paused" else "",
        applied=restore.applied.position,
        behind_bytes=max(0, restore.behind_bytes),
        verified_bytes=restore.judge.verified_bytes,
        mismatches=restore.judge.mismatches,
    )


def _own_status(runtime: SiteRuntime, head: Point | None) -> SiteStatus:
    journal = runtime.journal
    body = journal.body
    role: Literal["primary", "secondary"] = "primary" if runtime.primary else "secondary"
    own = journal.head
    pulls = _pulls(runtime)  # an idle site's page is not written again, so it is older
    reason = runtime.reason or "; ".join(
        f"{name}: {why}" for name, why in sorted(runtime.faults.items())
    )
    held = runtime.runner is not None and runtime.runner.held
    if not reason and held:
        reason = "journal full: hosts are held until a reader has received more"
    link = _link_status(runtime)
    if not reason and link is not None and link.held and runtime.runner is not None:
        reason = f"hosts are held: {link.reason}"
    if not reason and runtime.room.report.state != "free":
        reason = f"journal full: {runtime.room.report.state}: {runtime.room.report.reason}"
    gap = gap_status(body)
    state = runtime.state
    if gap is not None and state == "following":
        state, reason = INCONSISTENT, reason or gap.reason
    return SiteStatus(
        site=runtime.part.name,
        view="daemon",
        role=role,
        state=state,
        reason=reason,
        upstream=runtime.part.upstream,
        received=position_status(own),
        restored=position_status(journal.restored),
        lag=lag_between(head, own) if head else None,
        restore_lag=lag_between(head, journal.restored) if head else None,
        ring_bytes=body.ring_size,
        used_bytes=int(journal.used_fraction * body.ring_size),
        hosts_held=held,
        pull=pulls[-1] if pulls else pull_status(body.pull),
        writer=body.writer,
        link=link,
        restore=restore_status(runtime) if role == "secondary" and runtime.part.data else None,
        differing_bytes=differing_bytes(body),
        gap=gap,
        left_behind={
            site: size_of(unpack(each.extents)) for site, each in journal.maps.readers.items()
        },
        marks=dict(body.marks),
        faults=dict(runtime.faults),
        rpo_seconds=runtime.part.rpo_seconds,
    )


def _link_status(runtime: SiteRuntime) -> LinkStatus | None:
    link = runtime.link
    if link is None:
        return None
    return LinkStatus(
        site=link.site,
        policy=link.policy,
        state=link.state.value,
        reason=link.reason,
        since_seconds=runtime.clock.monotonic() - link.changed_at,
        held=link.held,
        degraded=link.degraded,
        behind_bytes=link.behind_bytes,
    )


def _peer_status(runtime: SiteRuntime, site: str, head: Point | None) -> SiteStatus:
    peer = runtime.devices.peers[site]
    fault = runtime.faults.get(f"peer {site}")
    if fault is None and site == runtime.part.upstream:
        fault = runtime.faults.get("pull")
    if peer.statement is None:
        return unseen_site(site, fault or "not read yet")
    others = [part.name for part in runtime.group.sites if part.name != site]
    status = site_from_page(peer.statement.newer.body, others, head)
    seen = runtime.page_seen_at.get(site)
    unchanged = runtime.clock.monotonic() - seen[1] if seen else None
    rpo = runtime.group.site(site).rpo_seconds
    status = msgspec.structs.replace(status, unchanged_seconds=unchanged, rpo_seconds=rpo)
    if fault is not None:
        return msgspec.structs.replace(status, state="unreachable", reason=fault)
    return status


def volume_statuses(runtime: SiteRuntime) -> tuple[VolumeStatus, ...]:
    """Return the group's volumes at this site."""
    failed = runtime.commit.failed_volumes if runtime.commit else {}
    return tuple(
        VolumeStatus(
            id=volume.volume_id,
            name=volume.name,
            size_bytes=volume.size_bytes,
            state="failed" if volume.volume_id in failed else "ok",
            reason=failed.get(volume.volume_id, ""),
        )
        for volume in list(runtime.devices.volumes.values())
    )


def _anonymous_memory() -> int:
    """Return RssAnon of this process in bytes (proc(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0
