"""replicatorctl verify: compare every site's volumes with the primary's, through the log."""

from __future__ import annotations

import argparse
import sys

from replicator.cli.node import add_group_flag, add_topology_flags, find_node, wants_json
from replicator.cli.offline import read_verify_status
from replicator.cli.output import format_time, print_json, print_table
from replicator.daemon.control import ask
from replicator.errors import DaemonUnreachable, UsageError, VolumesDiffer
from replicator.status import VerifiedSite, VerifyRunStatus, VerifyStatus
from replicator.units import format_duration, format_rate, format_size, parse_rate

DEFAULT_RATE = "80Mbit"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``verify`` with start, stop, status, report and repair."""
    verify = commands.add_parser("verify", help="compare all sites' volumes with the primary's")
    inside = verify.add_subparsers(metavar="COMMAND", required=True)
    start = inside.add_parser("start", help="begin a pass over the volumes (at the primary)")
    start.add_argument(
        "--rate",
        default=DEFAULT_RATE,
        help="how much of the volumes is read a second (default %(default)s)",
    )
    start.add_argument("--volume", metavar="NAME", help="one volume only")
    start.add_argument("--repeat", action="store_true", help="begin again after each pass")
    start.set_defaults(run=run_start)
    stop = inside.add_parser("stop", help="end the pass (at the primary)")
    stop.set_defaults(run=run_stop)
    status = inside.add_parser("status", help="show how far it is, and what each site found")
    status.set_defaults(run=run_status)
    report = inside.add_parser("report", help="name what differs; exit 21 if anything does")
    report.set_defaults(run=run_report)
    repair = inside.add_parser("repair", help="have sent again what differs at this site")
    repair.add_argument(
        "--force", action="store_true", help="although another site differs at the same place"
    )
    repair.set_defaults(run=run_repair)
    for parser in (start, stop, status, report, repair):
        add_topology_flags(parser)
        add_group_flag(parser)


def run_start(arguments: argparse.Namespace) -> int:
    """Begin a pass; a restart of the daemon goes on with it."""
    try:
        rate = parse_rate(arguments.rate)
    except ValueError as error:
        raise UsageError(f"--rate: {error}") from error
    order: dict[str, object] = {"rate": rate, "repeat": arguments.repeat}
    if arguments.volume is not None:
        order["volume"] = arguments.volume
    return _told(arguments, "verify-start", order)


def run_stop(arguments: argparse.Namespace) -> int:
    """End the pass where it is; no restart takes it up again."""
    return _told(arguments, "verify-stop", {})


def run_repair(arguments: argparse.Namespace) -> int:
    """Ask the primary, in this site's page, to send again what differs here."""
    return _told(arguments, "verify-repair", {"force": arguments.force})


def run_status(arguments: argparse.Namespace) -> int:
    """Print how far the verification is and what each site has found."""
    return _print(arguments, _fetch(arguments))


def run_report(arguments: argparse.Namespace) -> int:
    """Print each piece that is known to differ; VolumesDiffer's exit code if there is one."""
    status = _fetch(arguments)
    differing = [site for site in status.sites if site.differing_bytes]
    if wants_json(arguments):
        print_json(status)
    elif differing:
        rows = [
            [site.site, each.volume, str(each.offset), str(each.length), str(each.position)]
            for site in differing
            for each in site.differs
        ]
        print_table(("SITE", "VOLUME", "OFFSET", "LENGTH", "SHOWN AT"), rows)
        for site in differing:
            if site.unlisted_bytes:
                print(f"{site.site}: and {format_size(site.unlisted_bytes)} more, not listed")
    else:
        print(f"group {status.group}: {_nothing_differs(status)}")
    for site in status.sites:
        if site.reason and not wants_json(arguments):
            print(f"{site.site}: nothing is known: {site.reason}", file=sys.stderr)
    return VolumesDiffer.exit_code if differing else 0


def _nothing_differs(status: VerifyStatus) -> str:
    run = status.run
    if run is None:
        return (
            "nothing is known to differ, and no verification ever ran: replicatorctl verify start"
        )
    if not run.ended:
        return "nothing is known to differ; the first pass has not ended yet"
    return f"nothing is known to differ; the last pass ended {format_time(run.ended_ns)}"


def _told(arguments: argparse.Namespace, command: str, order: dict[str, object]) -> int:
    node = find_node(arguments)
    return _print(arguments, ask(node.control_socket, command, order, kind=VerifyStatus))


def _fetch(arguments: argparse.Namespace) -> VerifyStatus:
    node = find_node(arguments)
    try:
        return ask(node.control_socket, "verify-status", kind=VerifyStatus)
    except DaemonUnreachable:
        return read_verify_status(node)


def _print(arguments: argparse.Namespace, status: VerifyStatus) -> int:
    if wants_json(arguments):
        print_json(status)
        return 0
    print(f"group {status.group}, seen from {status.site}: {_run_text(status.run)}")
    print()
    rows = [_row(site) for site in status.sites]
    print_table(("SITE", "COMPARED", "PASSED OVER", "DIFFERS", "REPAIR"), rows)
    return 0


def _run_text(run: VerifyRunStatus | None) -> str:
    if run is None:
        return "no verification ever ran"
    reason = f" ({run.reason})" if run.reason else ""
    again = ", again and again" if run.repeat else ""
    text = f"pass {run.number} {run.state}{reason} at {format_rate(run.rate)}{again}"
    if run.state == "finished":
        text += f", {format_size(run.total_bytes)}, ended {format_time(run.ended_ns)}"
    else:
        done = f"{format_size(run.done_bytes)} of {format_size(run.total_bytes)}"
        text += f", {done}"
        if run.state != "stopped":
            text += f", {format_duration(run.remaining_seconds)} left"
    if run.unreadable_bytes:
        text += f"; {format_size(run.unreadable_bytes)} cannot be read at the primary"
    return text


def _row(site: VerifiedSite) -> list[str]:
    if site.view == "none":
        return [site.site, "", "", f"unknown: {site.reason}", ""]
    if site.primary:
        return [site.site, "", "", "(the others are compared with it)", ""]
    known = site.verified_bytes is not None and site.skipped_bytes is not None
    return [
        site.site,
        format_size(site.verified_bytes or 0) if known else "",
        format_size(site.skipped_bytes or 0) if known else "",
        format_size(site.differing_bytes) if site.differing_bytes else "nothing",
        "asked" if site.repair_asked else "",
    ]
