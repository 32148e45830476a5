"""replicatorctl config check: is the topology one that every node can act on?"""

from __future__ import annotations

import argparse
import sys

from replicator.cli.node import add_topology_flags, given_site, topology_path, wants_json
from replicator.cli.output import print_json
from replicator.codec.topology import Topology
from replicator.errors import ConfigError
from replicator.seams.nodefiles import read_topology


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``config`` with its one command ``check``."""
    config = commands.add_parser("config", help="check the topology file")
    inside = config.add_subparsers(metavar="COMMAND", required=True)
    parser = inside.add_parser("check", help="read the topology and report every violation")
    add_topology_flags(parser)
    parser.set_defaults(run=run_check)


def run_check(arguments: argparse.Namespace) -> int:
    """Print what the topology says, or every violation on a line of its own."""
    path = topology_path(arguments)
    try:
        topology = read_topology(path)
    except ConfigError as error:
        if wants_json(arguments):
            print_json({"file": path, "ok": False, "violations": error.violations})
        else:
            for violation in error.violations:
                print(f"{path}: {violation}", file=sys.stderr)
        return error.exit_code
    if (given := given_site(arguments)) is not None:
        topology.site(given)
    if wants_json(arguments):
        print_json({"file": path, "ok": True, "violations": []})
    else:
        print(f"{path}: OK ({_summary(topology)})")
    return 0


def _summary(topology: Topology) -> str:
    volumes = sum(len(group.volumes) for group in topology.groups)
    counts = {
        "group": len(topology.groups),
        "volume": volumes,
        "site": len(topology.sites),
        "host": len(topology.hosts),
    }
    return ", ".join(f"{n} {noun}{'' if n == 1 else 's'}" for noun, n in counts.items())
