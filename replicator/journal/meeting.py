"""Meet another site's history: enter the epochs that follow the own ones, or say why not.

A site follows by itself only a history that contains its own last epoch. What it holds beyond the
fork is never given up here: that is an operator's act.
"""

from __future__ import annotations

from replicator.codec.history import Epoch, History, Relation
from replicator.errors import Overtaken, SplitBrain, WentOn
from replicator.journal.journal import Journal
from replicator.journal.peer import Peer
from replicator.model import Pair


def meet(journal: Journal, peer: Peer) -> Relation:
    """Compare the own history with that of ``peer``, which was just looked at.

    On SAME and OLDER nothing was done. On NEWER this secondary has entered the new epochs, with
    the upstream that they give it: durable on return. Raises WentOn at a primary (it must serve
    no more: ``step_down``), Overtaken if the own head is beyond the fork, SplitBrain; the own
    journal is unchanged then.
    """
    own, theirs = journal.catalog.history, peer.catalog().history
    relation, fork = own.compare(theirs)
    if relation is Relation.UNRELATED:
        assert fork is not None
        raise SplitBrain(
            f"{peer.device_name}: {peer.site} is in epoch {theirs.last.number} by "
            f"{theirs.last.site}, this site in {own.last.number} by {own.last.site}, and neither "
            f"history contains the other: both went on alone from position {fork.position}; "
            f"nothing is read or thrown away; this site holds {_beyond(journal, fork)}"
        )
    if relation is not Relation.NEWER:
        return relation
    assert fork is not None
    first = theirs.after(own.last.id)[0]
    if journal.body.role == "primary":
        raise WentOn(
            f"{peer.device_name}: {peer.site} is in epoch {first.number}, begun by {first.site} at "
            f"position {fork.position}: the term of this primary has ended"
        )
    _check_fork(journal, peer, first, fork)
    journal.enter_history(theirs, _upstream(journal, theirs))
    return relation


def step_down(journal: Journal, peer: Peer) -> None:
    """Make a primary that ``meet`` found to be past its term a secondary: durable on return.

    Its own head stays where it is. If that is not beyond the fork it has entered the new epochs;
    else its history and its tail stay, and each further ``meet`` raises Overtaken.
    """
    theirs = peer.catalog().history
    relation, fork = journal.catalog.history.compare(theirs)
    assert relation is Relation.NEWER and fork is not None
    upstream = _upstream(journal, theirs)
    if journal.head.position <= fork.position:
        journal.enter_history(theirs, upstream)
        return
    journal.retire(upstream)


def _check_fork(journal: Journal, peer: Peer, first: Epoch, fork: Pair) -> None:
    """Refuse epochs whose fork is not on the own log; below the head the chain tells later."""
    head = journal.head
    if head.position < fork.position or head.pair == fork:
        return
    raise Overtaken(
        f"{peer.device_name}: epoch {first.number} was begun by {first.site} at {fork}; this site "
        f"holds {_beyond(journal, fork)}, which the group does not have; it follows no more, and "
        "nothing was thrown away"
    )


def _beyond(journal: Journal, fork: Pair) -> str:
    head = journal.head
    return f"{max(0, head.position - fork.position)} bytes beyond it, up to {head.pair}"


def _upstream(journal: Journal, history: History) -> str:
    """Return whom the last epoch has this site read from: its primary, unless it says otherwise."""
    return dict(history.last.upstreams).get(journal.owner.site, history.last.site)
