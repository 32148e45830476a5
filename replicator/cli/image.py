"""replicatorctl image: keep, list and drop images of this site's volumes."""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path

from replicator.cli.base import applied_at_most, expect_usable
from replicator.cli.node import add_group_flag, add_topology_flags, find_node, wants_json
from replicator.cli.output import format_time, print_json, print_table
from replicator.group.image import Images
from replicator.journal.survey import Survey
from replicator.seams.filedevice import DirectDevice


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``image`` with keep, list and drop."""
    image = commands.add_parser("image", help="keep images from which any later point is reached")
    inside = image.add_subparsers(metavar="COMMAND", required=True)
    keep = inside.add_parser("keep", help="clone every volume of the group at this site")
    keep.set_defaults(run=run_keep)
    listing = inside.add_parser("list", help="show the images and the points they lead to")
    listing.set_defaults(run=run_list)
    drop = inside.add_parser("drop", help="remove an image")
    drop.set_defaults(run=run_drop)
    for parser in (keep, drop):
        parser.add_argument("name", metavar="NAME", help="the image's name")
    for parser in (keep, listing, drop):
        add_topology_flags(parser)
        add_group_flag(parser)


def run_keep(arguments: argparse.Namespace) -> int:
    """Keep an image; the group goes on meanwhile."""
    node = find_node(arguments)
    with contextlib.closing(DirectDevice(Path(node.journal_path), writable=False)) as device:
        survey = Survey(device)
        catalog = expect_usable(node, survey)
        note = Images(node.site, node.group.name).keep(
            arguments.name,
            catalog,
            survey.body.restored,
            lambda: applied_at_most(node, device),
            time.time_ns(),
        )
    if wants_json(arguments):
        print_json(note)
    else:
        print(
            f"image {note.name}: {len(note.volumes)} volumes by {note.how}, leads to every point "
            f"from position {note.consistent_from} on while the ring holds "
            f"{note.restart.position}"
        )
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """List images; ``LEADS TO`` is what the ring allows now."""
    node = find_node(arguments)
    notes = Images(node.site, node.group.name).list()
    with contextlib.closing(DirectDevice(Path(node.journal_path), writable=False)) as device:
        survey = Survey(device)
        first = survey.first()
        head = survey.body.head.position
    oldest = first.position if first is not None else head
    if wants_json(arguments):
        print_json({"schema": 1, "oldest": oldest, "head": head, "images": notes})
        return 0
    rows = [
        [
            note.name,
            format_time(note.taken_at_ns),
            note.how,
            str(len(note.volumes)),
            f"{note.consistent_from} to {head}"
            if note.restart.position >= oldest
            else f"nothing: the ring begins at {oldest}, it needs {note.restart.position}",
        ]
        for note in notes
    ]
    print_table(("IMAGE", "TAKEN", "HOW", "VOLUMES", "LEADS TO"), rows)
    return 0


def run_drop(arguments: argparse.Namespace) -> int:
    """Remove an image and its clones."""
    node = find_node(arguments)
    Images(node.site, node.group.name).drop(arguments.name)
    if not wants_json(arguments):
        print(f"image {arguments.name}: dropped")
    return 0
