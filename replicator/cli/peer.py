"""replicatorctl peer: accept a peer's new journal after its disk was replaced."""

from __future__ import annotations

import argparse

from replicator.cli.node import add_group_flag, add_topology_flags, find_node, wants_json
from replicator.cli.output import print_json
from replicator.daemon.control import ask


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``peer`` with accept."""
    peer = commands.add_parser("peer", help="accept a peer's new journal")
    inside = peer.add_subparsers(metavar="COMMAND", required=True)
    accepting = inside.add_parser("accept", help="forget a peer's old journal: it was replaced")
    accepting.add_argument("peer", metavar="SITE", help="the site whose journal is a new one")
    accepting.set_defaults(run=run_accept)
    add_topology_flags(accepting)
    add_group_flag(accepting)


def run_accept(arguments: argparse.Namespace) -> int:
    """Forget what this site knew of a peer's journal: durable on return."""
    node = find_node(arguments)
    given = {"site": arguments.peer}
    forgotten = ask(node.control_socket, "peer-accept", given, kind=dict[str, str])
    if wants_json(arguments):
        print_json(forgotten)
    elif forgotten["forgotten_journal_id"]:
        print(
            f"{node.site.name} forgets journal {forgotten['forgotten_journal_id']} of "
            f"{arguments.peer} and accepts what it finds there"
        )
    else:
        print(f"{node.site.name} knew no journal of {arguments.peer}: it accepts what it finds")
    return 0
