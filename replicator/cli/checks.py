"""Named checks of a group, for ``replicatorctl check`` and monitoring. Pure: a status in, verdicts
out."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

import msgspec

from replicator.cli.output import format_lag
from replicator.status import GroupStatus, Lag, SiteStatus, is_silent
from replicator.units import format_duration, format_size

JOURNAL_WARNING = 0.8
"""Part of the ring in use at which the design calls for a warning (design: journal full)."""
JOURNAL_FAILED = 0.95
LATE_PULLS = 3
"""Intervals (at least _SHORTEST_LATE_SECONDS) without a pull before it is called late."""
_SHORTEST_LATE_SECONDS = 10.0
_CLOCK_WARNING_SECONDS = 5.0


class Verdict(IntEnum):
    """How a check ended; the worst one is the exit code, as monitoring plugins have it."""

    OK = 0
    WARNING = 1
    FAILED = 2


class Check(msgspec.Struct, frozen=True):
    """One named check: ``text`` is what was found, ``hint`` what to do about it."""

    name: str
    verdict: Verdict
    text: str
    hint: str = ""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """From which lag on a site is late, seconds."""

    warning_seconds: float = 60.0
    failed_seconds: float = 600.0


def check_group(status: GroupStatus, unreachable: str, bounds: Bounds) -> list[Check]:
    """Return every check; ``unreachable`` says why no daemon answered (empty if one did)."""
    return [
        _check_daemon(status, unreachable),
        _check_state(status.own),
        *_check_peers(status),
        *_check_lags(status, bounds),
        *_check_restore(status.own),
        *_check_journal(status.own),
        *_check_link(status.own),
        *_check_pull(status),
        *_check_volumes(status),
        *_check_verified(status),
        *_check_clock(status),
    ]


def worst(checks: list[Check]) -> Verdict:
    """Return the worst verdict."""
    return max((check.verdict for check in checks), default=Verdict.OK)


def _check_daemon(status: GroupStatus, unreachable: str) -> Check:
    if unreachable or status.daemon is None:
        hint = f"systemctl status replicatord@{status.group}"
        return Check("daemon", Verdict.FAILED, unreachable or "no replicatord answers", hint)
    return Check("daemon", Verdict.OK, f"pid {status.daemon.pid} answers")


def _check_state(own: SiteStatus) -> Check:
    text = f"{own.state}: {own.reason}" if own.reason else own.state
    if own.state in ("serving", "following"):
        return Check("state", Verdict.OK, text)
    if own.state == "sealed":
        hint = "its readers drain it to there; then one of them can be promoted"
        return Check("state", Verdict.WARNING, text, hint)
    if own.state in ("starting", "unattached"):
        return Check("state", Verdict.WARNING, text, "wait for the first contact with the source")
    return Check("state", Verdict.FAILED, text, "read the reason; look at the daemon's log")


def _check_peers(status: GroupStatus) -> Iterator[Check]:
    upstream = status.own.upstream
    for site in status.sites:
        if site.site == status.site:
            continue
        name = f"peer {site.site}"
        if is_silent(site):
            text = f"no new page for {format_duration(site.unchanged_seconds or 0.0)}, and it lags"
            yield Check(name, Verdict.WARNING, text, "look at replicatorctl check at that site")
            continue
        if site.view != "none" and site.state != "unreachable":
            marked = "; ".join(f"{mark}: {reason}" for mark, reason in sorted(site.marks.items()))
            verdict = Verdict.WARNING if marked else Verdict.OK
            yield Check(name, verdict, marked or "its page can be read")
            continue
        verdict = Verdict.FAILED if site.site == upstream else Verdict.WARNING
        yield Check(name, verdict, site.reason, "look at the link and the iSCSI session to it")


def _check_lags(status: GroupStatus, bounds: Bounds) -> Iterator[Check]:
    """At the primary every other site is judged, elsewhere only the own one."""
    for site in status.sites:
        if site.role == "primary" or site.view == "none":
            continue
        if status.own.role != "primary" and site.site != status.site:
            continue
        yield _check_rpo(site) or _check_lag(f"lag {site.site}", site.lag, bounds)
        yield _check_lag(f"restore lag {site.site}", site.restore_lag, bounds)


def _check_rpo(site: SiteStatus) -> Check | None:
    """Return a failure when the site lags more than the topology wants, else None."""
    if site.rpo_seconds is None or site.lag is None or site.lag.seconds <= site.rpo_seconds:
        return None
    text = f"{format_lag(site.lag)}, its rpo is {format_duration(site.rpo_seconds)}"
    hint = f"replicatorctl pulls --explain at {site.site} says what holds it back"
    return Check(f"lag {site.site}", Verdict.FAILED, text, hint)


def _check_lag(name: str, lag: Lag | None, bounds: Bounds) -> Check:
    if lag is None:
        text = "unknown: no page of the primary can be read"
        return Check(name, Verdict.WARNING, text, "look at the link to the primary")
    text = format_lag(lag)
    if lag.seconds >= bounds.failed_seconds:
        return Check(name, Verdict.FAILED, text, "look at replicatorctl pulls at that site")
    if lag.seconds >= bounds.warning_seconds:
        return Check(name, Verdict.WARNING, text, "look at replicatorctl pulls at that site")
    return Check(name, Verdict.OK, text)


def _check_restore(own: SiteStatus) -> Iterator[Check]:
    """An operator's hold is easily forgotten, and a delay that gives way guards nothing."""
    restore = own.restore
    if restore is None:
        return
    text = f"{restore.state} {restore.reason}" if restore.reason else restore.state
    if restore.state in ("paused", "stopped"):
        hint = "the own journal keeps all that comes meanwhile, and fills"
        yield Check("restore", Verdict.WARNING, text, hint)
    elif restore.state == "running" and restore.reason:
        hint = "the journal is too small for delay or load limit at this rate of writes"
        yield Check("restore", Verdict.WARNING, text, hint)
    elif restore.stop_at:
        yield Check("restore", Verdict.OK, f"{text}, told to stop at {restore.stop_at}")
    else:
        yield Check("restore", Verdict.OK, text)


