"""The primary's end of a sync link: writes the near site's ring and the writer's page there.

Nothing here decides what a loss means for hosts (movers/sync_link.py). Every method may raise
LegLost: then nothing above what was proved is known at the near site, and ``connect`` comes next.
Durability (model m11): a batch is durable when its write and a flush succeeded on one unbroken
connection, looked at before and after; where that cannot be told it is read back after the flush.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from replicator.codec.batch import LOG_START, Point
from replicator.codec.catalog_records import catalog_after
from replicator.codec.page import Page
from replicator.codec.writer_page import WriterBody, WriterPage, encode_writer_page
from replicator.errors import DeviceFailed, JournalRotten, LegLost, NotAJournal, PeerAhead, ShutOut
from replicator.journal.journal import FENCED, Journal
from replicator.journal.layout import WRITER_PAGE_AT, RingPlace
from replicator.journal.limits import in_force
from replicator.journal.pages import read_statement, read_writer_page, write_writer_page
from replicator.journal.reader import header_at, read_batches
from replicator.journal.ring import Ring
from replicator.model import BLOCK
from replicator.seams.legdevice import LegDevice

_SESSION = "a new session"

WINDOW = 4 << 20
"""Bytes that one step of bringing the near ring up sends, at least one batch."""


def check_not_shut_out(page: Page) -> None:
    """Raise ShutOut if the near site's page says that the primary's time is over."""
    body = page.body
    if body.sealed is not None or FENCED in body.marks:
        at = body.sealed[0] if body.sealed else body.head.position
        raise ShutOut(
            f"site {body.site} was sealed at position {at} ({body.marks.get(FENCED, 'sealed')}): "
            "another site may have been promoted, so this one answers nobody; see which site "
            "serves before anything else: replicatorctl status"
        )


class Leg:
    """One near ring; used by one thread at a time."""

    def __init__(self, site: str, device: LegDevice, own: Journal) -> None:
        self.site = site
        self._device = device
        self._own = own
        self.position: Point = LOG_START
        """The end of what is durable in the near ring and continues the own log."""
        self._connection: object = None
        self._usable = False
        """Nothing went wrong since the session began; else nothing may be concluded from it."""
        self._page: Page | None = None
        self._reclaim = 0
        self._writer_page: WriterPage | None = None

    @property
    def behind_bytes(self) -> int:
        """What the near ring lacks of the own one."""
        return max(0, self._own.head.position - self.position.position)

    def connect(self) -> None:
        """Begin a new session and find out what the near ring provably holds.

        Raises ShutOut (it was sealed), PeerAhead (it provably holds more than this journal),
        LegLost (unreachable, another writer's, diverged, or further behind than this ring goes).
        """
        with self._lost(_SESSION):
            self._device.renew()
            self._connection = self._device.connection()
        self._usable = True
        page = self.look()
        with self._lost("reading the writer's page"):
            self._writer_page = read_writer_page(self._device)
        self.position = self._proved(page)

    def look(self) -> Page:
        """Read the owner's page: may this primary still write, and how far is the ring free?"""
        with self._lost("reading its page"):
            statement = read_statement(self._device)
        page = statement.newer
        self._check(page)
        self._page = page
        self._reclaim = min(page.body.reclaim, statement.older.body.reclaim)
        return page

    def adopt(self) -> int:
        """Take over what the near ring holds validly behind the own head; return how many batches.

        Only before a primary that has restarted serves: a batch that its own ring lost may be
        whole at the near site, and then it belongs to the log (model m3).
        """
        own, ring = self._own, self._ring
        catalog = own.catalog
        at = self.position
        with self._lost("reading its ring"):
            while at.position < own.head.position:
                end = own.head.position
                run = read_batches(ring, at, end, catalog.group_id, catalog.history, WINDOW)
                if not run.batches:
                    return 0
                at = run.end(at)
            if at != own.head:
                return 0
            end = at.position + min(own.free_bytes, ring.place.size)
            run = read_batches(ring, at, end, catalog.group_id, catalog.history, WINDOW)
        if run.batches:
            changed = catalog_after(catalog, run.batches)
            given = None if changed is catalog else changed
            own.append([run.content], run.end(at), given)
        return len(run.batches)

    def begin(self) -> None:
        """State, durably, that the ring is being brought up: headers prove nothing meanwhile."""
        self.state(self.position, None)

    def send(self, until: Point) -> bool:
        """Send one window of the own ring towards ``until``; True when the near ring holds it.

        Durable there on return. ``until`` is at or below the own head. JournalRotten if the own
        ring does not hold what it states.
        """
        at = self.position
        if at.position >= until.position:
            return True
        own = self._own
        catalog = own.catalog
        limit = min(until.position, at.position + self._room(own.body.batch_bound))
        run = read_batches(own.ring, at, limit, catalog.group_id, catalog.history, WINDOW)
        if not run.batches:
            if limit < until.position:
                raise self._full()
            raise JournalRotten(
                f"{own.device.name}: journal rot behind position {at.position} ({run.stop}): it "
                f"cannot be sent to {self.site}"
            )
        self._write(at, run.content, run.end(at))
        return self.position.position >= until.position

    def cut_tail(self) -> None:
        """Make what stands validly behind ``position`` in the near ring invalid: durable on return.

        A batch that the own log does not have, because a primary that had lost it went on without
        the near site: a seal must not take it for the end of the log.
        """
        ring = self._ring
        with self._lost("reading its ring"):
            if header_at(ring, self.position) is None:
                return
        room = self._room(BLOCK)
        if room >= BLOCK:
            self._write(self.position, bytes(BLOCK), self.position)

    def put(self, content: memoryview | bytes, end: Point) -> None:
        """Write one batch behind ``position``: one write, one flush, durable on return."""
        at = self.position
        assert end.position - at.position == len(content), (at, end)
        if self._room(len(content)) < len(content):
            raise self._full()
        self._write(at, content, end)

    def state(self, flushed: Point, synced_since: int | None) -> None:
        """Write the writer's page: durable on return."""
        assert self._page is not None
        own = self._own
        epoch_id = own.catalog.history.last.id
        body = WriterBody(
            site=own.owner.site, epoch_id=epoch_id, flushed=flushed, synced_since=synced_since
        )
        before = self._writer_page
        page = WriterPage(
            before.generation + 1 if before else 1,
            own.catalog.group_id,
            self._page.journal_id,
            own.owner.boot_id,
            body,
        )
        with self._lost("writing the writer's page"):
            write_writer_page(self._device, page)
            place = WRITER_PAGE_AT[page.generation % 2]
            self._confirm([(place, memoryview(encode_writer_page(page)))])
        self._writer_page = page

    @property
    def stated(self) -> WriterBody | None:
        """What the writer's page says."""
        return self._writer_page.body if self._writer_page else None

    # -- what the near site says ---------------------------------------------------------------

    @property
    def _ring(self) -> Ring:
        assert self._page is not None
        body = self._page.body
        return Ring(self._device, RingPlace(body.ring_offset, body.ring_size))

    def _check(self, page: Page) -> None:
        body, own = page.body, self._own
        me = own.owner
        if (body.group, body.site) != (me.group, self.site):
            raise self._loss(f"holds the journal of group {body.group} at site {body.site}")
        known = own.peers.get(self.site)
        if known is not None and known.journal_id != page.journal_id:
            raise self._loss("its journal was formatted anew or replaced by another")
        check_not_shut_out(page)
        if not body.writer_epoch:
            raise self._loss("its replicatord has not met this primary yet")
        if (body.writer, body.writer_epoch) != (me.site, own.catalog.history.last.id):
            raise self._loss(f"its page names {body.writer} in another epoch as its writer")

    def _proved(self, page: Page) -> Point:
        """Return the furthest point that a page states of the near ring; it is on the own log."""
        point = page.body.head
        word = self._writer_page
        if word is not None and in_force(page, word):
            point = max(point, word.body.flushed, key=lambda each: each.position)
        own = self._own
        if point.position > own.head.position:
            raise PeerAhead(
                f"{self._device.name}: {self.site} durably holds {point.position}, this primary's "
                f"own journal ends at {own.head.position}: this journal lost records that it had "
                "called durable; nothing is served from it"
            )
        if point.position < own.reclaim:
            raise self._loss(
                f"it ends at {point.position}, this journal begins at {own.reclaim}: it needs a "
                "resync"
            )
        if point.position == own.head.position:
            same = point.pair == own.head.pair
        else:
            same = header_at(own.ring, point) is not None
        if not same:
            raise self._loss(f"it has diverged: {point.pair} there is not on this log")
        return point

    # -- writing -------------------------------------------------------------------------------

    def _room(self, wanted: int) -> int:
        """Return the bytes that may be written behind ``position``, after another look if few."""
        ring = self._ring.place.size
        room = self._reclaim + ring - self.position.position
        if room < wanted:
            self.look()
            room = self._reclaim + ring - self.position.position
        return room

    def _write(self, at: Point, content: memoryview | bytes, end: Point) -> None:
        ring = self._ring
        view = memoryview(content)
        with self._lost(f"writing at position {at.position}"):
            ring.write(at.position, view)
            self._device.flush()
            pieces = []
            done = 0
            for offset, size in ring.place.segments(at.position, len(view)):
                pieces.append((offset, view[done : done + size]))
                done += size
            self._confirm(pieces)
        self.position = end

    def _confirm(self, pieces: list[tuple[int, memoryview]]) -> None:
        """Raise unless what was written and flushed is durable (model m11)."""
        now = self._device.connection()
        if now is not None and self._connection is not None:
            if now != self._connection:
                raise self._loss("its connection was renewed between a write and the flush")
            return
        for offset, content in pieces:
            if memoryview(self._device.read(offset, len(content))) != content:
                raise self._loss(f"what was written at device offset {offset} is not there")

    def _full(self) -> LegLost:
        return self._loss(
            f"its ring is full ({self._reclaim} reclaimed, {self.position.position} written): "
            "is its replicatord running, and who has not received?"
        )

    def _loss(self, reason: str) -> LegLost:
        self._usable = False
        return LegLost(f"{self._device.name}: {self.site}: {reason}")

    @contextmanager
    def _lost(self, what: str) -> Iterator[None]:
        if not self._usable and what != _SESSION:
            raise self._loss("the session has failed before; a new one comes first")
        try:
            yield
        except (DeviceFailed, NotAJournal) as error:
            raise self._loss(f"{what} failed: {error}") from error
