"""The sync link at its primary: what a lost leg means for hosts, and how it comes back.

Each batch goes to the own ring and to the near ring at the same time and is answered when it is
durable in both. When the leg is lost, ``sync-or-stop`` holds the batch (and the hosts) until it is
back, whatever that takes; ``sync-or-degrade`` goes on without it, but states that durably in the
own page before the first answer, and before that asks the near site's page whether somebody has
been promoted meanwhile. The primary alone brings the near ring up again.

Three states. LOST: the leg is not written; ``step`` reconnects and sends what is missing. JOINING:
little is missing; the next batch takes the rest along, or an idle ``step`` does. SYNCED: each batch
is durable at the near site before the next one is built.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from replicator.codec.batch import Point
from replicator.codec.topology import Link
from replicator.errors import DeviceFailed, LegLost, PeerRefused
from replicator.journal.journal import DEGRADED, Journal
from replicator.journal.leg import Leg, check_not_shut_out
from replicator.journal.peer import Peer

log = logging.getLogger(__name__)

DETECTION_SECONDS = 10.0
"""A leg that has not answered for so long is lost, and no host has been answered since."""
CONNECT_SECONDS = 30.0
"""So long a new session to a lost leg may take (logout, login, disk): nobody waits for it."""
PROBE_SECONDS = 1.0
RETRY_SECONDS = 1.0
JOIN_BYTES = 1 << 20
"""The next batch takes so much of the rest along."""


class LinkState(Enum):
    """Where the leg is."""

    LOST = "lost"
    JOINING = "joining"
    SYNCED = "synced"


class LegCall(Protocol):
    """A call to the leg that is under way."""

    def done(self, seconds: float) -> bool:
        """Wait so long at most; whether it has ended. One that has not is never waited for again,
        and not begun if it has not begun yet."""

    def result(self) -> None:
        """Raise what the call raised."""


LegCaller = Callable[[Callable[[], None]], LegCall]
"""Runs calls one after the other, on a thread of its own, so that a hang stalls nothing else."""


class SyncLink:
    """One sync link. ``begin`` and ``finish`` belong to the commit loop, ``admit`` and ``step`` to
    the link's own mover."""

    def __init__(
        self,
        journal: Journal,
        leg: Leg,
        near: Peer,
        policy: Link,
        call: LegCaller,
        monotonic: Callable[[], float],
        *,
        detection_seconds: float = DETECTION_SECONDS,
        join_bytes: int = JOIN_BYTES,
    ) -> None:
        self.policy = policy
        self.state = LinkState.LOST
        self.reason = "not connected yet"
        self.changed_at = monotonic()
        self._journal = journal
        self._leg = leg
        self._near = near
        self._call = call
        self._monotonic = monotonic
        self._detection_seconds = detection_seconds
        self._join_bytes = join_bytes
        self._confirmed_at = float("-inf")
        self._in_flight: LegCall | None = None
        self._passing = 0
        """The end of the batch that is under way; while it is above the own head nobody else
        decides what the near ring holds behind the head."""
        self._joined = False
        """In this session the writer's page says since when headers prove (the leg's thread)."""
        self._lock = threading.Lock()
        self._marking = threading.Lock()
        """One at a time looks at the degraded mark and sets it or takes it away."""

    # -- what hosts may have -------------------------------------------------------------------

    @property
    def site(self) -> str:
        """The near site."""
        return self._leg.site

    @property
    def held(self) -> bool:
        """Whether hosts wait, reads too: or-stop, and the leg is lost or has been silent."""
        if self.policy != "sync-or-stop":
            return False
        silent = self._monotonic() - self._confirmed_at > self._detection_seconds
        return self.state is LinkState.LOST or silent

    @property
    def degraded(self) -> bool:
        """Whether hosts may have been answered what the near site lacks."""
        return DEGRADED in self._journal.body.marks

    @property
    def behind_bytes(self) -> int:
        """What the near ring lacks of the own one, as far as is known."""
        note = self._journal.peers.get(self.site)
        known = max(self._leg.position.position, note.received[0] if note else 0)
        return max(0, self._journal.head.position - known)

    # -- the commit loop -----------------------------------------------------------------------

    def begin(self, content: memoryview, end: Point) -> None:
        """Start to write a batch at the near site; returns at once."""
        start = self._journal.head
        with self._lock:
            state = self.state
            self._passing = end.position
        if state is LinkState.LOST:
            return
        join = state is LinkState.JOINING
        self._in_flight = self._call(lambda: self._put(start, content, end, join=join))

    def finish(self, content: memoryview, end: Point) -> bool:
        """Say whether the batch, durable in the own ring, may be answered; False: call again.

        Raises ShutOut when the near site says that this primary's time is over, JournalFailed.
        """
        if self._in_flight is None:
            self.begin(content, end)
            if self._in_flight is None:
                return self._goes_on_alone()
        call, self._in_flight = self._in_flight, None
        if self._ended(call):
            self._synced()
            return True
        return self._goes_on_alone()

    def _goes_on_alone(self) -> bool:
        """The batch cannot be had at the near site now: hosts wait, or go on without it."""
        if self.policy == "sync-or-stop":
            return False
        self._degrade()
        return True

    def _put(self, start: Point, content: memoryview, end: Point, *, join: bool) -> None:
        """On the leg's thread: write a batch, after what is missing before it."""
        leg = self._leg
        self._bring_up(start)
        if join:  # stated before the batch: a near ring that is full must get on to have room
            leg.state(start, start.position)
            self._joined = True
        leg.put(content, end)

    def _ended(self, call: LegCall | None, seconds: float | None = None) -> bool:
        """Wait for a call, the detection time if not said; False if the leg is lost by it."""
        assert call is not None
        limit = self._detection_seconds if seconds is None else seconds
        if not call.done(limit):
            self._lose(f"{self.site} has not answered for {limit:g} s")
            return False
        try:
            call.result()
        except LegLost as error:
            self._lose(str(error))
            return False
        self._confirmed_at = self._monotonic()
        return True

    def _lose(self, reason: str) -> None:
        with self._lock:
            if self.state is not LinkState.LOST:
                self.changed_at = self._monotonic()
                log.warning("sync link lost site=%s reason=%r", self.site, reason)
            self.state, self.reason = LinkState.LOST, reason

    def _synced(self) -> None:
        """The near ring holds all there is: say so, and take the degraded mark away."""
        with self._lock:
            if self.state is not LinkState.JOINING or not self._joined:
                return
            self.state, self.reason = LinkState.SYNCED, ""
            self.changed_at = self._monotonic()
        log.info("sync link in sync site=%s", self.site)
        with self._marking:
            if self.degraded and self.state is LinkState.SYNCED:
                self._journal.publish(unmark={DEGRADED})

    def _degrade(self) -> None:
        """State durably that hosts are answered without the near site; ShutOut if it was sealed."""
        with self._marking:
            if self.degraded:
                return
            call = self._call(self._ask_near)
            if call.done(self._detection_seconds):
                try:
                    call.result()
                except (DeviceFailed, PeerRefused) as error:
                    log.warning("near site not read before degrading reason=%r", str(error))
            self._journal.publish(mark={DEGRADED: self.reason})
        log.warning("degraded: hosts are answered without site=%s", self.site)

    def _ask_near(self) -> None:
        check_not_shut_out(self._near.look().newer)

    # -- the link's mover ----------------------------------------------------------------------

    def admit(self) -> bool:
        """Before a primary serves, after its recovery: may it?

        Takes over what the near ring holds validly behind the own head, and has the tail of the
        own ring durable there, or (or-degrade) the mark. False means try again: hosts are held.
        Raises ShutOut, PeerAhead.
        """
        if self._ended(self._call(self._connect_and_adopt)):
            if self.degraded and self._leg.behind_bytes > self._join_bytes:
                return True  # as it was before the restart; ``step`` brings the near ring up
            if self._sent_all_but_the_rest():
                self._join()
        if self.state is LinkState.SYNCED:
            return True
        if self.policy == "sync-or-stop":
            return False
        self._degrade()
        return True

    def _connect_and_adopt(self) -> None:
        self._joined = False
        self._leg.connect()
        # A primary that has served alone has shown hosts a state without the near ring's tail.
        adopted = 0 if self.degraded else self._leg.adopt()
        if adopted:
            log.info("adopted from the near ring site=%s batches=%d", self.site, adopted)
        self._leg.begin()

    def step(self, now: float) -> float:
        """Do what is next for the link; return the seconds until then.

        Raises ShutOut, PeerAhead, JournalRotten (the own ring): the site halts.
        """
        del now
        if self.state is LinkState.SYNCED:
            self._ended(self._call(self._probe))
            return PROBE_SECONDS
        if self.state is LinkState.JOINING:
            self._join()
            return PROBE_SECONDS
        if not self._ended(self._call(self._connect), CONNECT_SECONDS):
            return RETRY_SECONDS
        if not self._sent_all_but_the_rest():
            return RETRY_SECONDS
        self._join()
        return 0.0

    def _sent_all_but_the_rest(self) -> bool:
        """Bring the near ring up until the next batch can take the rest along; False: lost."""
        while self._leg.behind_bytes > self._join_bytes:
            if not self._ended(self._call(self._send_window)):
                return False
        return True

    def _connect(self) -> None:
        self._joined = False
        self._leg.connect()
        self._leg.begin()

    def _send_window(self) -> None:
        self._leg.send(self._journal.head)
        self._leg.state(self._leg.position, None)

    def _join(self) -> None:
        """Give the near ring every batch from now on, and the rest now if no batch is passing."""
        with self._lock:
            self.state = LinkState.JOINING
            passing = self._passing > self._journal.head.position
        if not passing and self._ended(self._call(self._settle)):
            self._synced()

    def _settle(self) -> None:
        """On the leg's thread: bring up the rest, then say since when headers prove again."""
        leg = self._leg
        self._bring_up(self._journal.head)
        leg.cut_tail()
        both = self._durable_in_both()
        leg.state(both, both.position)
        self._joined = True

    def _bring_up(self, until: Point) -> None:
        """Send what is missing up to ``until``; what is sent is stated, so that the near site's
        readers get on and a small ring does not fill up for ever."""
        leg = self._leg
        while not leg.send(until):
            leg.state(leg.position, None)

    def _probe(self) -> None:
        """On the leg's thread: may the leg still be written, and what is durable in both?"""
        leg = self._leg
        leg.look()
        word, both = leg.stated, self._durable_in_both()
        if word is not None and word.flushed != both:
            leg.state(both, word.synced_since)

    def _durable_in_both(self) -> Point:
        head = self._journal.head
        return min(head, self._leg.position, key=lambda point: point.position)
