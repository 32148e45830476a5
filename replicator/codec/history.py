"""Epoch history and volume catalog: what a group is, kept in the metadata area of each journal.

Encoded as MessagePack; a new version is written beside the old one and named, with its digest, by
the owner's page (docs/formats/journal.md, section "Catalog").
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import msgspec

from replicator.model import ORIGIN, Pair


class Epoch(msgspec.Struct, frozen=True, array_like=True):
    """A term of one primary; it begins at the fork pair in the group's log.

    ``upstreams`` says whom every other site reads from now on. ``old_time_ns`` is the time of the
    last batch below the fork, ``at_ns`` that of the promotion on its site's wall clock; ``forced``
    and ``note`` say by which right: what was vouched for, by whom.
    """

    id: bytes
    number: int
    fork_position: int
    fork_digest: bytes
    site: str
    upstreams: tuple[tuple[str, str], ...] = ()
    old_time_ns: int = 0
    at_ns: int = 0
    forced: bool = False
    note: str = ""

    @property
    def fork(self) -> Pair:
        """The pair after which this epoch's batches follow."""
        return Pair(self.fork_position, self.fork_digest)


_EPOCH = msgspec.msgpack.Decoder(Epoch)  # built now: see codec/__init__.py


class Relation(Enum):
    """How another site's history stands to the own one."""

    SAME = "same"
    OLDER = "older"
    """Theirs is a true prefix of the own one."""
    NEWER = "newer"
    """The own one is a true prefix of theirs: they went on."""
    UNRELATED = "unrelated"
    """Neither contains the other: split brain, whatever the numbers."""


class Comparison(NamedTuple):
    """The relation, and the pair up to which both logs may be the same (None if SAME)."""

    relation: Relation
    fork: Pair | None


class VolumeEntry(msgspec.Struct, frozen=True, array_like=True):
    """A data volume of the group; ids are never reused."""

    id: int
    name: str
    size_bytes: int


class History(msgspec.Struct, frozen=True):
    """The epochs of a group, oldest first, by rising fork position."""

    epochs: tuple[Epoch, ...]

    def epoch_at(self, position: int) -> Epoch:
        """Return the epoch whose batch may stand at ``position``."""
        for epoch in reversed(self.epochs):
            if epoch.fork_position <= position:
                return epoch
        return self.epochs[0]

    @property
    def last(self) -> Epoch:
        """The current epoch."""
        return self.epochs[-1]

    def after(self, epoch_id: bytes) -> tuple[Epoch, ...]:
        """Return the epochs that follow ``epoch_id``; none if it is not in this history."""
        ids = [epoch.id for epoch in self.epochs]
        return self.epochs[ids.index(epoch_id) + 1 :] if epoch_id in ids else ()

    def compare(self, theirs: History) -> Comparison:
        """Say how ``theirs`` stands to this history; epochs are told apart by their ids alone."""
        shared = 0
        for own, other in zip(self.epochs, theirs.epochs, strict=False):
            if own.id != other.id:
                break
            shared += 1
        more_here, more_there = self.epochs[shared:], theirs.epochs[shared:]
        if more_here and more_there:
            forks = [more_here[0].fork, more_there[0].fork]
            return Comparison(Relation.UNRELATED, min(forks) if shared else ORIGIN)
        if more_here:
            return Comparison(Relation.OLDER, more_here[0].fork)
        if more_there:
            return Comparison(Relation.NEWER, more_there[0].fork)
        return Comparison(Relation.SAME, None)


class Catalog(msgspec.Struct, frozen=True):
    """Everything about the group that is not a position."""

    group: str
    group_id: bytes
    history: History
    volumes: tuple[VolumeEntry, ...]
    as_of: int = 0
    """Position up to which events are folded in; a site that attached late knows some ahead."""
    retired: tuple[int, ...] = ()
    """Ids of volumes that were removed: they are never used again."""


_CATALOG = msgspec.msgpack.Decoder(Catalog)  # built now: see codec/__init__.py


def encode_epoch(epoch: Epoch) -> bytes:
    """Return the payload of an ``epoch`` event."""
    return msgspec.msgpack.encode(epoch)


def decode_epoch(payload: bytes | memoryview) -> Epoch:
    """Return what an ``epoch`` event says; msgspec.MsgspecError if it is none."""
    return _EPOCH.decode(payload)


def encode_catalog(catalog: Catalog) -> bytes:
    """Return the MessagePack bytes of ``catalog``."""
    return msgspec.msgpack.encode(catalog)


def decode_catalog(content: bytes) -> Catalog:
    """Return the catalog; msgspec.MsgspecError if the bytes are not one."""
    return _CATALOG.decode(content)
