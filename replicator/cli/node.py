"""Which topology, site and group a command is about: from flags, environment or node files."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

from replicator.codec import naming
from replicator.codec.topology import Group, Site, Topology
from replicator.errors import UsageError
from replicator.seams.nodefiles import read_site_name, read_topology


@dataclass(frozen=True, slots=True)
class Node:
    """One group at one site, with the topology that both are from."""

    topology: Topology
    site: Site
    group: Group

    @property
    def control_socket(self) -> str:
        """The socket on which this group's replicatord answers here."""
        return naming.control_socket_path(self.site, self.group.name)

    @property
    def journal_path(self) -> str:
        """The group's journal volume here."""
        return naming.journal_path(self.site, self.group.name)


def add_topology_flags(parser: argparse.ArgumentParser) -> None:
    """Add what every command takes; given before or after the command's name."""
    parser.add_argument(
        "--topology",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help=f"the topology (TOWLINE_TOPOLOGY, else {naming.DEFAULT_TOPOLOGY_PATH})",
    )
    parser.add_argument(
        "--site",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help=f"this node's site (TOWLINE_SITE, else {naming.DEFAULT_SITE_PATH})",
    )
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON for programs"
    )


def add_group_flag(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a group, needed only where the site has several."""
    parser.add_argument("--group", metavar="NAME", help="the group, if the site has several")


def topology_path(arguments: argparse.Namespace) -> str:
    """Return the path of the topology file."""
    given = getattr(arguments, "topology", None) or os.environ.get("TOWLINE_TOPOLOGY")
    return given or naming.DEFAULT_TOPOLOGY_PATH


def wants_json(arguments: argparse.Namespace) -> bool:
    """Say whether --json was given."""
    return bool(getattr(arguments, "json", False))


def site_name(arguments: argparse.Namespace) -> str:
    """Return the name of this node's site."""
    return given_site(arguments) or read_site_name(naming.DEFAULT_SITE_PATH)


def given_site(arguments: argparse.Namespace) -> str | None:
    """Return the site that a flag or the environment names, None if neither does."""
    return getattr(arguments, "site", None) or os.environ.get("TOWLINE_SITE") or None


def find_node(arguments: argparse.Namespace) -> Node:
    """Return the group and site that a command is about.

    Raises ConfigError for a bad topology, UsageError for names that it does not have.
    """
    topology = read_topology(topology_path(arguments))
    site = topology.site(site_name(arguments))
    here = topology.groups_at(site.name)
    names = ", ".join(group.name for group in here) or "none"
    if arguments.group is None:
        if len(here) != 1:
            raise UsageError(f"name a group with --group; the groups at site {site.name}: {names}")
        return Node(topology, site, here[0])
    group = topology.group(arguments.group)
    if group not in here:
        raise UsageError(
            f"group {group.name} has no part at site {site.name}; the groups there: {names}"
        )
    return Node(topology, site, group)
