"""A LIO configuration as a flat, ordered tree: what is wanted and what there is, in one form.

A ``Tree`` maps keys to values. A key is a tuple of a Kind and names from the outside in; parents
come before children, so creating in order and removing in reverse order is always possible.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    """What a key stands for; in the order in which things are created."""

    BACKSTORE = "backstore"
    BACKSTORE_ATTRIBUTE = "backstore attribute"
    ALUA_STATE = "ALUA state"
    DISCOVERY_CLOSED = "discovery closed"
    TARGET = "target"
    TPG_ATTRIBUTE = "portal group attribute"
    TPG_PARAMETER = "portal group parameter"
    LUN = "LUN"
    ACL = "ACL"
    MAPPED_LUN = "mapped LUN"
    CHAP = "CHAP"
    PORTAL = "portal"
    ENABLED = "enabled"


CREATION_ORDER = {kind: place for place, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True)
class BlockBackstore:
    """A LIO block backstore on ``device``; ``read_only`` refuses writes whatever is mapped."""

    device: str
    serial: str
    read_only: bool

    def __str__(self) -> str:
        return f"{self.device} serial={self.serial} {'ro' if self.read_only else 'rw'}"


@dataclass(frozen=True, slots=True)
class UserBackstore:
    """A LIO user (TCMU) backstore, served by replicatord."""

    config: str
    size_bytes: int
    serial: str
    hw_max_sectors: int
    data_area_mib: int

    def __str__(self) -> str:
        return f"{self.config} size={self.size_bytes} serial={self.serial}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """CHAP both ways; what ``repr`` and ``str`` show holds no secret."""

    userid: str
    mutual_userid: str
    password: str = field(repr=False)
    mutual_password: str = field(repr=False)

    def __str__(self) -> str:
        return f"userid={self.userid} mutual_userid={self.mutual_userid} (secrets not shown)"


@dataclass(frozen=True, slots=True)
class MappedLun:
    """A LUN as one initiator sees it."""

    lun: int
    write_protect: bool

    def __str__(self) -> str:
        return f"LUN {self.lun} {'read-only' if self.write_protect else 'read-write'}"


Value = str | int | bool | BlockBackstore | UserBackstore | Credentials | MappedLun
Key = tuple[Kind, str, *tuple[str, ...]]
Tree = dict[Key, Value]

SETTABLE = frozenset(
    (
        Kind.BACKSTORE_ATTRIBUTE,
        Kind.ALUA_STATE,
        Kind.DISCOVERY_CLOSED,
        Kind.TPG_ATTRIBUTE,
        Kind.TPG_PARAMETER,
        Kind.CHAP,
        Kind.ENABLED,
    )
)
"""Kinds that exist as long as their parent does and are set; the others are made and removed."""


def in_creation_order(tree: Tree) -> Tree:
    """Return ``tree`` with parents before children and portals and enabling last."""
    return dict(sorted(tree.items(), key=lambda item: CREATION_ORDER[item[0][0]]))


def describe(key: Key) -> str:
    """Return a key for people, such as ``mapped LUN iqn...:orders.a.journal iqn...:b 0``."""
    return " ".join((key[0].value, *key[1:]))
