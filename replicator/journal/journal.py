"""A site's own journal: identity, durable statements and the ring, in one place.

The object is shared by the movers of a site: one of them appends (commit at a primary, pull at a
secondary), all publish. ``head`` moves only after the flush that made it durable.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from replicator.codec.batch import Point
from replicator.codec.digest import digest
from replicator.codec.dirty_map import NO_MAPS, MapSet, pack, unpack
from replicator.codec.history import Catalog, History, Relation, decode_catalog, encode_catalog
from replicator.codec.page import (
    CatalogRef,
    GapNote,
    OwnerBody,
    Page,
    PeerNote,
    PullNote,
    RestoreStop,
)
from replicator.errors import DeviceFailed, JournalFailed, JournalRotten, NotAJournal, WrongJournal
from replicator.journal.gap_progress import GapProgress
from replicator.journal.layout import CATALOG_SLOT_BYTES, CATALOG_SLOTS_AT, RingPlace
from replicator.journal.map_area import read_maps, write_maps
from replicator.journal.pages import Statement, next_page, read_statement, write_page
from replicator.journal.reclaim import plan_reclaim
from replicator.journal.ring import Ring
from replicator.model import BLOCK
from replicator.seams.blockdevice import Buffer, JournalDevice
from replicator.seams.movabledevice import MovableDevice

HALTED = "halted"
"""The mark of a site that answers nothing more; the next start takes it away, and only it."""

FENCED = "fenced"
"""The mark of a site, or of a ring's writer at a near site, that an operator has shut out."""

INCONSISTENT = "inconsistent"
"""The mark of a site whose volumes equal no point of the log, until a resync has ended."""
DEGRADED = "degraded"
"""The mark of a primary that has answered hosts without its near site (``sync-or-degrade``)."""

MARK_REASON_LENGTH = 200
"""Characters of a reason that a page keeps: all marks must fit into its block."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who opens a journal: what its page must say, and on which boot."""

    group: str
    site: str
    boot_id: bytes
    peers: tuple[str, ...] = field(default=())
    """Every other configured site of the group: reclaim counts all of them."""


