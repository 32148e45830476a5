"""Another site's journal, read-only: its pages, its ring, and whether it may be believed."""

from __future__ import annotations

from collections.abc import Iterable

from replicator.codec.dirty_map import MapSet
from replicator.codec.history import Catalog, History, Relation
from replicator.codec.page import CatalogRef, Page, PeerNote
from replicator.codec.writer_page import WriterPage
from replicator.errors import DeviceFailed, JournalRotten, NotAJournal, PeerAhead, PeerRefused
from replicator.journal.journal import Journal, read_catalog
from replicator.journal.layout import RingPlace
from replicator.journal.limits import Limit, ring_limit
from replicator.journal.map_area import read_maps
from replicator.journal.pages import Statement, read_statement, read_writer_page
from replicator.journal.ring import Ring
from replicator.model import Pair
from replicator.seams.blockdevice import JournalDevice
from replicator.seams.metereddevice import MeteredDevice

_NO_GROUP = bytes(16)


class Peer:
    """Reads one other site. ``look`` also notes what it found in the own journal's memory, from
    where the next published page relays it."""

    def __init__(self, site: str, device: JournalDevice, own: Journal) -> None:
        self.site = site
        self._device = MeteredDevice(device)
        self._own = own
        self._catalog: tuple[bytes, Catalog] | None = None
        self.statement: Statement | None = None
        self._writer_page: WriterPage | None = None

    @property
    def device_name(self) -> str:
        """The device that the peer's journal is read from, for messages."""
        return self._device.name

    @property
    def read_bytes(self) -> int:
        """Everything that was read from the device so far, bytes: the traffic on the link."""
        return self._device.read_bytes

    @property
    def ring(self) -> Ring:
        """The peer's ring; only after a successful look."""
        assert self.statement is not None
        body = self.statement.newer.body
        return Ring(self._device, RingPlace(body.ring_offset, body.ring_size))

    def close(self) -> None:
        """Close the device."""
        self._device.close()

    @property
    def limit(self) -> Limit:
        """Up to where the peer's ring may be believed; only after a successful look."""
        assert self.statement is not None
        return ring_limit(self.statement.newer, self._writer_page)

    def look(self) -> Statement:
        """Read both page copies and judge them.

        Raises PeerRefused (nothing is noted then), DeviceFailed.
        """
        try:
            statement = read_statement(self._device)
        except NotAJournal as error:
            raise PeerRefused(str(error)) from error
        if statement.newer.body.moved_to is not None:
            self._device.close()  # what stands in its place by now is found by opening again
            raise DeviceFailed(
                f"{self._device.name}: {self.site} has moved its journal to another device; it is "
                "looked for again"
            )
        for page in (statement.newer, statement.older):
            self._check(page)
        history = self._history_of(statement.newer)
        self._check_against_note(statement.newer, history)
        self._check_not_ahead(statement.newer, history)
        written_from_afar = statement.newer.body.writer is not None
        self._writer_page = read_writer_page(self._device) if written_from_afar else None
        self.statement = statement
        copies = (statement.older, statement.newer)  # a rewind is the one that goes back
        self._own.peers[self.site] = PeerNote(
            statement.older.journal_id,
            statement.older.generation,
            self._counted((page.received for page in copies), history),
            self._counted((page.restored for page in copies), history),
            history.last.id if history else b"",
        )
        return statement

    def _history_of(self, page: Page) -> History | None:
        """Return the epochs that a page's site knows, None before it has met its source."""
        reference = page.body.catalog
        return self._catalog_named(page, reference).history if reference else None

    def _counted(self, pairs: Iterable[Pair], history: History | None) -> tuple[int, bytes]:
        """Return what is durable there by either copy, up to the first fork that it lacks."""
        position, digest = min(pairs)
        if history is None or not self._own.attached:
            return position, digest
        relation, fork = self._own.catalog.history.compare(history)
        if fork is not None and relation is not Relation.NEWER and fork.position < position:
            return fork
        return position, digest

    def catalog(self) -> Catalog:
        """Return the catalog that the peer's page names; PeerRefused if it has none yet."""
        assert self.statement is not None
        page = self.statement.newer
        reference = page.body.catalog
        if reference is None:
            raise PeerRefused(f"{self._device.name}: {self.site} has not met its own source yet")
        return self._catalog_named(page, reference)

    def _catalog_named(self, page: Page, reference: CatalogRef) -> Catalog:
        if self._catalog is None or self._catalog[0] != reference.digest:
            try:
                catalog = read_catalog(self._device, page)
            except JournalRotten as error:  # or written anew since the page was read
                raise PeerRefused(f"{error}; looked at again later") from error
            assert catalog is not None
            self._catalog = (reference.digest, catalog)
        return self._catalog[1]

    def forget(self) -> str:
        """Forget the journal that was known, on an operator's word; return its id in hex.

        The next page is judged as at first contact.
        """
        note = self._own.peers.pop(self.site, None)
        return note.journal_id.hex() if note is not None else ""

    def maps(self) -> MapSet:
        """Return the dirty maps that the peer's durable page names.

        PeerRefused if they are damaged: nobody can say then what a reader misses.
        """
        assert self.statement is not None
        page = self.statement.older
        try:
            return read_maps(self._device, page)
        except JournalRotten as error:
            raise PeerRefused(str(error)) from error

    def _check(self, page: Page) -> None:
        """Refuse another group or site, or a ring beyond the device (rule P5 held already)."""
        body = page.body
        own = self._own.body
        if (body.group, body.site) != (own.group, self.site):
            raise self._refusal(
                f"holds the journal of group {body.group} at site {body.site}, expected group "
                f"{own.group} at site {self.site}; check the topology and the LUN"
            )
        if self._own.attached and page.group_id not in (_NO_GROUP, self._own.catalog.group_id):
            raise self._refusal(
                f"group id is {page.group_id.hex()}, expected {self._own.catalog.group_id.hex()}: "
                "another group of the same name"
            )
        if body.ring_offset + body.ring_size > self._device.size_bytes:
            raise self._refusal(
                f"its ring ends at {body.ring_offset + body.ring_size}, the device at "
                f"{self._device.size_bytes}"
            )

    def _check_against_note(self, page: Page, history: History | None) -> None:
        note = self._own.peers.get(self.site)
        if note is None:
            return
        moved = note.journal_id in page.body.moved_from
        if page.journal_id != note.journal_id and not moved:
            raise self._refusal(
                f"journal id is {page.journal_id.hex()}, it was {note.journal_id.hex()}: its "
                "journal was formatted anew or replaced by a copy of another; if that was done on "
                f"purpose: replicatorctl peer accept {self.site}"
            )
        if page.generation < note.generation:
            raise self._refusal(
                f"page generation {page.generation} is older than the durable {note.generation} "
                "seen before: its journal went back in time"
            )
        since = history.after(note.epoch) if history else ()
        floor = min([note.received[0], *(epoch.fork_position for epoch in since)])
        if page.body.head.position < floor:
            raise self._refusal(
                f"states {page.body.head.position} as received, before it had {note.received[0]}"
            )

    def _check_not_ahead(self, page: Page, history: History | None) -> None:
        """A primary's own journal is the furthest of all, or it has lost something (F9).

        Of all that are in its own epoch: others have gone on, or have not heard that it did.
        """
        own = self._own
        if history and own.attached and history.last.id != own.catalog.history.last.id:
            return
        received = page.body.head.position
        if own.body.role == "primary" and own.attached and received > own.head.position:
            raise PeerAhead(
                f"{self._device.name}: {self.site} has received up to {received}, this primary's "
                f"own journal ends at {own.head.position}: this journal lost records that it had "
                "called durable; nothing is served from it"
            )

    def _refusal(self, reason: str) -> PeerRefused:
        return PeerRefused(f"{self._device.name}: {self.site}: {reason}")
