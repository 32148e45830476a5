"""The difference of two trees as steps, in an order in which LIO takes them. Pure.

Order: removals from the inside out, then creations from the outside in. A new ACL gets its
CHAP credentials after its mapped LUNs, and a new target is enabled last, so that nobody logs in
to something half made (rtslib sets write protection after it makes a mapped LUN).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from replicator.codec.target_tree import (
    CREATION_ORDER,
    SETTABLE,
    Key,
    Kind,
    MappedLun,
    Tree,
    UserBackstore,
    Value,
    describe,
    in_creation_order,
)


class Verb(Enum):
    """What a step does."""

    REMOVE = "remove"
    CREATE = "create"
    SET = "set"


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the LIO configuration."""

    verb: Verb
    key: Key
    value: Value
    before: Value | None = None

    def line(self) -> str:
        """Return the step for people, one line without secrets."""
        sign = {Verb.REMOVE: "-", Verb.CREATE: "+", Verb.SET: "~"}[self.verb]
        what = f"{sign} {describe(self.key)}"
        if self.verb is Verb.REMOVE or (self.verb is Verb.CREATE and self.value is True):
            return what
        if self.before is None or str(self.before) == str(self.value):
            return f"{what}: {self.value}"
        return f"{what}: {self.before} -> {self.value}"

    def as_json(self) -> dict[str, str]:
        """Return the step as JSON values without secrets."""
        document = {
            "verb": self.verb.value,
            "kind": self.key[0].value,
            "path": "/".join(self.key[1:]),
            "value": str(self.value),
        }
        if self.before is not None:
            document["before"] = str(self.before)
        return document


def compute_plan(wanted: Tree, current: Tree) -> list[Step]:
    """Return the steps from ``current`` to ``wanted``; none if they agree.

    ``current`` holds only what is ours. Attributes that ``wanted`` does not name are left alone.
    """
    replaced = _replaced(wanted, current)
    remains = {key: value for key, value in current.items() if key not in replaced}
    removals = [
        Step(Verb.REMOVE, key, current[key])
        for key in sorted(replaced, key=lambda key: -CREATION_ORDER[key[0]])
        if key[0] not in SETTABLE
    ]
    disabling = _disabling(wanted, current, removals)
    remains.update((step.key, step.value) for step in disabling if step.key in remains)
    return disabling + removals + _additions(wanted, remains)


def _disabling(wanted: Tree, current: Tree, removals: list[Step]) -> list[Step]:
    """Disable what is to be disabled before anything is taken away under its sessions."""
    gone = {step.key for step in removals}
    steps = []
    for key, value in current.items():
        if key[0] is not Kind.ENABLED or value is not True:
            continue
        if (Kind.TARGET, key[1]) in gone or (removals and wanted.get(key) is False):
            steps.append(Step(Verb.SET, key, False, True))
    return steps


def _additions(wanted: Tree, remains: Tree) -> list[Step]:
    steps = []
    for key, value in in_creation_order(wanted).items():
        before = remains.get(key)
        if before is not None and _agree(value, before):
            continue
        verb = Verb.SET if key[0] in SETTABLE else Verb.CREATE
        steps.append(Step(verb, key, value, before))
    return steps


def _agree(wanted: Value, current: Value) -> bool:
    if isinstance(wanted, str) or isinstance(current, str):
        return str(wanted) == str(current)
    if isinstance(wanted, UserBackstore) and isinstance(current, UserBackstore):
        # A grown volume: hosts are told by us. The kernel keeps the size of the creation, uses it
        # for nothing, and refuses to change it while no netlink listener is there.
        grown = wanted.size_bytes >= current.size_bytes
        return grown and replace(wanted, size_bytes=current.size_bytes) == current
    return wanted == current


def _replaced(wanted: Tree, current: Tree) -> set[Key]:
    """Return the keys to remove: not wanted, changed, or resting on something removed."""
    gone = {
        key
        for key, value in current.items()
        if key[0] not in SETTABLE and (key not in wanted or not _agree(wanted[key], value))
    }
    while True:
        more = {key for key in current if key not in gone and _rests_on(key, current, gone)}
        if not more:
            return gone
        gone |= more


def _rests_on(key: Key, current: Tree, gone: set[Key]) -> bool:
    """Tell whether ``key`` cannot stay when ``gone`` goes."""
    kind, *names = key
    if kind in (Kind.BACKSTORE_ATTRIBUTE, Kind.ALUA_STATE):
        return (Kind.BACKSTORE, names[0], names[1]) in gone
    if kind in (Kind.BACKSTORE, Kind.TARGET):
        return False
    if (Kind.TARGET, names[0]) in gone:
        return True
    if kind is Kind.LUN:
        plugin, _, name = str(current[key]).partition("/")
        return (Kind.BACKSTORE, plugin, name) in gone
    if kind in (Kind.MAPPED_LUN, Kind.CHAP) and (Kind.ACL, names[0], names[1]) in gone:
        return True
    if kind is Kind.MAPPED_LUN:
        mapped = current[key]
        assert isinstance(mapped, MappedLun)
        return (Kind.LUN, names[0], str(mapped.lun)) in gone
    return False
