"""replicatorctl status: the group in one table, from the daemon or from the journals' pages."""

from __future__ import annotations

import argparse

from replicator.cli.node import Node, add_group_flag, add_topology_flags, find_node, wants_json
from replicator.cli.offline import read_group_status
from replicator.cli.output import format_count, format_lag, format_time, print_json, print_table
from replicator.daemon.control import ask
from replicator.errors import DaemonUnreachable
from replicator.status import GroupStatus, PullStatus, SiteStatus, is_silent
from replicator.units import format_duration, format_size

_TITLES = (
    "SITE",
    "ROLE",
    "STATE",
    "POSITION",
    "LAG",
    "RESTORE LAG",
    "JOURNAL",
    "LAST PULL",
    "INTERVAL",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``status``."""
    parser = commands.add_parser("status", help="show the group's sites in one table")
    add_topology_flags(parser)
    add_group_flag(parser)
    parser.set_defaults(run=run_status)


def run_status(arguments: argparse.Namespace) -> int:
    """Print the table (or JSON)."""
    status, _ = fetch_status(find_node(arguments))
    if wants_json(arguments):
        print_json(status)
        return 0
    print(_headline(status))
    print()
    print_table(_TITLES, [_row(site, status) for site in status.sites])
    for remark in _remarks(status):
        print(remark)
    return 0


def fetch_status(node: Node) -> tuple[GroupStatus, str]:
    """Return the group's status and why the daemon did not give it (empty if it did)."""
    try:
        return ask(node.control_socket, "status", kind=GroupStatus), ""
    except DaemonUnreachable as error:
        return read_group_status(node), str(error)


def _headline(status: GroupStatus) -> str:
    epoch = f"epoch {status.epoch}" if status.epoch else "no epoch known"
    seen = f"group {status.group}, {epoch}, seen from {status.site} at {format_time(status.at_ns)}"
    if status.daemon is None:
        return f"{seen}\nno replicatord answers here: this is what the journals' pages say"
    uptime = format_duration(status.daemon.uptime_seconds)
    return f"{seen} by replicatord {status.daemon.version} (pid {status.daemon.pid}, up {uptime})"


def _row(site: SiteStatus, status: GroupStatus) -> list[str]:
    position = site.received
    return [
        f"{site.site} (here)" if site.site == status.site else site.site,
        site.role,
        site.state,
        f"{position.position}:{position.digest[:8]}" if position else "",
        "" if site.role == "primary" or site.lag is None else format_lag(site.lag),
        format_lag(site.restore_lag) if site.restore_lag else "",
        f"{100 * site.used_bytes / site.ring_bytes:.0f} %" if site.ring_bytes else "",
        _pull(site.pull, status.at_ns),
        _interval(site.pull),
    ]


def _pull(pull: PullStatus | None, now_ns: int) -> str:
    if pull is None:
        return ""
    ago = max(0.0, (now_ns - pull.at_ns) / 1e9)
    return f"{format_duration(ago)} ago, {format_count(pull.records, 'record')}"


def _interval(pull: PullStatus | None) -> str:
    return f"{format_duration(pull.interval_seconds)} ({pull.reason})" if pull else ""


def _link(site: SiteStatus) -> str:
    link = site.link
    assert link is not None
    said = "in sync" if link.state == "synced" else link.state
    extra = ", hosts are held" if link.held else ""
    if link.degraded:
        extra = f", degraded: {format_size(link.behind_bytes)} missing at {link.site}"
    why = f": {link.reason}" if link.reason else ""
    since = format_duration(link.since_seconds)
    return f"link {site.site}-{link.site} ({link.policy}): {said} for {since}{extra}{why}"


def _missed_rpo(site: SiteStatus) -> str:
    if site.rpo_seconds is None or site.lag is None or site.lag.seconds <= site.rpo_seconds:
        return ""
    lag, rpo = format_duration(site.lag.seconds), format_duration(site.rpo_seconds)
    why = f"replicatorctl pulls --explain --site {site.site}"
    return f"{site.site}: lags {lag}, more than its rpo of {rpo}; why: {why}"


def _remarks(status: GroupStatus) -> list[str]:
    remarks = [f"{site.site}: {site.state}: {site.reason}" for site in status.sites if site.reason]
    for site in status.sites:
        if is_silent(site) and site.unchanged_seconds is not None:
            quiet = format_duration(site.unchanged_seconds)
            remarks.append(f"{site.site}: silent: no new page for {quiet}, though it lags")
    for site in status.sites:
        if site.differing_bytes:
            size = format_size(site.differing_bytes)
            remarks.append(
                f"{site.site}: {size} of its volumes differ: replicatorctl verify report"
            )
        if missed := _missed_rpo(site):
            remarks.append(missed)
    remarks += [_link(site) for site in status.sites if site.link is not None]
    for volume in status.volumes:
        if volume.state == "failed":
            remarks.append(f"volume {volume.name}: failed: {volume.reason}")
    return ["", *remarks] if remarks else []
