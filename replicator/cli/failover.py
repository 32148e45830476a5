"""replicatorctl promote, demote, history, hosts: changes of role, and who made them."""

from __future__ import annotations

import argparse
import getpass
import os

from replicator.cli.journal import opened_journal
from replicator.cli.node import Node, add_group_flag, add_topology_flags, find_node, wants_json
from replicator.cli.output import format_count, format_time, print_json, print_table
from replicator.codec.history import Epoch
from replicator.daemon.control import ask
from replicator.errors import UsageError
from replicator.journal.survey import Survey
from replicator.status import EpochStatus, HandoverStatus, HistoryStatus, PromotionStatus

_PROMOTE_SECONDS = 300.0
_DEMOTE_SECONDS = 60.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``promote``, ``demote``, ``hosts`` and ``history``."""
    promoting = commands.add_parser("promote", help="make this site the primary")
    promoting.add_argument(
        "--force", action="store_true", help="go on without the sites that --without names"
    )
    promoting.add_argument(
        "--without",
        metavar="SITE",
        action="append",
        default=[],
        help="you state that this site is off or cut from hosts (again for each; with --force)",
    )
    promoting.add_argument("--dry-run", action="store_true", help="say what would happen")
    promoting.set_defaults(run=run_promote)
    demoting = commands.add_parser("demote", help="hand the primary role over: nothing is lost")
    demoting.add_argument("--to", metavar="SITE", required=True, help="who is to go on")
    demoting.set_defaults(run=run_demote)
    hosts = commands.add_parser("hosts", help="let hosts in again after a promotion")
    hosts.add_argument("action", choices=["confirm"], help="they have unmounted or were rebooted")
    hosts.set_defaults(run=run_hosts)
    history = commands.add_parser("history", help="show who was primary, since when and by whom")
    history.set_defaults(run=run_history)
    for parser in (promoting, demoting, hosts, history):
        add_topology_flags(parser)
        add_group_flag(parser)


def _note(what: str) -> str:
    try:
        who = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        who = f"uid {os.getuid()}"
    return f"{what} by {who}"


def run_promote(arguments: argparse.Namespace) -> int:
    """Promote this site and print what came of it: the site is active on return."""
    if arguments.without and not arguments.force:
        raise UsageError("--without states that a site is off or cut from hosts: add --force")
    if arguments.force and not arguments.without:
        raise UsageError("--force: name the sites that are off or cut from hosts: --without SITE")
    node = find_node(arguments)
    done = ask(
        node.control_socket,
        "promote",
        {
            "without": arguments.without,
            "note": _note("promoted"),
            "dry_run": arguments.dry_run,
        },
        kind=PromotionStatus,
        timeout_seconds=_PROMOTE_SECONDS,
    )
    if wants_json(arguments):
        print_json(done)
    elif done.dry_run:
        _print_dry_run(done)
    else:
        _print_promoted(done)
    return 14 if done.in_the_way else 0


def _print_dry_run(done: PromotionStatus) -> None:
    print(f"group {done.group}: would promote site {done.site} at position {done.head.position}")
    for site, why in sorted(done.in_the_way.items()):
        print(f"in the way: site {site} {why}")
    known = format_count(done.missing_records, "record")
    print(f"known to be elsewhere and to be taken first: {known}")


def _print_promoted(done: PromotionStatus) -> None:
    forced = ", forced" if done.forced else ""
    print(
        f"group {done.group}: site {done.site} is primary of epoch {done.epoch}{forced}, from "
        f"position {done.fork} on"
    )
    taken = format_count(done.drained_records, "record")
    print(f"taken from other sites: {taken}, {done.drained_bytes} bytes")
    if done.nothing_lost:
        print("lost: nothing: the last primary's log ends where this one began")
    else:
        missing = format_count(done.missing_records, "record")
        print(f"lost: {missing} known of; what the last primary answered later is not known")
    print("reads from: " + ", ".join(f"{s} from {u}" for s, u in sorted(done.upstreams.items())))
    if done.hosts_held:
        print("hosts wait until they have begun anew: then replicatorctl hosts confirm")


def run_demote(arguments: argparse.Namespace) -> int:
    """Hand over: nothing is answered to hosts here any more on return."""
    node = find_node(arguments)
    done = ask(
        node.control_socket,
        "demote",
        {"to": arguments.to},
        kind=HandoverStatus,
        timeout_seconds=_DEMOTE_SECONDS,
    )
    if wants_json(arguments):
        print_json(done)
        return 0
    print(
        f"group {done.group}: site {done.site} has handed over to {done.to} at position "
        f"{done.at.position}; now at {done.to}: replicatorctl promote"
    )
    return 0


def run_hosts(arguments: argparse.Namespace) -> int:
    """Confirm that hosts began anew: they are served on return."""
    node = find_node(arguments)
    why = ask(node.control_socket, "confirm-hosts", {"note": _note("confirmed")}, kind=str)
    print(f"group {node.group.name} at site {node.site.name}: hosts are served; they waited: {why}")
    return 0


def run_history(arguments: argparse.Namespace) -> int:
    """Print the epochs that this site's journal knows, which a daemon may have open."""
    node = find_node(arguments)
    with opened_journal(node.journal_path, writable=False) as device:
        catalog = Survey(device).catalog
    epochs = catalog.history.epochs if catalog else ()
    if wants_json(arguments):
        print_json(_history(node, epochs))
        return 0
    if not epochs:
        print(f"group {node.group.name} at site {node.site.name}: it has not met its group yet")
        return 0
    print_table(
        ("EPOCH", "PRIMARY", "FROM POSITION", "SINCE", "BY"),
        [
            [
                str(epoch.number),
                epoch.site,
                str(epoch.fork_position),
                format_time(epoch.at_ns) if epoch.at_ns else "",
                f"{'forced, ' if epoch.forced else ''}{epoch.note}" or "",
            ]
            for epoch in epochs
        ],
    )
    return 0


def _history(node: Node, epochs: tuple[Epoch, ...]) -> HistoryStatus:
    return HistoryStatus(
        group=node.group.name,
        site=node.site.name,
        epochs=tuple(
            EpochStatus(
                number=epoch.number,
                id=epoch.id.hex(),
                site=epoch.site,
                fork_position=epoch.fork_position,
                fork_digest=epoch.fork_digest.hex(),
                upstreams=dict(epoch.upstreams),
                at_ns=epoch.at_ns,
                old_time_ns=epoch.old_time_ns,
                forced=epoch.forced,
                note=epoch.note,
            )
            for epoch in epochs
        ),
    )
