"""replicatorctl seal, fence: shut a ring's writer, or this site's hosts, out for good.

Both run on the node that holds the journal, under the daemon's lock and without the daemon, so
they work when its process is what has gone wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from replicator.cli.node import Node, add_group_flag, add_topology_flags, find_node, wants_json
from replicator.cli.output import print_json
from replicator.cli.target import add_secrets_flag, wanted_and_lio
from replicator.codec import naming
from replicator.errors import Refused
from replicator.journal.journal import FENCED, HALTED, Journal, Owner
from replicator.journal.seal import seal
from replicator.seams.boot import boot_id
from replicator.seams.filedevice import DirectDevice
from replicator.seams.legdevice import lock_writer
from replicator.status import position_status
from replicator.target.apply import apply_plan
from replicator.target.plan import compute_plan

_WRITER_SECONDS = 5.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``seal`` and ``fence``."""
    sealing = commands.add_parser(
        "seal", help="close this site's journal for good: at a near site, or a dead source"
    )
    sealing.set_defaults(run=run_seal)
    fencing = commands.add_parser("fence", help="shut this site out: it serves no hosts any more")
    fencing.add_argument("--lift", action="store_true", help="take the fence away again")
    fencing.set_defaults(run=run_fence)
    for parser in (sealing, fencing):
        add_topology_flags(parser)
        add_group_flag(parser)
        add_secrets_flag(parser)
        parser.add_argument(
            "--reason", default="by an operator", help="kept in the page and shown by status"
        )


def run_seal(arguments: argparse.Namespace) -> int:
    """Seal, and print the pair at which the ring ends: durable on return."""
    node = find_node(arguments)
    with _own_journal(node) as (device, journal):
        shut = _Shutter(node, device, arguments.secrets)
        end = seal(journal, shut.writer_out, arguments.reason)
    if wants_json(arguments):
        print_json({"group": node.group.name, "site": node.site.name, "at": position_status(end)})
        return 0
    print(
        f"group {node.group.name} at site {node.site.name}: sealed at position {end.position} "
        f"({end.digest.hex()[:8]}), after {end.sequence} records; start replicatord here again, "
        "so that readers drain it to there"
    )
    return 0


def run_fence(arguments: argparse.Namespace) -> int:
    """Fence or lift the fence: the mark is durable before the target follows."""
    node = find_node(arguments)
    with _own_journal(node) as (device, journal):
        shut = _Shutter(node, device, arguments.secrets)
        if arguments.lift:
            _lift(journal)
        else:
            journal.publish(mark={FENCED: arguments.reason})
            shut.writer_out()
            journal.publish()  # in both copies: others count on it only then
        marks = dict(journal.body.marks)
    if wants_json(arguments):
        print_json({"group": node.group.name, "site": node.site.name, "marks": marks})
        return 0
    said = "no longer fenced; run replicatorctl target apply" if arguments.lift else "fenced"
    print(f"group {node.group.name} at site {node.site.name}: {said}")
    return 0


def _lift(journal: Journal) -> None:
    body = journal.body
    if body.sealed is not None:
        raise Refused(
            f"{journal.device.name}: the ring was sealed at position {body.sealed[0]}; a seal is "
            "for good, because another site may have gone on from there"
        )
    journal.publish(unmark={FENCED, HALTED})


@contextlib.contextmanager
def _own_journal(node: Node) -> Iterator[tuple[DirectDevice, Journal]]:
    """Open the own journal under the daemon's lock; DeviceBusy while a daemon runs."""
    group, site = node.group.name, node.site.name
    others = tuple(each.name for each in node.group.peers(site))
    with contextlib.closing(
        DirectDevice(Path(node.journal_path), writable=True, lock=True)
    ) as device:
        journal = Journal.open(device, Owner(group, site, boot_id(), others))
        journal.settle()
        yield device, journal


class _Shutter:
    """Shuts out whoever writes this node's ring or its hosts' data."""

    def __init__(self, node: Node, device: DirectDevice, secrets_path: str) -> None:
        self._node = node
        self._device = device
        self._secrets_path = secrets_path

    def writer_out(self) -> None:
        """Return when no write from afar, and none of a host, can arrive any more.

        Raises TargetFailed (LIO refused), Refused (a process of this machine still writes).
        """
        if self._node.site.devices.kind == "directory":
            self._wait_for_writer()
            return
        self._close_targets()

    def _wait_for_writer(self) -> None:
        deadline = time.monotonic() + _WRITER_SECONDS
        while not lock_writer(self._device.fileno()):
            if time.monotonic() > deadline:
                writer = self._node.group.site(self._node.site.name).upstream
                raise Refused(
                    f"{self._node.journal_path}: the replicatord of site {writer} still writes "
                    "this ring; end it first (on files nothing else can shut it out), then again"
                )
            time.sleep(0.05)

    def _close_targets(self) -> None:
        """Have LIO follow the mark: disabling a target waits for the commands in flight."""
        node = self._node
        prefix, group, site = node.topology.iqn_prefix, node.group.name, node.site.name
        closed = {
            naming.leg_target_iqn(prefix, group, site),
            naming.data_target_iqn(prefix, group, site),
        }
        wanted, lio = wanted_and_lio(node.topology, node.site, self._secrets_path)
        steps = compute_plan(wanted, lio.read())
        apply_plan([step for step in steps if step.key[1] in closed], lio)
