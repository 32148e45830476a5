"""Metrics for Prometheus, made from what ``status`` says: pure, one family a line of METRICS.

The exporter is a process of its own (``replicatorctl metrics``): the daemon keeps no network
socket and loads no exporter. docs/reference/metrics.md says when to be alarmed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from replicator.status import GroupStatus, SiteStatus

PREFIX = "replicator_"
STATES = ("serving", "following", "starting", "unattached", "halted", "stopped", "unreachable")
"""States that have a series of their own at 0; another state (a mark) appears when it is true."""

RESTORE_STATES = ("running", "slowed", "delayed", "paused", "stopped")
"""As STATES, for restore."""

_GROUP = ("group",)
_SITE = ("group", "site", "view")


class Described(NamedTuple):
    """One metric: its name without prefix, kind, labels and meaning."""

    name: str
    kind: Literal["gauge", "counter"]
    labels: tuple[str, ...]
    meaning: str


METRICS: tuple[Described, ...] = (
    Described("daemon_up", "gauge", _GROUP, "Whether the group's replicatord answers here."),
    Described("daemon_uptime_seconds", "gauge", _GROUP, "For how long it runs."),
    Described("daemon_memory_bytes", "gauge", _GROUP, "Its anonymous memory."),
    Described("site_state", "gauge", (*_SITE, "state"), "1 for the state that the site is in."),
    Described("site_mark", "gauge", (*_SITE, "mark"), "1 for each durable mark of its page."),
    Described("mover_fault", "gauge", (*_SITE, "mover"), "1 for a mover that does not get on."),
    Described("hosts_held", "gauge", _GROUP, "1 while host writes wait for room in the journal."),
    Described("volume_failed", "gauge", ("group", "volume"), "1 for a volume that has failed."),
    Described("lag_records", "gauge", _SITE, "Records that the site has not received."),
    Described("lag_bytes", "gauge", _SITE, "Bytes of the log that it has not received."),
    Described("lag_seconds", "gauge", _SITE, "The same on the primary's clock."),
    Described("restore_lag_records", "gauge", _SITE, "Records not durable on its volumes."),
    Described("restore_lag_bytes", "gauge", _SITE, "Bytes of the log not durable there."),
    Described("restore_lag_seconds", "gauge", _SITE, "The same on the primary's clock."),
    Described("restore_state", "gauge", (*_SITE, "state"), "1 for how its restore gets on."),
    Described("mismatches", "gauge", _SITE, "Chunks that verify records did not match."),
    Described("rpo_seconds", "gauge", _SITE, "The most lag that the topology wants."),
    Described("page_unchanged_seconds", "gauge", _SITE, "Since its page changed, as seen here."),
    Described("journal_size_bytes", "gauge", _SITE, "Size of its ring."),
    Described("journal_used_bytes", "gauge", _SITE, "What somebody still needs of it."),
    Described("volumes_differing_bytes", "gauge", _SITE, "What differs from the primary's."),
    Described("received_position_bytes", "gauge", _SITE, "End of the log in its journal."),
    Described("restored_position_bytes", "gauge", _SITE, "Its checkpoint."),
    Described("pull_interval_seconds", "gauge", _SITE, "What its last pull decided."),
    Described("pull_age_seconds", "gauge", _GROUP, "Since the last pull here."),
    Described("pull_duration_seconds", "gauge", _GROUP, "How long the last pull here took."),
    Described("pull_winner", "gauge", (*_GROUP, "winner"), "1 for what decided the interval."),
    Described("pull_proposal_seconds", "gauge", (*_GROUP, "input"), "What each input proposed."),
    Described(
        "pull_traffic_bytes_per_second", "gauge", _GROUP, "Traffic that the last pull measured."
    ),
    Described("pull_own_journal_ratio", "gauge", _GROUP, "Use of the own journal it measured."),
    Described("pull_load_ratio", "gauge", _GROUP, "Load of this machine that it measured."),
    Described("pull_source_journal_ratio", "gauge", _GROUP, "Use of the source's that it read."),
    Described("pulls_total", "counter", _GROUP, "Pulls since the daemon started."),
    Described("pulled_records_total", "counter", _GROUP, "Records that they brought."),
    Described("pulled_bytes_total", "counter", _GROUP, "Bytes of the log that they brought."),
    Described("link_bytes_total", "counter", _GROUP, "All that was read of the source."),
    Described("committed_batches_total", "counter", _GROUP, "Batches committed here."),
    Described("committed_records_total", "counter", _GROUP, "Records committed here."),
    Described("committed_bytes_total", "counter", _GROUP, "Bytes of hosts committed here."),
    Described("restored_batches_total", "counter", _GROUP, "Batches restored here."),
    Described("restored_records_total", "counter", _GROUP, "Records restored here."),
    Described("restored_bytes_total", "counter", _GROUP, "Bytes of the log restored here."),
)

Sample = tuple[str, tuple[str, ...], float]
"""A metric's name, its label values in order, and the value."""