class Journal:
    """An opened journal. Raises DeviceFailed as the device does; the device is then distrusted."""

    def __init__(
        self,
        device: JournalDevice,
        owner: Owner,
        statement: Statement,
        catalog: Catalog | None,
        maps: MapSet = NO_MAPS,
    ) -> None:
        newer = statement.newer
        self.device = device
        self.owner = owner
        self.ring = Ring(device, RingPlace(newer.body.ring_offset, newer.body.ring_size))
        self.head: Point = newer.body.head
        self.peers: dict[str, PeerNote] = dict(newer.body.peers)
        self._newer = newer
        self._older = statement.older
        self.damaged_copy = statement.damaged
        """Why one copy of the page was not valid when it was opened, or None."""
        self._catalog = catalog
        self.maps = maps
        """Dirty maps as the newest page names them."""
        self.gap: GapProgress | None = None
        """The gap that this site's volumes have, while they have one."""
        self._find_gap()
        self._lock = threading.Lock()
        self._appending = threading.Lock()
        self._written = newer.body.head.position
        self.before_catalog: Callable[[Catalog], None] = lambda _: None
        """Called before a new catalog is published; what it raises leaves the old one in force."""
        self.after_catalog: Callable[[Catalog], None] = lambda _: None

    @classmethod
    def open(cls, device: JournalDevice, owner: Owner) -> Journal:
        """Read pages and catalog; writes nothing.

        Raises NotAJournal (blank or foreign), WrongJournal (other group or site, ring that does
        not fit the device), JournalRotten (catalog damaged).
        """
        statement = read_statement(device)
        newer, older = statement.newer, statement.older
        body = newer.body
        if body.moved_to is not None:
            raise WrongJournal(
                f"{device.name}: this journal was moved to {body.moved_to[1]} (journal id "
                f"{body.moved_to[0].hex()}); put that device in its place and remove this one"
            )
        if (body.group, body.site) != (owner.group, owner.site):
            raise WrongJournal(
                f"{device.name}: journal of group {body.group} at site {body.site}, expected "
                f"group {owner.group} at site {owner.site}; check the topology's devices"
            )
        if older.journal_id != newer.journal_id:
            raise WrongJournal(
                f"{device.name}: its two page copies name different journals "
                f"({newer.journal_id.hex()}, {older.journal_id.hex()})"
            )
        if body.ring_offset + body.ring_size > device.size_bytes:
            raise WrongJournal(
                f"{device.name}: the ring ends at {body.ring_offset + body.ring_size}, the device "
                f"at {device.size_bytes}; the device was replaced or shrunk"
            )
        catalog, maps = read_catalog(device, newer), read_maps(device, newer)
        return cls(device, owner, statement, catalog, maps)

    @property
    def page(self) -> Page:
        """The newest durable page."""
        return self._newer

    @property
    def body(self) -> OwnerBody:
        """The newest durable statement."""
        return self._newer.body

    @property
    def catalog(self) -> Catalog:
        """The group's catalog; a site that never met its source has none (NotAJournal)."""
        if self._catalog is None:
            raise NotAJournal(
                f"{self.device.name}: formatted, but has not met its source yet; "
                "nothing was received"
            )
        return self._catalog

    @property
    def attached(self) -> bool:
        """Whether this journal knows its group's catalog."""
        return self._catalog is not None

    @property
    def restored(self) -> Point:
        """The durable checkpoint: where redo starts."""
        return self._newer.body.restored

    @property
    def restorable(self) -> int:
        """Position up to which records may be applied to the data volumes.

        A secondary's limit is its own durable statement, not the head in memory: what was applied
        above it would be there after a power loss that the statement did not survive, and the
        volumes would equal no point of the log. A primary's recovery finds its tail by itself.
        """
        if self.body.role == "primary":
            return self.head.position
        return self.body.head.position

    @property
    def reclaim(self) -> int:
        """First position that may not be overwritten: by the older copy (model m10)."""
        return min(self._older.body.reclaim, self._newer.body.reclaim)

    @property
    def copies_agree(self) -> bool:
        """Whether both copies of the page state the same head and reclaim.

        Others count by the older one; at an idle site nobody would ever write it again.
        """
        older, newer = self._older.body, self._newer.body
        return (older.head.position, older.reclaim) == (newer.head.position, newer.reclaim)

    @property
    def free_bytes(self) -> int:
        """Bytes that may be appended now."""
        return self.reclaim + self.ring.place.size - self.head.position

    @property
    def waits_for_restore(self) -> bool:
        """Whether the own restore is what keeps most of the ring: no other site needs as much."""
        return all(self.restored.position < received for received in self._received())

    @property
    def kept_back_bytes(self) -> int:
        """Free bytes that only events may use, so that a full ring can still be dealt with."""
        bound = self._newer.body.batch_bound
        return min(bound, max(2 * BLOCK, bound // 4 // BLOCK * BLOCK))

    @property
    def reclaimable(self) -> bool:
        """Whether publishing now would free space (by a new reclaim position or both copies)."""
        body = self._newer.body
        planned = plan_reclaim(
            body.ring_size,
            self.head.position,
            body.restored.position,
            self._received(),
            body.reclaim,
        )
        return planned > self.reclaim

    @property
    def untold_bytes(self) -> int:
        """The most by which a peer has received more than the newest page relays."""
        told = self._newer.body.peers
        return max(
            (
                note.received[0] - (told[site].received[0] if site in told else 0)
                for site, note in dict(self.peers).items()
            ),
            default=0,
        )

    @property
    def used_fraction(self) -> float:
        """Part of the ring that is needed by someone, 0 to 1."""
        floor = min([self.restored.position, *self._received()])
        return min(1.0, (self.head.position - floor) / self.ring.place.size)

    def covered(self, site: str) -> int:
        """Return the position up to which the ring is not needed for ``site``.

        That is what it has durably received, or the end of its dirty map if it is left behind.
        """
        note, left_behind = self.peers.get(site), self.maps.readers.get(site)
        received = _counted(note, self.catalog.history) if note is not None else 0
        if left_behind is not None and left_behind.begin <= received:
            return max(received, left_behind.end.position)
        return received

    def append(self, parts: Sequence[Buffer], end: Point, catalog: Catalog | None = None) -> None:
        """Write whole batches, in order, that end at ``end`` behind the head, and flush once.

        Durable on return, and only then is ``head`` moved. ``catalog`` is given when events among
        the batches changed it: then it is published together with the new head (and nothing else
        can state that head before). On DeviceFailed the head stays and nothing may be answered;
        recovery decides.
        """
        self.write_ahead(parts, end)
        self.advance(end, catalog)

    def write_ahead(self, parts: Sequence[Buffer], end: Point) -> None:
        """Write whole batches behind the head and flush once; the head stays where it is.

        Durable in this ring on return. For a primary whose batches have to be durable in another
        ring, too, before they count: ``advance`` says that they are.
        """
        with self._appending:
            at = self.head.position
            assert end.position - at == sum(len(part) for part in parts) <= self.free_bytes
            with _own_device():
                for part in parts:
                    self.ring.write(at, part)
                    at += len(part)
                self.device.flush()
            self._written = end.position

    def advance(self, end: Point, catalog: Catalog | None = None) -> None:
        """Move the head to ``end``: durable in every ring that must have it.

        With a ``catalog`` head and catalog are published together.
        """
        if catalog is None:
            self.head = end
        else:
            self.adopt(end, catalog)

    def adopt(self, head: Point, catalog: Catalog) -> None:
        """Move the head over events and publish it with the catalog after them: durable on return.

        The ring is durable up to ``head``. A crash before the page is durable leaves the head and
        the catalog that were before.
        """
        self.before_catalog(catalog)
        with self._lock:
            reference = write_catalog(self.device, self._newer, catalog)
            body = msgspec.structs.replace(self._newer.body, head=head, catalog=reference)
            self.head = head
            self._catalog = catalog
            self._write(next_page(self._newer, body, self.owner.boot_id))
        self.after_catalog(catalog)

    def publish(
        self,
        *,
        restored: Point | None = None,
        pull: PullNote | None = None,
        mark: Mapping[str, str] | None = None,
        unmark: Collection[str] = (),
        prepared: Mapping[int, tuple[str, int]] | None = None,
        sealed: Point | None = None,
    ) -> Page:
        """Write the next generation of the owner's page: durable on return.

        Carries the head, what is given here, the peers' notes and a new reclaim position.
        ``mark`` adds durable marks (name to reason), ``unmark`` takes named ones away; all others
        stay. ``sealed`` closes the ring there for good. The caller guarantees that data volumes
        are durable up to ``restored``.
        """
        with self._lock:
            body = self._newer.body
            head = self.head
            checkpoint = body.restored
            if restored is not None and restored.position > checkpoint.position:
                checkpoint = restored  # else a gap was taken after the caller had looked
            maps, gap = self.maps, body.gap
            left = self.gap.left_at(checkpoint) if self.gap is not None and restored else None
            if left is not None:
                maps = msgspec.structs.replace(
                    maps, missing=pack(left.missing) if left.gap is not None else None
                )
                gap = left.gap
                unmark = unmark if gap is not None else {*unmark, INCONSISTENT}
            maps_at = body.maps if left is None else write_maps(self.device, self._newer, maps)
            new_body = msgspec.structs.replace(
                body,
                head=head,
                restored=checkpoint,
                reclaim=plan_reclaim(
                    body.ring_size,
                    head.position,
                    checkpoint.position,
                    self._received(),
                    body.reclaim,
                ),
                peers=dict(self.peers),
                pull=pull or body.pull,
                marks=_changed_marks(body.marks, mark or {}, unmark),
                prepared=dict(body.prepared if prepared is None else prepared),
                sealed=sealed.pair if sealed else body.sealed,
                maps=maps_at,
                gap=gap,
            )
            page = self._write(next_page(self._newer, new_body, self.owner.boot_id))
            self.maps = maps
            if gap is None:
                self.gap = None
            return page

    def publish_maps(self, maps: MapSet) -> None:
        """Publish new dirty maps of readers, and the reclaim that they allow: durable on return.

        Raises NoRoomForMaps with nothing changed.
        """
        with self._lock:
            maps = msgspec.structs.replace(maps, missing=self.maps.missing)
            reference = write_maps(self.device, self._newer, maps)
            self.maps = maps
            body = msgspec.structs.replace(self._newer.body, maps=reference)
            for _ in range(2):  # both copies: the slot that the older one names is written next
                self._write(next_page(self._newer, body, self.owner.boot_id))

    def take_gap(
        self, entry: Point, catalog: Catalog, maps: MapSet, gap: GapNote | None, reason: str
    ) -> None:
        """Go on at ``entry`` without what lies between the head and it: durable on return.

        One page states the mark, the maps, the new head and an empty ring, so a crash leaves all
        or nothing of it; then both copies say so, and only then the ring is written anew. ``gap``
        is None at a site without volumes: it has nothing to be inconsistent.
        """
        self.before_catalog(catalog)
        with self._lock:
            reference = write_catalog(self.device, self._newer, catalog)
            maps_at = write_maps(self.device, self._newer, maps)
            body = self._newer.body
            body = msgspec.structs.replace(
                body,
                head=entry,
                restored=entry,
                reclaim=entry.position,
                catalog=reference,
                maps=maps_at,
                gap=gap,
                marks=_changed_marks(body.marks, {INCONSISTENT: reason} if gap else {}, ()),
            )
            for _ in range(2):
                self._write(next_page(self._newer, body, self.owner.boot_id))
                self.head, self._catalog, self.maps = entry, catalog, maps
            self._find_gap()
        self.after_catalog(catalog)

    def _find_gap(self) -> None:
        gap = self._newer.body.gap
        missing = unpack(self.maps.missing or {})
        self.gap = None if gap is None else GapProgress(self.owner.site, gap, missing)

    def set_restore_stop(self, stop: RestoreStop | None) -> None:
        """Note what an operator has told restore: durable on return."""
        with self._lock:
            body = msgspec.structs.replace(self._newer.body, restore_stop=stop)
            self._write(next_page(self._newer, body, self.owner.boot_id))

    def restate(self, change: Callable[[OwnerBody], OwnerBody]) -> Page:
        """Publish the newest statement as ``change`` makes it: durable on return.

        For fields that ``publish`` only carries on; ``change`` must leave all others. If it
        returns the body that it got nothing is written.
        """
        with self._lock:
            body = change(self._newer.body)
            if body is self._newer.body:
                return self._newer
            return self._write(next_page(self._newer, body, self.owner.boot_id))

    def enter_history(self, history: History, upstream: str) -> None:
        """Adopt epochs that follow the own ones and read from ``upstream``: durable on return.

        The head is not beyond the first new fork, and from there on only the new epochs' batches
        are valid in this ring. What peers have received counts up to that fork at most, until they
        are seen to be in the new epoch.
        """
        with self._lock:
            self._enter(history, self.head, lambda body: _secondary(body, upstream))

    def begin_epoch(
        self,
        batch: Buffer,
        end: Point,
        history: History,
        change: Callable[[OwnerBody], OwnerBody] = lambda body: body,
    ) -> None:
        """Begin an own epoch at the head: durable on return, and this ring's owner is primary.

        ``batch`` has the ``epoch`` event and ends at ``end``. The page with the history entry is
        the commit point: a crash before it leaves bytes above the head that are valid for nobody.
        ``change`` says what else that page states.
        """
        assert end.position - self.head.position == len(batch) <= self.free_bytes
        with self._appending, _own_device():
            self.ring.write(self.head.position, batch)
            self.device.flush()
        with self._lock:
            self._enter(history, end, lambda body: change(_primary(body)))

    def _enter(
        self, history: History, head: Point, change: Callable[[OwnerBody], OwnerBody]
    ) -> None:
        relation, fork = self.catalog.history.compare(history)
        assert relation is Relation.NEWER and fork is not None
        assert self.head.position <= fork.position, (self.head, fork)
        catalog = msgspec.structs.replace(self.catalog, history=history)
        body = msgspec.structs.replace(
            self._newer.body,
            head=head,
            catalog=write_catalog(self.device, self._newer, catalog),
            peers=dict(self.peers),
        )
        self.head, self._catalog = head, catalog
        self._write(next_page(self._newer, change(body), self.owner.boot_id))

    def retire(self, upstream: str) -> None:
        """State that this primary is none any more, and from whom it would read: durable on
        return. Head, history and tail stay."""
        with self._lock:
            body = msgspec.structs.replace(self._newer.body, head=self.head)
            self._write(next_page(self._newer, _secondary(body, upstream), self.owner.boot_id))

    def settle(self) -> None:
        """Write the newest page again into its copy: durable on return.

        A process that was killed, or whose flush failed, may have left a page that can be read
        and is not durable yet. Nothing may act on it, nor may its successor overwrite the copy
        that is durable, before it is.
        """
        with _own_device():
            write_page(self.device, self._newer)

    def attach(self, group_id: bytes, catalog: Catalog) -> None:
        """Adopt the group at first contact with the source: durable on return.

        Only for a journal that never held a record. Where another site writes the ring it may do so
        from now on, in the catalog's last epoch.
        """
        assert self._catalog is None and self.head.position == 0
        self.before_catalog(catalog)
        with self._lock:
            reference = write_catalog(self.device, self._newer, catalog)
            body = msgspec.structs.replace(self._newer.body, catalog=reference)
            if body.writer is not None:
                epoch_id = catalog.history.last.id
                body = msgspec.structs.replace(body, writer_epoch=epoch_id)
            page = next_page(self._newer, body, self.owner.boot_id)
            page = dataclasses.replace(page, group_id=group_id)
            self._write(page)
            self._catalog = catalog
        self.after_catalog(catalog)

    @property
    def written(self) -> int:
        """Position up to which this ring is durably written: the head, or a batch further."""
        return max(self._written, self.head.position)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing be appended or published meanwhile (for moving the journal)."""
        with self._appending, self._lock:
            yield

    def leave(self, device: JournalDevice, ring: Ring, pages: tuple[Page, Page]) -> None:
        """Name the journal on ``device`` in this one's page, durably, and go on there.

        Only while ``held``, with ``pages`` durable on ``device``. The page on the old device is
        the commit point; rings that others still hold keep reading the old device.
        """
        assert isinstance(self.device, MovableDevice)
        successor = (pages[1].journal_id, device.name)
        body = msgspec.structs.replace(self._newer.body, moved_to=successor, peers={}, prepared={})
        self._write(next_page(self._newer, body, self.owner.boot_id))
        self.device.switch(device)
        self.ring = ring
        self._older, self._newer = pages

    def received(self) -> list[int]:
        """What each other configured site has durably received; 0 for one never seen."""
        return self._received()

    def _received(self) -> list[int]:
        """Up to where each other configured site does not need this ring any more."""
        if self._catalog is None:
            return [0]
        return [self.covered(site) for site in self.owner.peers]

    def _write(self, page: Page) -> Page:
        with _own_device():
            write_page(self.device, page)
        self._older, self._newer = self._newer, page
        return page


def _primary(body: OwnerBody) -> OwnerBody:
    return msgspec.structs.replace(body, role="primary", upstream=None)


def _secondary(body: OwnerBody, upstream: str) -> OwnerBody:
    """Return the statement of a site that answers no hosts and means to answer none."""
    return msgspec.structs.replace(
        body, role="secondary", upstream=upstream, intent=None, active_on=b""
    )


def _counted(note: PeerNote, history: History) -> int:
    """Return up to where a peer has durably received the log of ``history``.

    What it noted in an older epoch counts up to the fork at which that ended. (A note without an
    epoch is of a version that knew only one.)
    """
    later = history.after(note.epoch or history.epochs[0].id)
    return min(note.received[0], later[0].fork_position) if later else note.received[0]


def _changed_marks(
    marks: Mapping[str, str], mark: Mapping[str, str], unmark: Collection[str]
) -> dict[str, str]:
    kept = {name: reason for name, reason in marks.items() if name not in unmark}
    return kept | {name: reason[:MARK_REASON_LENGTH] for name, reason in mark.items()}


@contextmanager
def _own_device() -> Iterator[None]:
    """Tell a failure of the own journal from that of a peer's or of a data volume."""
    try:
        yield
    except DeviceFailed as error:
        raise JournalFailed(
            f"{error}; the journal device is distrusted and this site halts: check the device, "
            "then restart replicatord"
        ) from error


def write_catalog(device: JournalDevice, current: Page | None, catalog: Catalog) -> CatalogRef:
    """Write ``catalog`` into the slot that the current page does not name, and flush.

    The page that names it is the commit point; until then the old catalog stands.
    """
    content = encode_catalog(catalog)
    if len(content) > CATALOG_SLOT_BYTES:
        raise WrongJournal(f"{device.name}: the catalog of {len(content)} bytes does not fit")
    used = current.body.catalog.offset if current and current.body.catalog else None
    slot = CATALOG_SLOTS_AT[1] if used == CATALOG_SLOTS_AT[0] else CATALOG_SLOTS_AT[0]
    device.write(slot, content + bytes(-len(content) % BLOCK))
    device.flush()
    return CatalogRef(slot, len(content), digest(content))


def read_catalog(device: JournalDevice, page: Page) -> Catalog | None:
    """Return the catalog that ``page`` names, or None if it names none.

    JournalRotten if its digest does not hold.
    """
    reference = page.body.catalog
    if reference is None:
        return None
    if reference.offset not in CATALOG_SLOTS_AT or reference.length > CATALOG_SLOT_BYTES:
        raise JournalRotten(f"{device.name}: the page names a catalog at {reference.offset}")
    padded = -(-reference.length // BLOCK) * BLOCK
    content = bytes(device.read(reference.offset, padded)[: reference.length])
    if digest(content) != reference.digest:
        raise JournalRotten(
            f"{device.name}: the catalog at offset {reference.offset} fails its digest"
        )
    try:
        return decode_catalog(content)
    except msgspec.MsgspecError as error:
        raise JournalRotten(f"{device.name}: the catalog is not readable: {error}") from error
