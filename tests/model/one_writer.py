"""The one-writer protocol over three sites as an explicit-state search: shortest counterexamples.

Site a serves in epoch 1. Operators promote b and c, also both at once, and fence a at its node;
links are cut and heal; machines lose power and boot. A page is visible when it is written and
durable when it is flushed: a power loss before keeps the old one. Every step of boot and promotion
is one transition, so anything may come between two of them.

What must never be: two sites that answer hosts, in a history without a forced promotion. Each rule
of the design is a switch in Rules; with one of them off, the search must find two writers. What
operators may do unforced is a transition here; a forced promotion is none, it promises nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

NAMES = "abc"
PAIRS = ((0, 1), (0, 2), (1, 2))

QUIET, INTENT, EPOCH = 0, 1, 2
"""What a page says: nothing, an intent to serve or to promote, a new epoch's history entry."""


@dataclass(frozen=True)
class Rules:
    """The rules of boot and promotion; the names are those of the models that broke without."""

    intent_first: bool = True
    """m7: whoever boots publishes its intent before it reads the others."""
    boot_reads_every_peer: bool = True
    """m9: whoever boots reads every other site, not only one of them."""
    promotion_reads_every_peer: bool = True
    """m9: so does whoever promotes; a site that is fenced need not be read."""
    durable_fence: bool = True
    """m9b: a fence is a durable mark that the next boot obeys."""
    second_look: bool = True
    """m9b: whoever promotes looks again after its history entry."""
    heed_intents: bool = True
    """An intent counts in the second look, not only a site that serves."""


class Site(NamedTuple):
    """One site: is it up, what it is doing, its visible and its durable page, whom it has read."""

    up: bool
    doing: str
    visible: int
    durable: int
    read: int
    """Bit mask of the other sites that were read in this look."""
    fenced: bool
    """Whether an operator has fenced it, which the second look of others takes for an answer."""


class State(NamedTuple):
    """The group: sites, links that are up (bit mask over PAIRS), and what may still break."""

    sites: tuple[Site, Site, Site]
    links: int
    cuts: int
    losses: int


@dataclass(frozen=True)
class Found:
    """States seen, and the shortest way to two writers (empty if there is none)."""

    states: int
    trace: tuple[str, ...]


Move = tuple[str, State]


def start(cuts: int, losses: int) -> State:
    """Return a serving, b and c following, everything durable."""
    first = Site(True, "active", QUIET, QUIET, 0, False)
    other = Site(True, "following", QUIET, QUIET, 0, False)
    return State((first, other, other), 0b111, cuts, losses)


def search(rules: Rules, *, cuts: int = 2, losses: int = 2) -> Found:
    """Search every history with so many changes of links and losses of power."""
    begin = start(cuts, losses)
    came: dict[State, tuple[State, str] | None] = {begin: None}
    queue = deque([begin])
    while queue:
        state = queue.popleft()
        if sum(site.up and site.doing == "active" for site in state.sites) > 1:
            return Found(len(came), _trace(came, state))
        for event, after in moves(state, rules):
            if after not in came:
                came[after] = (state, event)
                queue.append(after)
    return Found(len(came), ())


