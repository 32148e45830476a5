"""Near: the owner of a ring that the primary writes over a sync link (claims 17, 28, 29).

It appends nothing. It sees how far the primary has proved the ring to be durable, moves the own
head there, and so lets restore, reclaim and the readers of its page go on.
"""

from __future__ import annotations

from replicator.codec.batch import Point
from replicator.codec.catalog_records import BadEvent, catalog_after
from replicator.errors import Detached, JournalRotten, PeerRefused
from replicator.journal.journal import Journal
from replicator.journal.limits import ring_limit
from replicator.journal.pages import read_writer_page
from replicator.journal.peer import Peer
from replicator.journal.reader import Run, read_batches, read_committed

WINDOW_BYTES = 4 << 20


class Near:
    """Follows what the primary writes into the own ring."""

    def __init__(self, journal: Journal, primary: Peer, window: int = WINDOW_BYTES) -> None:
        self._journal = journal
        self._primary = primary
        self._window = window

    def step(self, now: float) -> bool:
        """Move the head over one window; False if there is nothing more to believe.

        What the head passes is durable; pages are published by the checkpoint. At first contact
        the group is adopted, and with it the primary may write. Raises DeviceFailed, PeerRefused
        (tried again), JournalRotten (halt).
        """
        del now
        journal = self._journal
        if not journal.attached:
            self._attach()
        if journal.body.sealed is not None:
            return False
        at = journal.head
        run = self._believed(at)
        if not run.batches:
            return False
        end = run.end(at)
        try:
            changed = catalog_after(journal.catalog, run.batches)
        except BadEvent as error:
            raise JournalRotten(f"{journal.device.name}: behind {at.position}: {error}") from error
        journal.advance(end, None if changed is journal.catalog else changed)
        return True

    def _believed(self, at: Point) -> Run:
        journal = self._journal
        catalog = journal.catalog
        ring, window = journal.ring, self._window
        limit = ring_limit(journal.page, read_writer_page(journal.device))
        if at.position < limit.stated.position:
            stated = limit.stated.position
            run = read_batches(ring, at, stated, catalog.group_id, catalog.history, window)
            if not run.batches:
                offset = ring.place.segments(at.position, 1)[0][0]
                raise JournalRotten(
                    f"{journal.device.name}: journal rot at device offset {offset} ({run.stop}), "
                    f"below {stated}, which its writer states as durable; compare with the "
                    "primary's ring: replicatorctl journal check"
                )
            return run
        if limit.headers_from is None or at.position < limit.headers_from:
            return Run([], memoryview(b""), None)
        return read_committed(ring, at, window, catalog.group_id, catalog.history)

    def _attach(self) -> None:
        page = self._primary.look().newer
        if page.body.role != "primary":
            raise PeerRefused(
                f"{self._primary.device_name}: {page.body.site} is {page.body.role}, a sync link "
                "begins at the primary"
            )
        if page.body.reclaim > 0:
            raise Detached(
                f"{self._primary.device_name}: {page.body.site} has already reclaimed its first "
                f"{page.body.reclaim} bytes, this site has none of them; an initial copy is needed "
                "(not available in this release: rebuild the group)"
            )
        self._journal.attach(page.group_id, self._primary.catalog())
