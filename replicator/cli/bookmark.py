"""replicatorctl bookmark, bookmarks: name a position of the log, and list the names."""

from __future__ import annotations

import argparse

from replicator.cli.journal import opened_journal
from replicator.cli.node import add_group_flag, add_topology_flags, find_node, wants_json
from replicator.cli.output import format_time, print_json, print_table
from replicator.codec.bookmarks import NAME_RULE, is_bookmark_name
from replicator.daemon.control import ask
from replicator.errors import UsageError
from replicator.journal.bookmarks import find_bookmarks
from replicator.status import BookmarkList, BookmarkStatus, position_status


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``bookmark`` and ``bookmarks``."""
    making = commands.add_parser("bookmark", help="name the current position of the log")
    making.add_argument("name", metavar="NAME", help=NAME_RULE)
    making.set_defaults(run=run_bookmark)
    listing = commands.add_parser("bookmarks", help="list the bookmarks that the journal holds")
    listing.set_defaults(run=run_bookmarks)
    for parser in (making, listing):
        add_topology_flags(parser)
        add_group_flag(parser)


def run_bookmark(arguments: argparse.Namespace) -> int:
    """Journal a bookmark at the primary and print where it is: durable on return."""
    if not is_bookmark_name(arguments.name):
        raise UsageError(f"bad bookmark name {arguments.name!r}, expected {NAME_RULE}")
    node = find_node(arguments)
    made = ask(node.control_socket, "bookmark", {"name": arguments.name}, kind=BookmarkStatus)
    if wants_json(arguments):
        print_json(made)
    else:
        print(
            f"bookmark {made.name} at position {made.at.position}, {format_time(made.at.time_ns)}"
        )
    return 0


def run_bookmarks(arguments: argparse.Namespace) -> int:
    """Walk this site's ring, which a daemon may have, and print the bookmarks, oldest first."""
    node = find_node(arguments)
    with opened_journal(node.journal_path, writable=False) as device:
        found = tuple(
            BookmarkStatus(name=each.name, at=position_status(each.at))
            for each in find_bookmarks(device)
        )
    if wants_json(arguments):
        print_json(BookmarkList(group=node.group.name, site=node.site.name, bookmarks=found))
        return 0
    rows = [[each.name, str(each.at.position), format_time(each.at.time_ns)] for each in found]
    if rows:
        print_table(("BOOKMARK", "POSITION", "LOG TIME"), rows)
    else:
        print(f"group {node.group.name} at site {node.site.name}: its journal holds no bookmark")
    return 0
