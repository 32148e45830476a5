"""May this site answer hosts? What a primary finds out after a start, and when it has to stop.

No boot alone makes a primary (design, model m7): it publishes its intent, then reads every other
site, then states that it is active. Only a daemon that starts again on the kernel boot on which it
was active goes on at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from replicator.clock import Clock
from replicator.codec.history import Relation
from replicator.codec.page import Intent, OwnerBody
from replicator.codec.topology import GroupSite
from replicator.group.promotion import UNCONFIRMED
from replicator.journal.journal import Journal
from replicator.journal.meeting import meet, step_down
from replicator.journal.peer import Peer
from replicator.journal.second_look import in_the_way


def part_in_force(part: GroupSite, body: OwnerBody) -> GroupSite:
    """Return a site's part with the role of its own page: the topology has only the first one."""
    if part.sync or body.upstream == part.upstream:
        return part
    return replace(part, primary=body.role == "primary", upstream=body.upstream)


def roles_have_changed(journal: Journal) -> bool:
    """Whether roles are the page's word and no longer the topology's."""
    return journal.attached and (
        len(journal.catalog.history.epochs) > 1 or journal.body.active_on is not None
    )


class Standing:
    """A primary's right to answer hosts."""

    def __init__(self, journal: Journal, peers: Mapping[str, Peer], clock: Clock) -> None:
        self._journal = journal
        self._peers = peers
        self._clock = clock
        page = journal.page
        known = page.body.active_on
        boot = page.boot_id if known is None else known
        self._resumes = boot == journal.owner.boot_id and page.body.intent is None

    @property
    def hosts_wait(self) -> str:
        """Why hosts are not served although the site may: empty, or the mark's reason."""
        return self._journal.body.marks.get(UNCONFIRMED, "")

    @property
    def resumes(self) -> bool:
        """Whether this is a restart on the boot on which the site was active."""
        return self._resumes

    def look(self) -> str:
        """Publish the intent, read every other site; return what is in the way, or nothing.

        If nothing is, the site is active from now on: durable on return. A site that finds that
        the group has gone on raises WentOn or SplitBrain.
        """
        body = self._journal.body
        intent = body.intent or Intent(b"", 0, self._clock.realtime_ns(), note="boot")
        if body.intent is None or body.active_on != b"":
            self._journal.restate(lambda body: replace(body, intent=intent, active_on=b""))
        found = in_the_way(self._journal, self._peers, intent.without)
        refuse_if_gone_on(self._journal, self._peers.values())
        if found:
            if not intent.promotes:  # let the other one pass: whoever boots comes again
                self._journal.restate(lambda body: replace(body, intent=None))
            return "; ".join(f"site {site} {why}" for site, why in sorted(found.items()))
        self.activate()
        return ""

    def activate(self) -> None:
        """State that this site answers hosts on this boot: durable on return."""
        boot_id = self._journal.owner.boot_id
        if self._journal.body.active_on != boot_id or self._journal.body.intent is not None:
            self._journal.restate(lambda body: replace(body, intent=None, active_on=boot_id))


def refuse_if_gone_on(journal: Journal, peers: Iterable[Peer]) -> None:
    """Raise WentOn or SplitBrain if a peer, as last read, is in an epoch that is not here."""
    for peer in peers:
        if peer.statement is not None and peer.statement.newer.body.catalog is not None:
            meet(journal, peer)


def retire_after(journal: Journal, peers: Iterable[Peer]) -> None:
    """Make this primary, whose term has ended, a secondary of whoever has gone on furthest."""
    ahead = [
        peer
        for peer in peers
        if peer.statement is not None
        and peer.statement.newer.body.catalog is not None
        and journal.catalog.history.compare(peer.catalog().history).relation is Relation.NEWER
    ]
    step_down(journal, max(ahead, key=lambda peer: len(peer.catalog().history.epochs)))
