"""The second look: who may go on, once its own intent is published and durable (m7, m9, m9b).

A site becomes active only if every other configured site was read after its intent was durable,
and neither serves nor means to; or is durably fenced; or is vouched for by the operator, which
makes it forced. There is no majority rule.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from replicator.codec.history import Relation
from replicator.errors import TowlineError
from replicator.journal.journal import FENCED, Journal
from replicator.journal.pages import Statement
from replicator.journal.peer import Peer


def in_the_way(
    journal: Journal, peers: Mapping[str, Peer], without: Collection[str] = ()
) -> dict[str, str]:
    """Read every configured site now and say, by site, why this one may not become active.

    Empty if nothing is in the way. Sites in ``without`` are read where they can be, and what they
    say only counts if they have gone on in another epoch.
    """
    found = {}
    for site in journal.owner.peers:
        reason = _reason(journal, peers[site], vouched=site in without)
        if reason:
            found[site] = reason
    return found


def is_fenced(statement: Statement) -> bool:
    """Whether a site is fenced durably: in both copies, so also after it has lost power."""
    return all(FENCED in page.body.marks for page in (statement.newer, statement.older))


def _reason(journal: Journal, peer: Peer, *, vouched: bool) -> str:
    try:
        statement = peer.look()
    except TowlineError as error:
        return "" if vouched else f"cannot be read: {error}"
    if statement.newer.body.catalog is not None:
        relation, fork = journal.catalog.history.compare(peer.catalog().history)
        if fork is not None and relation is not Relation.OLDER:
            return f"has gone on from position {fork.position} in another epoch"
    return "" if vouched else _busy(statement)


def _busy(statement: Statement) -> str:
    """Return what a site does or means to do that only one may, by the page that can be read."""
    body = statement.newer.body
    if is_fenced(statement):
        return ""
    if body.intent is not None:
        what = "is being promoted" if body.intent.promotes else "boots as primary"
        return f"{what}{f' ({body.intent.note})' if body.intent.note else ''}"
    if body.role == "primary" and body.active_on != b"":
        return "serves hosts, or has ended without saying that it does not"
    return ""
