"""replicatorctl pulls: the last pulls of this node, and why they came when they did."""

from __future__ import annotations

import argparse

from replicator.cli.node import add_group_flag, add_topology_flags, find_node, wants_json
from replicator.cli.output import format_time, print_json, print_table
from replicator.daemon.control import ask
from replicator.status import PullHistory, PullStatus
from replicator.units import format_duration, format_rate, format_size

_EXPLAINED = (
    "AT",
    "FROM",
    "RECORDS",
    "TRAFFIC",
    "OWN JOURNAL",
    "LOAD",
    "SOURCE",
    "LAG",
    "PROPOSED",
    "NEXT AFTER",
    "BECAUSE",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``pulls``."""
    parser = commands.add_parser("pulls", help="show the last pulls and why they came then")
    add_topology_flags(parser)
    add_group_flag(parser)
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show what each pull measured, what each input proposed, and which one won",
    )
    parser.set_defaults(run=run_pulls)


def run_pulls(arguments: argparse.Namespace) -> int:
    """Print the pulls that the daemon remembers, oldest first."""
    node = find_node(arguments)
    history = ask(node.control_socket, "pulls", kind=PullHistory)
    if wants_json(arguments):
        print_json(history)
        return 0
    if not history.pulls:
        print(f"group {history.group} at site {history.site}: no pull yet")
        return 0
    if arguments.explain:
        print_table(_EXPLAINED, [_explain(pull) for pull in history.pulls])
        return 0
    rows = [
        [
            format_time(pull.at_ns),
            pull.source,
            str(pull.records),
            format_size(pull.bytes),
            format_duration(pull.interval_seconds),
            pull.reason,
        ]
        for pull in history.pulls
    ]
    print_table(("AT", "FROM", "RECORDS", "BYTES", "NEXT AFTER", "BECAUSE"), rows)
    return 0


def _explain(pull: PullStatus) -> list[str]:
    measured = pull.measured
    proposed = [f"{name} {format_duration(s)}" for name, s in pull.proposals.items()]
    if measured is None:
        inputs = [""] * 5
    else:
        inputs = [
            format_rate(measured.traffic),
            "full" if measured.full else f"{measured.used:.0%}",
            f"{measured.load:.0%}",
            f"{measured.source:.0%}",
            format_duration(measured.lag_seconds),
        ]
    return [
        format_time(pull.at_ns),
        pull.source,
        str(pull.records),
        *inputs,
        ", ".join(proposed),
        format_duration(pull.interval_seconds),
        pull.reason,
    ]
