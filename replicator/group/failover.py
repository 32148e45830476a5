"""Changes of role of a running site: the control commands promote, demote and confirm-hosts."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from replicator.codec.batch import Context, Point, batch_length, build_batch
from replicator.codec.handover import Handover, encode_handover
from replicator.codec.history import Relation
from replicator.codec.records import RecordKind
from replicator.errors import Refused, UsageError
from replicator.group.promotion import UNCONFIRMED, Order, Promotion, Step
from replicator.group.site import SiteRuntime
from replicator.journal.journal import FENCED, INCONSISTENT
from replicator.journal.second_look import in_the_way
from replicator.status import HandoverStatus, PromotionStatus, position_status

log = logging.getLogger(__name__)


def promote(
    runtime: SiteRuntime, without: Sequence[str], note: str, *, dry_run: bool = False
) -> PromotionStatus:
    """Make this site the primary: active, durably, on return. ``without`` makes it forced.

    Raises Refused with what stands in the way; the site then goes on as it was, or as a primary
    that answers nobody if its epoch has begun.
    """
    _refuse_sync(runtime)
    journal, peers = runtime.journal, runtime.devices.peers
    unknown = [site for site in without if site not in peers]
    if unknown:
        raise UsageError(f"--without {unknown[0]}: the other sites are {', '.join(sorted(peers))}")
    order = Order(tuple(without), note)
    promotion = Promotion(
        journal,
        peers,
        runtime.restore,
        runtime.checkpoint_now,
        runtime.clock,
        os.urandom,
        order,
    )
    if dry_run:
        found = in_the_way(journal, peers, without)
        return _status(runtime, promotion, found, dry_run=True)
    with runtime.changing_role():
        now = runtime.clock.monotonic()
        while (step := promotion.next) is not Step.DONE:
            log.info("promotion step=%d name=%s", step, step.name.lower())
            promotion.step(now)
        return _status(runtime, promotion, {}, dry_run=False)


def _status(
    runtime: SiteRuntime, promotion: Promotion, found: dict[str, str], *, dry_run: bool
) -> PromotionStatus:
    journal, drained = runtime.journal, promotion.drained
    heads = [
        peer.statement.newer.body.head
        for peer in runtime.devices.peers.values()
        if peer.statement is not None
    ]
    furthest = max(
        [journal.head, *heads, *([drained.bound] if drained.bound else [])],
        key=lambda point: point.position,
    )
    last = journal.catalog.history.last
    return PromotionStatus(
        group=runtime.group.name,
        site=runtime.part.name,
        dry_run=dry_run,
        in_the_way=found,
        epoch=last.number,
        forced=last.forced and not dry_run,
        fork=last.fork_position,
        head=position_status(journal.head),
        drained_records=drained.records,
        drained_bytes=drained.bytes,
        missing_records=max(0, furthest.sequence - journal.head.sequence),
        nothing_lost=drained.nothing_lost,
        hosts_held=UNCONFIRMED in journal.body.marks,
        upstreams=dict(last.upstreams),
    )


def demote(runtime: SiteRuntime, to: str) -> HandoverStatus:
    """Stop answering hosts and hand over to ``to``: durable on return, nothing answered after.

    Raises Refused while nothing was changed: ``to`` cannot be read or could not go on.
    """
    _refuse_sync(runtime)
    journal, peers = runtime.journal, runtime.devices.peers
    if to not in peers:
        raise UsageError(f"--to {to}: the other sites are {', '.join(sorted(peers))}")
    if runtime.commit is None or runtime.state != "serving":
        raise Refused(
            f"group {runtime.group.name}: site {runtime.part.name} is {runtime.state} and serves "
            "no hosts: nothing to hand over; see which site serves: replicatorctl status"
        )
    peer = peers[to]
    body = peer.look().newer.body
    relation = journal.catalog.history.compare(peer.catalog().history).relation
    marks = {FENCED, INCONSISTENT} & set(body.marks)
    if relation is not Relation.SAME or marks:
        why = f"is {', '.join(sorted(marks))}" if marks else "is in another epoch"
        raise Refused(
            f"group {runtime.group.name}: site {to} {why} and cannot go on from here; "
            "replicatorctl status"
        )
    with runtime.changing_role():
        end = _journal_handover(runtime, Handover(runtime.part.name, to))
        runtime.checkpoint_now(runtime.clock.monotonic())
        journal.retire(to)
    return HandoverStatus(
        group=runtime.group.name, site=runtime.part.name, to=to, at=position_status(end)
    )


def _journal_handover(runtime: SiteRuntime, handover: Handover) -> Point:
    """Append the handover as the log's last batch: no commit loop runs any more."""
    journal, payload = runtime.journal, encode_handover(handover)
    head = journal.head
    batch = memoryview(bytearray(batch_length(1, len(payload))))
    if len(batch) > journal.free_bytes:
        raise Refused(
            f"group {runtime.group.name}: no room for the handover; a site that lags keeps the "
            "journal full: replicatorctl status"
        )
    time_ns = max(head.time_ns, runtime.clock.realtime_ns())
    epoch_id = journal.catalog.history.last.id
    context = Context(journal.catalog.group_id, epoch_id, head, time_ns, head.position)
    content = [(RecordKind.HANDOVER, 0, 0, len(payload), [payload])]
    end = build_batch(context, content, batch)
    journal.append([batch], end)
    return end


def confirm_hosts(runtime: SiteRuntime, note: str) -> str:
    """Let hosts in again after a promotion that may have lost writes: durable on return."""
    marks = runtime.journal.body.marks
    if UNCONFIRMED not in marks:
        raise Refused(
            f"group {runtime.group.name}: site {runtime.part.name} holds no hosts back: nothing "
            "is to be done"
        )
    with runtime.changing_role():
        runtime.journal.publish(unmark={UNCONFIRMED})
    log.warning("hosts confirmed note=%r", note)
    return marks[UNCONFIRMED]


def _refuse_sync(runtime: SiteRuntime) -> None:
    if runtime.group.near is not None:
        raise Refused(
            f"group {runtime.group.name} has a sync link: changing roles with one is not in this "
            "release; seal the near site to keep its last answered write: replicatorctl seal"
        )
