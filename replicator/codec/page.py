"""Pages: a site's durable statements about its own journal, 4 KiB each, in two copies.

Layout, little-endian: magic 8, version u16, kind u16 (1 owner, 2 writer), body length u32,
generation u64, group id 16, journal id 16, boot id 16, digest 16 (over the whole 4 KiB with this
field left out), then the body in MessagePack, then zeros. Generation g stands in copy g mod 2,
and g + 1 is written only after g was flushed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

import msgspec

from replicator.codec.batch import Point
from replicator.codec.digest import DIGEST_BYTES, digest_of_parts
from replicator.model import BLOCK, NO_DIGEST, SECTOR, Pair

MAGIC = b"TOWLPAGE"
VERSION = 1
_HEADER = struct.Struct("<8sHHIQ16s16s16s16s")
_DIGEST_AT = _HEADER.size - 16
_SHORTER_TEXTS = (100, 40, 10)
"""Characters of a mark's reason, where a page would not fit into its block otherwise."""


class PageKind(IntEnum):
    """Who writes a page."""

    OWNER = 1
    WRITER = 2


class PeerNote(msgspec.Struct, frozen=True):
    """The newest that this site knows of another one, relayed to everybody.

    ``received`` and ``restored`` are durable at that site: they are taken from the older of its
    two page copies. ``generation`` is that copy's. Both lie at or below the fork of the first epoch
    that this site knows and that one does not; ``epoch`` is the id of that one's last epoch (no
    bytes: noted by an older version, or it has none).
    """

    journal_id: bytes
    generation: int
    received: tuple[int, bytes]
    restored: tuple[int, bytes]
    epoch: bytes = b""


class PullNote(msgspec.Struct, frozen=True):
    """The last pull of the page's owner."""

    source: str
    interval_seconds: float
    reason: str
    records: int
    bytes: int
    at_ns: int


class RestoreStop(msgspec.Struct, frozen=True):
    """What an operator has told restore: to pause, or to stop before something.

    ``value`` is a position in bytes or a time of the log in nanoseconds; ``name`` a bookmark.
    """

    kind: Literal["paused", "position", "time", "bookmark"]
    value: int = 0
    name: str = ""


