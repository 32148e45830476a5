"""What is needed to take or use a base of a site's volumes: where the log and the volumes stand."""

from __future__ import annotations

from replicator.cli.node import Node
from replicator.codec.batch import Invalid
from replicator.codec.history import Catalog
from replicator.daemon.control import ask
from replicator.errors import DaemonUnreachable, NotAJournal, Refused
from replicator.journal.survey import Survey
from replicator.seams.blockdevice import JournalDevice
from replicator.status import GroupStatus, RestoreStatus

_WINDOW_AND_BATCH = 8 << 20
"""What a restore that is under way may have applied beyond the position that it tells."""


def expect_usable(node: Node, survey: Survey) -> Catalog:
    """Return the catalog; Refused at a site whose volumes are no point of the log."""
    if survey.catalog is None:
        raise NotAJournal(f"{node.journal_path}: has not met its source yet; there is nothing")
    if not node.group.site(node.site.name).data:
        raise Refused(f"site {node.site.name} keeps no data volumes of group {node.group.name}")
    inconsistent = survey.body.marks.get("inconsistent")
    if inconsistent is not None:
        raise Refused(
            f"site {node.site.name} is inconsistent ({inconsistent}): its volumes are no point of "
            "the log; wait until its resync has ended"
        )
    return survey.catalog


def durable_end(node: Node, survey: Survey) -> int:
    """Return the end of what this ring durably holds: the daemon's word, else the page's."""
    try:
        received = ask(node.control_socket, "status", kind=GroupStatus).own.received
    except DaemonUnreachable:
        received = None
    return max(survey.body.head.position, received.position if received else 0)


def applied_at_most(node: Node, device: JournalDevice) -> int:
    """Return a position above which no record is in this site's volumes at this moment."""
    try:
        status = ask(node.control_socket, "status", kind=GroupStatus).own
        received = status.received.position if status.received else 0
        if status.role == "primary":
            return received
        restore = ask(node.control_socket, "restore-status", kind=RestoreStatus)
        if restore.state == "paused":  # then nothing is under way
            return restore.applied
        return min(received, restore.applied + _WINDOW_AND_BATCH)
    except DaemonUnreachable:
        return _tail_end(Survey(device))


def _tail_end(survey: Survey) -> int:
    """Return where the valid tail ends: a dead primary's volumes may hold all of it."""
    body = survey.body
    if body.role != "primary":
        return body.head.position
    end = body.head
    for verdict in survey.batches(body.head, body.reclaim + body.ring_size):
        if isinstance(verdict, Invalid):
            break
        end = verdict.end
    return end.position