def _trace(came: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    events: list[str] = []
    while (step := came[state]) is not None:
        state, event = step
        events.append(event)
    return tuple(reversed(events))


def moves(state: State, rules: Rules) -> Iterator[Move]:
    """Yield everything that may happen next."""
    yield from _world(state, rules)
    for number in range(3):
        if state.sites[number].up:
            yield from _boot(state, number, rules)
            yield from _promotion(state, number, rules)


def _with(state: State, number: int, **changes: object) -> State:
    sites = list(state.sites)
    sites[number] = sites[number]._replace(**changes)  # type: ignore[arg-type]
    return state._replace(sites=(sites[0], sites[1], sites[2]))


def _world(state: State, rules: Rules) -> Iterator[Move]:
    for number, (one, other) in enumerate(PAIRS):
        if state.cuts:
            yield (
                f"link {NAMES[one]}-{NAMES[other]} changes",
                state._replace(links=state.links ^ 1 << number, cuts=state.cuts - 1),
            )
    for number, site in enumerate(state.sites):
        name = NAMES[number]
        if site.up and state.losses:
            gone = _with(state, number, up=False, doing="down", visible=site.durable, read=0)
            yield f"{name} loses power", gone._replace(losses=state.losses - 1)
        if not site.up:
            doing = _after_boot(site, number, rules)
            yield f"{name} boots", _with(state, number, up=True, doing=doing)
        if site.up and site.visible != site.durable:
            yield f"{name}'s page is durable", _with(state, number, durable=site.visible)
        if not site.fenced and site.doing not in ("following", "intends"):
            # The fence waits for the commands in flight, and is a mark in the page; it is set at
            # the node that holds the ring, so also where the daemon is dead or the machine off.
            doing = "fenced" if site.up else "down"
            fence = {"fenced": True, "visible": QUIET, "durable": QUIET, "read": 0}
            yield f"{name} is fenced", _with(state, number, doing=doing, **fence)


def _after_boot(site: Site, number: int, rules: Rules) -> str:
    if site.fenced and rules.durable_fence:
        return "fenced"
    if site.durable == EPOCH:
        return "entered"
    return "booted" if number == 0 else "following"


def _boot(state: State, number: int, rules: Rules) -> Iterator[Move]:
    site, name = state.sites[number], NAMES[number]
    if site.doing == "booted":
        visible = INTENT if rules.intent_first else QUIET
        yield f"{name} publishes its intent", _with(state, number, visible=visible, doing="boots")
    if site.doing == "boots":
        for other, peer in _readable(state, number):
            if peer.visible != QUIET:
                yield (
                    f"{name} reads {NAMES[other]}: gone on",
                    _with(state, number, doing="standby", visible=QUIET, read=0),
                )
            else:
                yield from _read(state, number, other)
        if _has_read_enough(site, number, every=rules.boot_reads_every_peer):
            yield f"{name} active", _with(state, number, doing="active", visible=QUIET, read=0)


def _promotion(state: State, number: int, rules: Rules) -> Iterator[Move]:
    site, name = state.sites[number], NAMES[number]
    if site.doing == "following" and number:
        yield f"{name} intends", _with(state, number, doing="intends", visible=INTENT)
    if site.doing == "intends":
        yield f"{name} gives up", _with(state, number, doing="following", visible=QUIET)
        if site.durable == INTENT:
            yield f"{name} enters its epoch", _with(state, number, doing="entered", visible=EPOCH)
    if site.doing == "entered" and site.durable == EPOCH:
        if not rules.second_look:
            yield f"{name} active, unlooked", _with(state, number, doing="active")
            return
        for other, peer in _readable(state, number):
            intends = peer.visible != QUIET and rules.heed_intents
            if peer.doing != "active" and not intends:
                yield from _read(state, number, other)
        for other, peer in enumerate(state.sites):
            if other != number and peer.fenced:
                yield from _read(state, number, other)
        if _has_read_enough(site, number, every=rules.promotion_reads_every_peer):
            yield f"{name} active", _with(state, number, doing="active", read=0)


def _readable(state: State, number: int) -> Iterator[tuple[int, Site]]:
    """Yield the other sites whose pages this one can read now."""
    for link, pair in enumerate(PAIRS):
        if number in pair and state.links >> link & 1:
            other = pair[0] if pair[1] == number else pair[1]
            if state.sites[other].up:
                yield other, state.sites[other]


def _read(state: State, number: int, other: int) -> Iterator[Move]:
    site = state.sites[number]
    if not site.read >> other & 1:
        yield (
            f"{NAMES[number]} reads {NAMES[other]}",
            _with(state, number, read=site.read | 1 << other),
        )


def _has_read_enough(site: Site, number: int, *, every: bool) -> bool:
    others = 0b111 & ~(1 << number)
    return site.read == others if every else bool(site.read)
