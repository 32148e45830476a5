"""replicatorctl restore: hold this site's restore, let it go on, stop it at a point."""

from __future__ import annotations

import argparse

from replicator.cli.node import add_group_flag, add_topology_flags, find_node, wants_json
from replicator.cli.output import print_json
from replicator.cli.restore_to import add_to_parser
from replicator.codec.points import EXPECTED
from replicator.daemon.control import ask
from replicator.status import RestoreStatus
from replicator.units import format_size


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``restore`` with status, pause, resume, stop and to."""
    restore = commands.add_parser("restore", help="hold this site's restore, or let it go on")
    inside = restore.add_subparsers(metavar="COMMAND", required=True)
    texts = {
        "status": "say how restore is getting on",
        "pause": "apply nothing more, also after a restart, until resume",
        "resume": "go on, and forget a stop",
    }
    parsers = [inside.add_parser(name, help=text) for name, text in texts.items()]
    for name, parser in zip(texts, parsers, strict=True):
        parser.set_defaults(run=run_command, command=f"restore-{name}")
    stopping = inside.add_parser("stop", help="go on up to a point and no further")
    stopping.add_argument("--at", metavar="POINT", required=True, help=EXPECTED)
    stopping.set_defaults(run=run_command, command="restore-stop")
    for parser in (*parsers, stopping, add_to_parser(inside)):
        add_topology_flags(parser)
        add_group_flag(parser)


def run_command(arguments: argparse.Namespace) -> int:
    """Send the command; what it sets is durable on return."""
    node = find_node(arguments)
    given = {"at": arguments.at} if arguments.command == "restore-stop" else {}
    status = ask(node.control_socket, arguments.command, given, kind=RestoreStatus)
    if wants_json(arguments):
        print_json(status)
        return 0
    told = f", told to stop at {status.stop_at}" if status.stop_at else ""
    because = f" ({status.reason})" if status.reason else ""
    print(
        f"restore of group {node.group.name} at site {node.site.name}: {status.state}{because}"
        f"{told}; volumes at position {status.applied}, {format_size(status.behind_bytes)} behind "
        "the own journal"
    )
    return 0