def families(statuses: Iterable[GroupStatus]) -> list[Metric]:
    """Return every metric of every group, in the order of METRICS; those without a value too."""
    made: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
    for each in METRICS:
        kind = GaugeMetricFamily if each.kind == "gauge" else CounterMetricFamily
        made[each.name] = kind(PREFIX + each.name, each.meaning, labels=each.labels)
    for status in statuses:
        for name, labels, value in samples(status):
            made[name].add_metric(labels, value)
    return list(made.values())


def samples(status: GroupStatus) -> Iterator[Sample]:
    """Yield every value that ``status`` holds."""
    group = (status.group,)
    daemon = status.daemon
    yield "daemon_up", group, float(daemon is not None)
    if daemon is not None:
        yield "daemon_uptime_seconds", group, daemon.uptime_seconds
        yield "daemon_memory_bytes", group, daemon.anonymous_memory_bytes
        yield "hosts_held", group, float(status.own.hosts_held)
        yield from _pull(group, status)
        counted = daemon.counters
        yield "pulls_total", group, counted.pulls
        for name in ("pulled_records", "pulled_bytes", "link_bytes"):
            yield f"{name}_total", group, getattr(counted, name)
        for verb in ("committed", "restored"):
            for noun in ("batches", "records", "bytes"):
                yield f"{verb}_{noun}_total", group, getattr(counted, f"{verb}_{noun}")
    for volume in status.volumes:
        yield "volume_failed", (*group, volume.name), float(volume.state == "failed")
    for site in status.sites:
        view = "own" if site.site == status.site else "page"
        yield from _site((status.group, site.site, view), site)


def _site(labels: tuple[str, ...], site: SiteStatus) -> Iterator[Sample]:
    for state in dict.fromkeys((*STATES, site.state)):
        yield "site_state", (*labels, state), float(state == site.state)
    for mark in site.marks:
        yield "site_mark", (*labels, mark), 1.0
    for mover in site.faults:
        yield "mover_fault", (*labels, mover), 1.0
    for name, lag in (("lag", site.lag), ("restore_lag", site.restore_lag)):
        if lag is not None:
            yield f"{name}_records", labels, lag.records
            yield f"{name}_bytes", labels, lag.bytes
            yield f"{name}_seconds", labels, lag.seconds
    if site.restore is not None:
        for state in dict.fromkeys((*RESTORE_STATES, site.restore.state)):
            yield "restore_state", (*labels, state), float(state == site.restore.state)
        yield "mismatches", labels, site.restore.mismatches
    known = {
        "rpo_seconds": site.rpo_seconds,
        "page_unchanged_seconds": site.unchanged_seconds,
        "journal_size_bytes": site.ring_bytes or None,
        "volumes_differing_bytes": site.differing_bytes,
        "journal_used_bytes": site.used_bytes if site.ring_bytes else None,
        "received_position_bytes": site.received.position if site.received else None,
        "restored_position_bytes": site.restored.position if site.restored else None,
        "pull_interval_seconds": site.pull.interval_seconds if site.pull else None,
    }
    yield from _given(known, labels)


def _pull(group: tuple[str, ...], status: GroupStatus) -> Iterator[Sample]:
    pull = status.own.pull
    if pull is None:
        return
    yield "pull_age_seconds", group, max(0.0, (status.at_ns - pull.at_ns) / 1e9)
    if pull.measured is None:
        return
    yield "pull_duration_seconds", group, pull.seconds
    yield "pull_winner", (*group, pull.winner), 1.0
    for name, seconds in pull.proposals.items():
        yield "pull_proposal_seconds", (*group, name), seconds
    measured = pull.measured
    yield "pull_traffic_bytes_per_second", group, measured.traffic
    yield "pull_own_journal_ratio", group, measured.used
    yield "pull_load_ratio", group, measured.load
    yield "pull_source_journal_ratio", group, measured.source


def _given(values: Mapping[str, float | None], labels: tuple[str, ...]) -> Iterator[Sample]:
    for name, value in values.items():
        if value is not None:
            yield name, labels, value
