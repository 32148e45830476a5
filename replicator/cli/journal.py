"""replicatorctl journal: make a journal, and look at one without changing it."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from replicator.cli.journal_views import describe, dump_row, record_rows
from replicator.cli.node import (
    add_group_flag,
    add_topology_flags,
    find_node,
    wants_json,
)
from replicator.cli.output import print_json, print_table
from replicator.codec import naming
from replicator.codec.batch import Batch, Invalid, Point
from replicator.daemon.control import ask
from replicator.errors import DeviceUnusable, Refused, UsageError
from replicator.group.devices import new_journal
from replicator.journal.format import format_journal
from replicator.journal.pages import read_statement
from replicator.journal.survey import Survey
from replicator.seams.boot import boot_id
from replicator.seams.filedevice import DirectDevice, preallocate
from replicator.status import JournalMoved
from replicator.units import format_size

_DUMP_LIMIT = 50
_MOVE_SECONDS = 3600.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``journal`` with format, info, dump and check."""
    journal = commands.add_parser("journal", help="make a journal, or look at one")
    inside = journal.add_subparsers(metavar="COMMAND", required=True)
    making = inside.add_parser("format", help="make the group's journal on its blank device")
    making.add_argument(
        "--overwrite",
        metavar="DEVICE",
        help="format although the device is not blank; DEVICE must be its exact name",
    )
    making.set_defaults(run=run_format)
    info = inside.add_parser("info", help="show what the journal's pages state")
    info.set_defaults(run=run_info)
    dump = inside.add_parser("dump", help="list the batches that the ring holds")
    dump.add_argument("--from", dest="start", metavar="POSITION", type=int, default=0)
    dump.add_argument("--limit", metavar="N", type=int, default=_DUMP_LIMIT, help="batches")
    dump.add_argument("--records", action="store_true", help="list each batch's records too")
    dump.set_defaults(run=run_dump)
    checking = inside.add_parser("check", help="verify every batch that the ring holds")
    checking.set_defaults(run=run_check)
    moving = inside.add_parser("move", help="move the journal to a device of another size")
    moving.add_argument(
        "--to",
        metavar="DEVICE",
        help="a blank device or file; at a directory: site left out, a file of the topology's size",
    )
    moving.set_defaults(run=run_move)
    for parser in (making, info, dump, checking, moving):
        add_topology_flags(parser)
        add_group_flag(parser)
    for parser in (info, dump, checking):
        parser.add_argument("device", nargs="?", help="a device or file, else the group's journal")


def run_format(arguments: argparse.Namespace) -> int:
    """Make the journal of this site; refuses a device that is not blank."""
    node = find_node(arguments)
    path = node.journal_path
    if arguments.overwrite is not None and arguments.overwrite != path:
        raise UsageError(f"--overwrite names {arguments.overwrite!r}, the journal is {path!r}")
    if node.site.devices.kind == "directory":
        _make_file(path, node.group.journal.size_bytes)
    with opened_journal(path, writable=True) as device:
        if device.size_bytes < node.group.journal.size_bytes:
            raise DeviceUnusable(
                f"{path}: {device.size_bytes} bytes, the topology says "
                f"{node.group.journal.size_bytes}; make the volume larger first"
            )
        page = format_journal(
            device,
            new_journal(node.group, node.site.name),
            os.urandom,
            boot_id(),
            overwrite=arguments.overwrite is not None,
        )
    if wants_json(arguments):
        print_json({"device": path, "journal_id": page.journal_id.hex(), "role": page.body.role})
    else:
        size = format_size(page.body.ring_size)
        print(f"{path}: formatted as {page.body.role} of {node.group.name}, ring of {size}")
    return 0


def run_move(arguments: argparse.Namespace) -> int:
    """Ask the daemon to move its journal; hosts go on writing."""
    node = find_node(arguments)
    to = arguments.to
    if to is None:
        if node.site.devices.kind != "directory":
            raise UsageError("name the new device with --to")
        to = naming.next_journal_path(node.site, node.group.name)
        _make_next(node.journal_path, to, node.group.journal.size_bytes)
    moved = ask(
        node.control_socket,
        "journal-move",
        {"to": os.path.abspath(to)},
        kind=JournalMoved,
        timeout_seconds=_MOVE_SECONDS,
    )
    if wants_json(arguments):
        print_json(moved)
        return 0
    sizes = f"{format_size(moved.ring_bytes_before)} to {format_size(moved.ring_bytes)}"
    print(f"journal of {node.group.name} is on {moved.device}: ring from {sizes}")
    if node.site.devices.kind == "lvm":
        print(
            f"next: lvrename the old {node.journal_path} away and {moved.device} to its name, then "
            "replicatorctl target plan, target apply"
        )
    return 0