def _check_journal(own: SiteStatus) -> Iterator[Check]:
    if not own.ring_bytes:
        return
    fill = own.used_bytes / own.ring_bytes
    text = f"{100 * fill:.0f} % of {format_size(own.ring_bytes)} in use"
    hint = "see which site lags in replicatorctl status; when full, hosts wait"
    if own.hosts_held:
        yield Check("journal", Verdict.FAILED, f"full, hosts are held: {text}", hint)
    elif fill >= JOURNAL_FAILED:
        yield Check("journal", Verdict.FAILED, text, hint)
    elif fill >= JOURNAL_WARNING:
        yield Check("journal", Verdict.WARNING, text, hint)
    else:
        yield Check("journal", Verdict.OK, text)


def _check_link(own: SiteStatus) -> Iterator[Check]:
    """The sync link that begins here: in sync, held, or degraded with what is missing."""
    link = own.link
    if link is None:
        return
    name, ago = f"link {link.site}", format_duration(link.since_seconds)
    if link.held:
        hint = f"is {link.site} up, and its replicatord? see the runbook near-site-gone"
        text = f"hosts are held for {ago}: {link.reason}"
        yield Check(name, Verdict.FAILED, text, hint)
    elif link.degraded:
        hint = "the near site is brought up when it can be written; see the runbook link-cut"
        missing = f"{format_size(link.behind_bytes)} missing there"
        text = f"degraded, {link.state} for {ago}, {missing}: {link.reason}"
        yield Check(name, Verdict.WARNING, text, hint)
    elif link.state != "synced":
        yield Check(name, Verdict.WARNING, f"{link.state} for {ago}: {link.reason}")
    else:
        yield Check(name, Verdict.OK, f"in sync for {ago} ({link.policy})")


def _check_pull(status: GroupStatus) -> Iterator[Check]:
    own = status.own
    if own.role != "secondary" or own.state == "unattached" or own.writer is not None:
        return
    if own.pull is None:
        yield Check("pull", Verdict.WARNING, "none yet", "look at the link to the source")
        return
    ago = max(0.0, (status.at_ns - own.pull.at_ns) / 1e9)
    late = max(_SHORTEST_LATE_SECONDS, LATE_PULLS * own.pull.interval_seconds)
    text = f"{format_duration(ago)} ago from {own.pull.source}"
    if ago > late:
        hint = "look at the link to the source and the daemon's log"
        yield Check("pull", Verdict.WARNING, f"last one {text}", hint)
    else:
        yield Check("pull", Verdict.OK, text)


def _check_volumes(status: GroupStatus) -> Iterator[Check]:
    for volume in status.volumes:
        if volume.state == "failed":
            hint = "the device failed: replace it; hosts get errors for this volume"
            yield Check(f"volume {volume.name}", Verdict.FAILED, volume.reason, hint)
        elif volume.state == "ok":
            yield Check(f"volume {volume.name}", Verdict.OK, format_size(volume.size_bytes))


def _check_verified(status: GroupStatus) -> Iterator[Check]:
    """At the primary every other site is judged, elsewhere only the own one."""
    for site in status.sites:
        if site.role == "primary" or site.view == "none":
            continue
        if status.own.role != "primary" and site.site != status.site:
            continue
        name = f"verified {site.site}"
        if site.differing_bytes:
            text = f"{format_size(site.differing_bytes)} of its volumes differ from the primary's"
            yield Check(name, Verdict.FAILED, text, "replicatorctl verify report names the places")
        else:
            yield Check(name, Verdict.OK, "nothing is known to differ")


def _check_clock(status: GroupStatus) -> Iterator[Check]:
    """Lag is told on the primary's clock; order never depends on a clock, but people do."""
    times = [site.received.time_ns for site in status.sites if site.received]
    ahead = (max(times, default=0) - status.at_ns) / 1e9
    if ahead > _CLOCK_WARNING_SECONDS:
        text = f"this node is {format_duration(ahead)} behind the newest batch"
        yield Check("clock", Verdict.WARNING, text, "look at the time service of both nodes")
    elif times:
        yield Check("clock", Verdict.OK, "not behind the newest batch")
