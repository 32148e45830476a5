"""Make room in a full ring: wait for a reader, or leave the slowest one behind (F14, F31).

A reader is left behind by noting, durably, what it will miss; only then its part of the ring is
reclaimed. It is the slowest one first, and only as far as a quarter of the ring is free, so a
reader that keeps up is not touched. One that was left behind waits for nobody a second time: its
map grows until it has received past the map's end.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from replicator.codec.dirty_map import ReaderMap, pack, union, unpack
from replicator.codec.topology import JournalPolicy
from replicator.errors import NoRoomForMaps
from replicator.journal.gap import without_reader
from replicator.journal.journal import Journal
from replicator.journal.left_behind import changed_between

RoomState = Literal["free", "waiting", "holding", "detaching"]

WARNING_FRACTION = 0.8
"""Of the ring in use: a warning, and where copies of a resync stop."""


class RoomReport(NamedTuple):
    """How the ring stands, for status; ``reason`` names the site that is waited for."""

    state: RoomState
    reason: str = ""


FREE = RoomReport("free")


class Room:
    """One site's guard of its ring."""

    def __init__(self, journal: Journal, policy: JournalPolicy) -> None:
        self._journal = journal
        self._policy = policy
        self._full_since: float | None = None
        self.report = FREE
        self.detached = 0
        """Readers left behind since the start."""

    def step(self, now: float) -> bool:
        """Look at the ring, and free some of it if it is time; True if anything was published.

        Raises JournalFailed.
        """
        dropped = self._drop_maps_that_are_done()
        if not self._full:
            self._full_since, self.report = None, FREE
            return dropped
        slowest = self._slowest()
        if slowest is None:
            self.report = RoomReport("waiting", "its own volumes: the next checkpoint")
            return dropped
        if self._must_wait(now, slowest):
            return dropped
        return self._leave_behind(slowest) or dropped

    @property
    def _full(self) -> bool:
        """Whether the largest batch might not fit."""
        journal = self._journal
        return journal.free_bytes - journal.kept_back_bytes < journal.body.batch_bound

    def _slowest(self) -> str | None:
        """Return the reader that holds the ring, None if it is the own checkpoint that does."""
        journal = self._journal
        sites = sorted(journal.owner.peers, key=journal.covered)
        if not sites or journal.covered(sites[0]) >= journal.restored.position:
            return None
        if journal.covered(sites[0]) > journal.body.reclaim + journal.ring.place.size // 4:
            return None  # reclaiming what everybody has frees enough
        return sites[0]

    def _must_wait(self, now: float, slowest: str) -> bool:
        if slowest in self._journal.maps.readers:
            return False  # left behind already
        if self._policy.when_full == "hold":
            self.report = RoomReport("holding", f"hosts wait until {slowest} has received more")
            return True
        if self._full_since is None:
            self._full_since = now
        left = self._full_since + self._policy.throttle_seconds - now
        if left > 0:
            self.report = RoomReport("waiting", f"{slowest} has {left:.1f} s to receive more")
            return True
        return False

    def _leave_behind(self, site: str) -> bool:
        """Note what ``site`` will miss of the next part of the ring: durable on return."""
        journal = self._journal
        part = max(journal.ring.place.size // 4, 2 * journal.body.batch_bound)
        covered = journal.covered(site)
        limit = min(journal.restored.position, covered + part)
        end, changed = changed_between(journal, site, limit)
        if end is None:  # it lies before what the ring holds: only a full copy helps it
            end = journal.restored
        known = journal.maps.readers.get(site)
        extents = union(changed, unpack(known.extents) if known is not None else {})
        begin = known.begin if known is not None else covered
        reader = ReaderMap(begin=begin, end=end, extents=pack(extents))
        maps = msgspec.structs.replace(journal.maps, readers={**journal.maps.readers, site: reader})
        try:
            journal.publish_maps(maps)
        except NoRoomForMaps as error:
            self.report = RoomReport("holding", str(error))
            return False
        self.detached += known is None
        self.report = RoomReport("detaching", f"{site} is left behind; it needs a resync")
        for _ in range(2):  # space is free when both page copies say so (model m10)
            journal.publish()
        return True

    def _drop_maps_that_are_done(self) -> bool:
        """Forget the map of a reader that has durably received past its end."""
        journal = self._journal
        done = [
            site
            for site, each in journal.maps.readers.items()
            if site in journal.peers and journal.peers[site].received[0] >= each.end.position
        ]
        maps = journal.maps
        for site in done:
            maps = without_reader(maps, site)
        if done:
            journal.publish_maps(maps)
        return bool(done)