class Differing(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a volume that differs from the primary's, bytes.

    ``position`` is that of the newest verify record that said so.
    """

    volume_id: int
    offset: int
    length: int
    position: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.length


class VerifyNote(msgspec.Struct, frozen=True, kw_only=True):
    """What verify records have shown about the owner's volumes.

    ``differs`` lists the first pieces that differ, ``unlisted_bytes`` is how much more there is,
    ``found`` counts records that did not agree. ``repair`` is the number of an operator's request
    to have the pieces sent again, 0 for none; it is larger each time.
    """

    differs: tuple[Differing, ...] = ()
    unlisted_bytes: int = 0
    found: int = 0
    repair: int = 0


class VerifyRun(msgspec.Struct, frozen=True, kw_only=True):
    """A verification at the primary: what was ordered, and how far it is.

    ``rate`` is bytes of volumes a second; ``only`` a volume's id or 0 for all. ``volume_id`` and
    ``offset`` are what comes next. ``began`` and ``ended`` are positions of pass ``number``.
    """

    state: Literal["running", "stopped", "finished"]
    rate: float
    repeat: bool
    number: int
    only: int = 0
    volume_id: int = 0
    offset: int = 0
    began: int = 0
    began_ns: int = 0
    ended: int = 0
    ended_ns: int = 0


class GapNote(msgspec.Struct, frozen=True):
    """A gap that this site has taken in its log: its volumes miss something until a resync.

    ``id`` is new with every gap. ``after`` is the position that was held before, ``since_ns`` the
    time by this site's clock. ``begun`` is the id of the resync whose begin named this gap and has
    been restored. ``missing_bytes`` is what was missing at the last checkpoint.
    """

    id: bytes
    after: int
    since_ns: int
    begun: bytes = b""
    missing_bytes: int = 0


class CatalogRef(msgspec.Struct, frozen=True):
    """Where in the metadata area a catalog or dirty maps stand (device offset, bytes)."""

    offset: int
    length: int
    digest: bytes


class Intent(msgspec.Struct, frozen=True, array_like=True):
    """What a site is about to become; whoever reads it must not become the same (model m7).

    ``epoch_id`` and ``number`` are those of the epoch that a promotion begins, no bytes and 0 for a
    boot of a primary in its own epoch. ``without`` names the sites that need not be read, because
    the operator vouches that they are off or cut from hosts: then it is forced. ``note`` says who.
    """

    epoch_id: bytes
    number: int
    at_ns: int
    without: tuple[str, ...] = ()
    note: str = ""

    @property
    def promotes(self) -> bool:
        """Whether it is a promotion."""
        return bool(self.epoch_id)


class OwnerBody(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner of a ring states; positions and sizes in bytes.

    ``head`` is durable in this ring, ``restored`` is the checkpoint (data volumes are durable up
    to it, or ahead of it), ``reclaim`` is the first position that the ring still holds.
    ``marks`` are durable statements (halted, inconsistent, ...) with their reasons.
    ``writer`` is the ring's one writer where that is not the owner: the primary of a sync link, in
    the epoch ``writer_epoch`` alone (no bytes: in none yet). ``sealed`` is the pair at which an
    operator has closed the ring: nobody writes it, its writer's page is void.
    ``active_on`` is the kernel boot on which a primary answers hosts, no bytes where it does not;
    None is a page of a version that does not say: its primary counts as active.
    """

    group: str
    site: str
    role: str
    upstream: str | None
    ring_offset: int
    ring_size: int
    batch_bound: int
    catalog: CatalogRef | None
    head: Point
    restored: Point
    reclaim: int
    marks: dict[str, str] = {}
    peers: dict[str, PeerNote] = {}
    pull: PullNote | None = None
    moved_from: tuple[bytes, ...] = ()
    """Ids of the journals that this one took the place of, the newest last."""
    moved_to: tuple[bytes, str] | None = None
    """Id and device of the journal that took this one's place; it is a journal no more."""
    prepared: dict[int, tuple[str, int]] = {}
    """Changes of volumes that this site is ready for: name and size by volume id (size 0: the
    site's topology is without the volume); kept until the change is in this site's catalog."""
    writer: str | None = None
    writer_epoch: bytes = b""
    sealed: tuple[int, bytes] | None = None
    restore_stop: RestoreStop | None = None
    verified: VerifyNote = VerifyNote()
    verify_run: VerifyRun | None = None
    intent: Intent | None = None
    active_on: bytes | None = None
    maps: CatalogRef | None = None
    gap: GapNote | None = None


_OWNER_BODY = msgspec.msgpack.Decoder(OwnerBody)  # built now: see codec/__init__.py


@dataclass(frozen=True, slots=True)
class Page:
    """A valid page: identity and body."""

    generation: int
    group_id: bytes
    journal_id: bytes
    boot_id: bytes
    body: OwnerBody

    @property
    def received(self) -> Pair:
        """The pair up to which this ring durably holds the log."""
        return self.body.head.pair

    @property
    def restored(self) -> Pair:
        """The pair up to which this site's data volumes are durable."""
        return self.body.restored.pair


class PageDamaged(ValueError):
    """The bytes are not a valid page; the message says why."""


class Envelope(NamedTuple):
    """What stands around the body of every page; the digest covers all of it."""

    kind: PageKind
    generation: int
    group_id: bytes
    journal_id: bytes
    boot_id: bytes


def encode_page(page: Page) -> bytes:
    """Return the 4 KiB of ``page``; ValueError if the body does not fit.

    Where it would not fit (many sites, many marks) texts for people are shortened until it does.
    """
    envelope = Envelope(
        PageKind.OWNER, page.generation, page.group_id, page.journal_id, page.boot_id
    )
    return enclose(envelope, _encoded_to_fit(page.body))


def _encoded_to_fit(body: OwnerBody) -> bytes:
    encoded = msgspec.msgpack.encode(body)
    for length in _SHORTER_TEXTS:
        if _HEADER.size + len(encoded) <= BLOCK:
            break
        shorter = msgspec.structs.replace(
            body, marks={name: reason[:length] for name, reason in body.marks.items()}
        )
        encoded = msgspec.msgpack.encode(shorter)
    return encoded


def enclose(envelope: Envelope, body: bytes) -> bytes:
    """Return the 4 KiB of a page with an encoded body; ValueError if it does not fit."""
    if _HEADER.size + len(body) > BLOCK:
        raise ValueError(f"page body of {len(body)} bytes does not fit into one block")
    block = bytearray(BLOCK)
    kind, *identity = envelope
    _HEADER.pack_into(block, 0, MAGIC, VERSION, kind, len(body), *identity, b"")
    block[_HEADER.size : _HEADER.size + len(body)] = body
    block[_DIGEST_AT : _HEADER.size] = _page_digest(block)
    return bytes(block)


def _page_digest(block: bytes | bytearray | memoryview) -> bytes:
    return digest_of_parts((block[:_DIGEST_AT], block[_HEADER.size : BLOCK]))


def open_envelope(block: bytes | memoryview, kind: PageKind) -> tuple[Envelope, bytes]:
    """Return envelope and encoded body of a page of ``kind``; PageDamaged says what is wrong."""
    fields = _HEADER.unpack_from(block, 0)
    magic, version, found, body_length, generation, group_id, journal_id, boot_id, own = fields
    if magic != MAGIC:
        raise PageDamaged("no page magic")
    if _page_digest(block) != own:
        raise PageDamaged("page digest does not hold")
    if version != VERSION:
        raise PageDamaged(f"format version is {version}, expected {VERSION}")
    if found != kind or _HEADER.size + body_length > BLOCK:
        raise PageDamaged(f"page kind {found} with a body of {body_length} bytes")
    envelope = Envelope(kind, generation, group_id, journal_id, boot_id)
    return envelope, bytes(block[_HEADER.size : _HEADER.size + body_length])


def decode_page(block: bytes | memoryview) -> Page:
    """Return the page in ``block`` (4 KiB); PageDamaged says what is wrong."""
    envelope, encoded = open_envelope(block, PageKind.OWNER)
    try:
        body = _OWNER_BODY.decode(encoded)
    except msgspec.MsgspecError as error:
        raise PageDamaged(f"page body: {error}") from error
    nonsense = _nonsense(body)
    if nonsense:
        raise PageDamaged(f"page body makes no sense: {nonsense}")
    return Page(*envelope[1:], body)


def _nonsense(body: OwnerBody) -> str | None:
    """Return what no owner could state, or None; only a faulty writer makes such a page (F35)."""
    ring, head, restored = body.ring_size, body.head, body.restored
    if ring <= 0 or ring % BLOCK or body.ring_offset <= 0 or body.ring_offset % BLOCK:
        return f"ring at {body.ring_offset} of {ring} bytes"
    if not BLOCK <= body.batch_bound <= ring // 8:
        return f"batch bound {body.batch_bound} in a ring of {ring} bytes"
    if not 0 <= body.reclaim <= restored.position <= head.position <= body.reclaim + ring:
        return f"reclaim {body.reclaim}, restored {restored.position}, head {head.position}"
    if not all(_is_piece(piece) for piece in body.verified.differs):
        return "a piece that differs and lies in no volume"
    digests = [head.digest, restored.digest, body.writer_epoch or NO_DIGEST, *body.moved_from]
    if body.moved_to is not None:
        digests.append(body.moved_to[0])
    if body.sealed is not None:
        digests.append(body.sealed[1])
    digests += [body.active_on or NO_DIGEST, (body.intent and body.intent.epoch_id) or NO_DIGEST]
    for note in body.peers.values():
        digests += [note.received[1], note.restored[1], note.journal_id, note.epoch or NO_DIGEST]
    if any(len(digest) != DIGEST_BYTES for digest in digests):
        return "a digest or id that is not 16 bytes long"
    return None


def _is_piece(piece: Differing) -> bool:
    aligned = piece.offset % SECTOR == 0 and piece.length % SECTOR == 0
    return aligned and piece.offset >= 0 and piece.length > 0
