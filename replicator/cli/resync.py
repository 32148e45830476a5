"""replicatorctl resync: who misses what, and how far the resync has come."""

from __future__ import annotations

import argparse

from replicator.cli.node import add_group_flag, add_topology_flags, find_node, wants_json
from replicator.cli.output import print_json, print_table
from replicator.daemon.control import ask
from replicator.status import GroupStatus, ResyncStatus, SiteStatus
from replicator.units import format_duration, format_size


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``resync`` with status."""
    resync = commands.add_parser("resync", help="who misses what, and how far its resync is")
    inside = resync.add_subparsers(metavar="COMMAND", required=True)
    showing = inside.add_parser("status", help="show sites left behind and inconsistent ones")
    showing.set_defaults(run=run_status)
    add_topology_flags(showing)
    add_group_flag(showing)


def run_status(arguments: argparse.Namespace) -> int:
    """Print what this node knows; progress is known at the primary alone."""
    node = find_node(arguments)
    status = ask(node.control_socket, "status", kind=GroupStatus)
    if wants_json(arguments):
        sites = {
            site.site: {
                "inconsistent": site.gap is not None,
                "gap": site.gap,
                "left_behind": site.left_behind,
            }
            for site in status.sites
        }
        print_json({"group": status.group, "sites": sites, "resync": status.resync})
        return 0
    print_table(("SITE", "STATE", "MISSES", "WHY"), [_row(site, status) for site in status.sites])
    print(_progress(status.resync) if status.own.role == "primary" else _elsewhere(status))
    return 0


def _row(site: SiteStatus, status: GroupStatus) -> list[str]:
    if site.gap is not None:
        why = f"{site.gap.reason}; {'copies arrive' if site.gap.begun else 'waits for the primary'}"
        return [site.site, "inconsistent", format_size(site.gap.missing_bytes), why]
    behind = max((each.left_behind.get(site.site, 0) for each in status.sites), default=0)
    if behind:
        return [site.site, "left behind", format_size(behind), "it has not come back yet"]
    return [site.site, "complete", "-", "-"]


def _progress(resync: ResyncStatus | None) -> str:
    if resync is None:
        return "no resync is under way"
    left = format_duration(resync.seconds_left) if resync.seconds_left is not None else "unknown"
    held = ", held: the journal is nearly full" if resync.held else ""
    return (
        f"resync for {', '.join(resync.sites)}: {resync.phase}, "
        f"{format_size(resync.done_bytes)} of {format_size(resync.total_bytes)}, "
        f"{format_size(resync.sent_bytes)} sent, time left {left}{held}"
    )


def _elsewhere(status: GroupStatus) -> str:
    primary = next((site.site for site in status.sites if site.role == "primary"), "the primary")
    return f"progress is known at {primary}: replicatorctl resync status --site {primary}"
