"""replicatorctl volume: list, add, grow and remove the volumes of a live group."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from replicator.cli.node import Node, add_group_flag, add_topology_flags, find_node, wants_json
from replicator.cli.output import print_json, print_table
from replicator.codec import naming
from replicator.daemon.control import ask
from replicator.errors import NotAJournal, Refused, UsageError
from replicator.journal.journal import read_catalog
from replicator.journal.pages import read_statement
from replicator.seams.filedevice import CachedDevice, DirectDevice
from replicator.status import VolumeChanged, VolumeChangeStatus, VolumeListing
from replicator.units import format_size

_CHANGE_SECONDS = 40.0
_ACTIONS = {
    "add": "take a volume that the topology adds into the group",
    "grow": "let a volume have the larger size that the topology says",
    "remove": "take a volume that the topology has no more out of the group",
}
_CHUNK = 64 << 20


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``volume`` with list, add, grow, remove and blank."""
    volume = commands.add_parser("volume", help="list, add, grow or remove volumes of a live group")
    inside = volume.add_subparsers(metavar="COMMAND", required=True)
    listing = inside.add_parser("list", help="show volumes, changes asked for, and who is ready")
    listing.set_defaults(run=run_list)
    parsers = [listing]
    for action, text in _ACTIONS.items():
        parser = inside.add_parser(action, help=f"{text} (at the primary)")
        parser.set_defaults(run=run_change, action=action)
        parsers.append(parser)
    blank = inside.add_parser("blank", help="erase this site's device of a volume to be added")
    blank.add_argument(
        "--overwrite", metavar="DEVICE", required=True, help="its exact name: all of it is erased"
    )
    blank.set_defaults(run=run_blank)
    parsers.append(blank)
    for parser in parsers:
        if parser is not listing:
            parser.add_argument("name", metavar="NAME", help="the volume's name in the topology")
        add_topology_flags(parser)
        add_group_flag(parser)


def run_list(arguments: argparse.Namespace) -> int:
    """Print the volumes, then each change that the topology asks for and what it waits for."""
    node = find_node(arguments)
    listing = ask(node.control_socket, "volumes", kind=VolumeListing)
    if wants_json(arguments):
        print_json(listing)
        return 0
    rows = [
        [volume.name, str(volume.id), format_size(volume.size_bytes), volume.state, volume.reason]
        for volume in listing.volumes
    ]
    print_table(("VOLUME", "ID", "SIZE", "STATE", "REASON"), rows)
    for violation in listing.violations:
        print(f"the topology cannot be followed: {violation}")
    for change in listing.changes:
        _print_change(change)
    return 0


def _print_change(change: VolumeChangeStatus) -> None:
    size = format_size(change.size_bytes)
    print(f"the topology asks to {change.action} {change.name} (id {change.id}, {size}):")
    for site, why in change.prepared.items():
        print(f"  {site}: {why or 'prepared'}")
    if change.ready:
        print(f"  next, at the primary: replicatorctl volume {change.action} {change.name}")


def run_change(arguments: argparse.Namespace) -> int:
    """Ask the daemon at the primary for the change; it refuses with what is missing."""
    node = find_node(arguments)
    changed = ask(
        node.control_socket,
        "volume-change",
        {"action": arguments.action, "name": arguments.name},
        kind=VolumeChanged,
        timeout_seconds=_CHANGE_SECONDS,
    )
    if wants_json(arguments):
        print_json(changed)
        return 0
    done = {"add": "added", "grow": "grown", "remove": "removed"}[changed.action]
    print(f"volume {changed.name}: {done} at position {changed.position} of the log")
    if node.site.devices.kind == "lvm":
        print("next, at every site: replicatorctl target plan, then target apply")
    return 0


def run_blank(arguments: argparse.Namespace) -> int:
    """Zero the device of a volume that is in the topology and not in the group yet."""
    node = find_node(arguments)
    entry = node.group.volume(arguments.name)
    path = naming.volume_path(node.site, node.group.name, entry.name)
    if arguments.overwrite != path:
        raise UsageError(f"--overwrite names {arguments.overwrite!r}, the volume is {path!r}")
    if entry.name in _known_volumes(node):
        raise Refused(f"{path}: volume {entry.name} is in the group already; nothing was erased")
    with contextlib.closing(CachedDevice(Path(path))) as device:
        for at in range(0, device.size_bytes, _CHUNK):
            device.zero(at, min(_CHUNK, device.size_bytes - at))
        device.flush()
        print(f"{path}: {format_size(device.size_bytes)} erased")
    return 0


def _known_volumes(node: Node) -> set[str]:
    """Return the volumes of the catalog here; a journal that has none yet may get any of them."""
    with contextlib.closing(DirectDevice(Path(node.journal_path), writable=False)) as device:
        catalog = read_catalog(device, read_statement(device).newer)
    if catalog is None:
        raise NotAJournal(
            f"{node.journal_path}: has not met its source yet, so it is not known which volumes "
            "the group has; nothing was erased"
        )
    return {entry.name for entry in catalog.volumes}