def run_info(arguments: argparse.Namespace) -> int:
    """Print the newest page and the catalog."""
    with opened_journal(_device_path(arguments), writable=False) as device:
        facts = describe(Survey(device))
    if wants_json(arguments):
        print_json(facts)
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name.replace('_', ' '):<{width}}  {value}")
    return 0


def run_dump(arguments: argparse.Namespace) -> int:
    """List batches, oldest first, from the first at or after ``--from``."""
    if arguments.limit < 1 or arguments.start < 0:
        raise UsageError("--limit and --from expect numbers from 1 and from 0")
    rows: list[dict[str, object]] = []
    with opened_journal(_device_path(arguments), writable=False) as device:
        survey = Survey(device)
        for verdict in _batches(survey, survey.first(arguments.start)):
            if isinstance(verdict, Invalid):
                raise survey.rotten(verdict)
            row = dump_row(verdict)
            if arguments.records:
                row["records"] = record_rows(verdict)
            rows.append(row)
            if len(rows) >= arguments.limit:
                break
    if wants_json(arguments):
        print_json(rows)
    else:
        _print_dump(rows)
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Verify every batch below the stated head; JournalRotten names the offset."""
    with opened_journal(_device_path(arguments), writable=False) as device:
        survey = Survey(device)
        first = survey.first()
        latest = survey.latest_first()
        if survey.body.head.position and (first is None or first.position > latest):
            raise survey.rotten(Invalid(latest, "V1", "no batch begins at or before it"))
        batches = records = 0
        end = first or survey.body.head
        for verdict in _batches(survey, first):
            if isinstance(verdict, Invalid):
                raise survey.rotten(verdict)
            batches += 1
            records += verdict.header.record_count
            end = verdict.end
        if end.pair != survey.body.head.pair:
            broken = Invalid(
                end.position, "V6", f"the page states the pair {survey.body.head.pair}"
            )
            raise survey.rotten(broken)
    result = {
        "device": device.name,
        "from": first.position if first else end.position,
        "to": end.position,
        "batches": batches,
        "records": records,
    }
    if wants_json(arguments):
        print_json({**result, "ok": True})
    else:
        span = f"positions {result['from']} to {result['to']}"
        print(f"{device.name}: OK, {batches} batches, {records} records, {span}")
    return 0


def _batches(survey: Survey, first: Point | None) -> Iterator[Batch | Invalid]:
    return survey.batches(first, survey.body.head.position) if first else iter(())


def _print_dump(rows: list[dict[str, object]]) -> None:
    columns = ("position", "length", "first_sequence", "record_count", "time", "digest")
    print_table(
        [name.replace("_", " ").upper() for name in columns],
        [[str(row[name]) for name in columns] for row in rows],
    )
    for row in rows:
        records = row.get("records")
        if isinstance(records, list):
            for record in records:
                print(" ".join(f"{name}={value}" for name, value in record.items()))


def _device_path(arguments: argparse.Namespace) -> str:
    return str(arguments.device) if arguments.device else find_node(arguments).journal_path


def _make_file(path: str, size_bytes: int) -> None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        preallocate(Path(path), size_bytes, written=True)
    except OSError as error:
        raise DeviceUnusable(f"{path}: cannot be made: {error.strerror}") from error


def _make_next(path: str, to: str, size_bytes: int) -> None:
    """Make the file to move to, in place of one that an interrupted try has left."""
    with opened_journal(path, writable=False) as device:
        if read_statement(device).newer.body.moved_to is not None:
            raise Refused(f"{path}: was moved to {to} and has its name yet; restart replicatord")
    Path(to).unlink(missing_ok=True)
    _make_file(to, size_bytes)


@contextlib.contextmanager
def opened_journal(path: str, *, writable: bool) -> Iterator[DirectDevice]:
    """Open a journal's device for the time of a ``with``; locked if it is to be written."""
    device = DirectDevice(Path(path), writable=writable, lock=writable)
    try:
        yield device
    finally:
        device.close()
