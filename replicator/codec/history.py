"""Epoch history and volume catalog: what a group is, kept in the metadata area of each journal.

Encoded as MessagePack; a new version is written beside the old one and named, with its digest, by
the owner's page (docs/formats/journal.md, section "Catalog").
"""

from __future__ import annotations

import msgspec

from replicator.model import Pair


class Epoch(msgspec.Struct, frozen=True, array_like=True):
    """A term of one primary; it begins at the fork pair in the group's log."""

    id: bytes
    number: int
    fork_position: int
    fork_digest: bytes
    site: str

    @property
    def fork(self) -> Pair:
        """The pair after which this epoch's batches follow."""
        return Pair(self.fork_position, self.fork_digest)


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

    def extends(self, other: History) -> bool:
        """Whether ``other`` is a prefix of this history (equal counts)."""
        return self.epochs[: len(other.epochs)] == other.epochs


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


def encode_catalog(catalog: Catalog) -> bytes:
    """Return the MessagePack bytes of ``catalog``."""
    return msgspec.msgpack.encode(catalog)


def decode_catalog(content: bytes) -> Catalog:
    """Return the catalog; msgspec.MsgspecError if the bytes are not one."""
    return msgspec.msgpack.decode(content, type=Catalog)
