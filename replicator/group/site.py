"""One consistency group at one site: devices, movers and threads put together.

The only place where movers meet. Each mover has a thread of its own, so a read of a peer that
hangs in the kernel stalls nothing else (F47).
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from replicator.clock import Clock
from replicator.codec.batch import Point
from replicator.codec.page import RestoreStop
from replicator.codec.topology import Group
from replicator.errors import (
    DeviceFailed,
    JournalFailed,
    JournalRotten,
    PeerAhead,
    Refused,
    ShutOut,
    SplitBrain,
    TowlineError,
    WentOn,
    WrongJournal,
)
from replicator.group.commit_runner import CommitRunner
from replicator.group.devices import SiteDevices, check_catalog
from replicator.group.held_reads import HeldVolume
from replicator.group.last_consistent import LastConsistent
from replicator.group.leg_thread import LegThread
from replicator.group.liveness import Liveness
from replicator.group.mover_thread import MoverThread, in_thread
from replicator.group.standing import (
    Standing,
    part_in_force,
    retire_after,
)
from replicator.group.verification import Verification
from replicator.group.volume_set import VolumeSet
from replicator.group.volume_watch import VolumeWatch
from replicator.journal.journal import FENCED, HALTED
from replicator.journal.leg import Leg
from replicator.journal.meeting import meet
from replicator.journal.peer import Peer
from replicator.journal.recovery import Recovered, recover
from replicator.model import HostVolume
from replicator.movers.checkpoint import Checkpoint
from replicator.movers.commit import Commit
from replicator.movers.judge import Judge
from replicator.movers.near import Near
from replicator.movers.pull import Pull, PullReport
from replicator.movers.restore import Restore, RestoreTotals
from replicator.movers.restore_pace import RestorePace
from replicator.movers.resync import Resync
from replicator.movers.room import Room
from replicator.movers.sync_link import RETRY_SECONDS, SyncLink
from replicator.seams.filedevice import aligned_buffer
from replicator.seams.load import LoadMeter

log = logging.getLogger(__name__)

KEPT_PULLS = 200
_CHECKPOINT_TICK = 0.05
_OBSERVE_SECONDS = 1.0
_WATCH_SECONDS = 1.0
_OBSERVE_SHORT_SECONDS = 0.1
_FIRST_LOOK_SECONDS = 5.0
_STANDING_SECONDS = 1.0
_IDLE_RESTORE_SECONDS = 1.0
_STARTED_WITHIN_SECONDS = 10.0
_NEAR_SECONDS = 0.2
_FATAL_AT_NEAR = (JournalRotten, WrongJournal)
_ROOM_SECONDS = 1.0
_ROOM_SHORT_SECONDS = 0.05


def known_primary_head(peers: Iterable[Peer]) -> Point | None:
    """Return the furthest end of the log that any of ``peers`` has stated, None if none has."""
    stated = [peer.statement.newer.body.head for peer in peers if peer.statement is not None]
    return max(stated, key=lambda point: point.position, default=None)


class SiteRuntime:
    """Runs a group at a site.

    ``state`` is starting, held (a primary that its sync link has not admitted yet), serving,
    following, sealed (a near site whose ring was closed), unattached or halted.
    """

    def __init__(
        self,
        group: Group,
        site: str,
        devices: SiteDevices,
        clock: Clock,
        read_group: Callable[[], Group | None] = lambda: None,
    ) -> None:
        """``read_group`` returns the group anew when the topology file was changed, else None."""
        self.group = group
        self.part = part_in_force(group.site(site), devices.journal.body)
        self.devices = devices
        self.journal = devices.journal
        self.clock = clock
        self.state = "starting"
        self.reason = ""
        self.faults: dict[str, str] = {}
        """Why a mover does not get on, by mover; empty when all is well."""
        self.pulls: deque[tuple[int, PullReport]] = deque(maxlen=KEPT_PULLS)
        self.page_seen_at: dict[str, tuple[int, float]] = {}
        self.runner: CommitRunner | None = None
        self.commit: Commit | None = None
        self.pull: Pull | None = None
        self.verification: Verification | None = None
        """At a serving primary."""
        self.recovered: Recovered | None = None
        self.on_halt: Callable[[], None] = lambda: None
        self.on_serving: Callable[[CommitRunner], None] = lambda runner: None
        """Called once when hosts may be served: in ``start``, or later by a sync link's mover."""
        self._load = LoadMeter()
        self.restore = Restore(self.journal, devices.volumes)
        self._checkpoint = Checkpoint(self.journal, devices.volumes, self._applied)
        self.room = Room(self.journal, group.journal)
        self.resync: Resync | None = None
        self._last_consistent = LastConsistent(self.journal, devices.images, clock.realtime_ns)
        self.on_volumes: Callable[[], None] = lambda: None
        """Called about once a second, so that a front end follows the group's volumes."""
        volumes = VolumeSet(devices.open_volume, devices.volumes)
        if self.part.data:
            self.journal.before_catalog = lambda catalog: volumes.prepare(catalog.volumes)
            self.journal.after_catalog = lambda catalog: volumes.settle(catalog.volumes)
        self.watch = VolumeWatch(
            self.journal,
            volumes,
            devices.open_volume,
            group,
            read_group,
            has_data=self.part.data,
        )
        self._threads: dict[str, MoverThread] = {}
        self._lock = threading.Lock()
        self._restoring = threading.Lock()
        self._ended = threading.Event()
        self.hang_up: Callable[[], None] = lambda: None
        """Ends the front end and returns when no host is served any more."""
        self.on_role_change: Callable[[], None] = lambda: None
        """Called when this runtime is to be stopped and made anew: the page has another role."""
        self._liveness = Liveness(clock, self._look_first)
        self._standing = Standing(self.journal, devices.peers, clock)
        self._changing = threading.Lock()
        self._started = threading.Event()
        """All movers are there: a change of role that came sooner could not end those to come."""
        self._leg_thread: LegThread | None = None
        self.link = self._make_link()
        self._near: Near | None = None

    @property
    def primary(self) -> bool:
        """Whether hosts may write here."""
        return self.part.primary

    @property
    def restore_totals(self) -> RestoreTotals:
        """What restore (or a primary's redo) has done since the start."""
        return self.restore.totals

    def _applied(self) -> Point:
        if not self.part.data:
            return self.journal.head
        return self.commit.applied if self.commit is not None else self.restore.applied

    def hold_restore(
        self, stop: RestoreStop | None, judge: Callable[[Point], None] = lambda _: None
    ) -> None:
        """Pause or stop the own restore, or let it go on: durable on return.

        ``judge`` may refuse, given the point that the volumes are at with nothing in flight.
        """
        with self._restoring:
            judge(self._applied())
            self.journal.set_restore_stop(stop)
        self._threads["restore"].wake()

    @property
    def judge(self) -> Judge:
        """What verify records have shown about the own volumes."""
        return self.restore.judge

    def wake(self, name: str) -> None:
        """Let a mover's thread look for work now."""
        self._threads[name].wake()

    def start(self) -> None:
        """Recover, redo, look at the peers (a primary), publish, then run.

        A primary with a sync link is held first: it serves when the link has admitted it. Raises
        what recovery raises, PeerAhead and ShutOut; nothing runs then.
        """
        self._refuse_if_shut_out()
        self.recovered = recover(self.journal)
        self.restore = Restore(self.journal, self.devices.volumes)  # it begins at what was found
        log.info(
            "recovered head=%s restart=%s batches=%d stopped_by=%s",
            self.recovered.head.pair,
            self.recovered.restart.pair,
            self.recovered.batches,
            self.recovered.stopped_by,
        )
        observers = self._observers()
        if self.primary:
            self._add_thread("verify", self._verify_step)
            self._add_thread("resync", self._resync_step)
            self._add_thread("alive", self._liveness.tick)
        if self.link is not None:
            self.state, self.reason = "held", f"until {self.link.site} has been asked"
            self._add_thread("link", self._link_step)
        elif self.primary:
            self._begin_as_primary()
        else:
            if HALTED in self.journal.body.marks:
                self.journal.publish(unmark={HALTED})
            self.state = "following" if self.journal.attached else "unattached"
            if (sealed := self.journal.body.sealed) is not None:
                why = self.journal.body.marks.get(FENCED, "")
                self.state, self.reason = "sealed", f"closed at position {sealed[0]}: {why}"
            self._add_secondary_threads()
        self._add_thread("checkpoint", self._checkpoint_step)
        self._add_thread("volumes", self._watch_step)
        self._add_thread("room", self._room_step)
        for name, step in observers.items():
            self._add_thread(name, step)
        for thread in list(self._threads.values()):  # all are there before one wakes another
            thread.start()
        self._started.set()

    def stop(self) -> None:
        """End every mover, checkpoint once more, close the devices."""
        self._ended.set()
        if self.runner is not None:
            self.runner.stop()
        for thread in self._threads.values():
            if not thread.stop(timeout=2.0):
                log.warning("thread still waits in the kernel name=%s", thread.name)
        if self.state in ("serving", "following", "sealed"):
            with suppress(DeviceFailed):
                self._checkpoint.run(self.clock.monotonic())
        if self._leg_thread is not None and not self._leg_thread.stop(timeout=2.0):
            log.warning("the leg still waits in the kernel")
        self.devices.close()

    def halt(self, reason: str, *, shut_out: bool = False) -> None:
        """Answer hosts nothing more and say why, in the page too if it can be written.

        The mover that failed has ended; others go on with what is sound (a secondary whose restore
        halts still receives), so that less is missing when the cause is mended. ``shut_out`` is
        remembered over restarts: another site may have gone on.
        """
        with self._lock:
            if self.state == "halted":
                return
            self.state, self.reason = "halted", reason
        log.error("halted reason=%r", reason)
        if self.runner is not None:
            self.runner.halt()
        self._ended.set()
        self.on_halt()
        marks = {HALTED: reason, FENCED: reason} if shut_out else {HALTED: reason}
        with suppress(DeviceFailed):
            self.journal.publish(mark=marks)

    def _refuse_if_shut_out(self) -> None:
        body = self.journal.body
        if self.primary and (body.sealed is not None or FENCED in body.marks):
            raise ShutOut(
                f"{self.journal.device.name}: this site was shut out "
                f"({body.marks.get(FENCED, 'its ring is sealed')}); see which site serves: "
                "replicatorctl status"
            )

    # -- changes of role -------------------------------------------------------------------

    @contextmanager
    def changing_role(self) -> Iterator[None]:
        """Stop serving and every mover, let the caller change the page, then begin anew.

        Also after a failure: what the page says then is what this site is. Raises Refused, with
        nothing stopped, while another change is under way.
        """
        if not self._started.wait(_STARTED_WITHIN_SECONDS):
            raise Refused(
                f"group {self.group.name}: site {self.part.name} is still starting; try again"
            )
        if not self._changing.acquire(blocking=False):
            raise Refused(
                f"group {self.group.name}: site {self.part.name} is changing its role already; "
                "replicatorctl status"
            )
        try:
            self._quiesce()
            yield
        finally:
            self.on_role_change()

    def _quiesce(self) -> None:
        """End commit loop and movers; Refused if one still waits in the kernel."""
        self.state, self.reason = "changing", "its role is being changed"
        self._shut_hosts_out()
        if self.runner is not None:
            self.runner.stop()
        hanging = [name for name, thread in self._threads.items() if not thread.stop(2.0)]
        hanging = [name for name in hanging if not name.startswith("peer ")]
        if hanging:
            raise Refused(
                f"group {self.group.name}: {', '.join(hanging)} at site {self.part.name} still "
                "waits in the kernel for a device; try again when that has ended"
            )

    def _shut_hosts_out(self) -> None:
        """Take no further batch and hang up on every host: nobody is answered on return."""
        self._ended.set()
        if self.runner is not None:
            self.runner.halt()
        self.hang_up()

    def checkpoint_now(self, now: float) -> None:
        """Flush the data volumes and publish what they hold: durable on return."""
        self._checkpoint.run(now)

    def _begin_as_primary(self) -> None:
        if self._standing.hosts_wait:
            self.state = "held"
            self.reason = f"{self._standing.hosts_wait}; then: replicatorctl hosts confirm"
        elif self._standing.resumes:
            try:
                self._serve()
            except WentOn as error:
                self._term_ended(error)
            except SplitBrain as error:
                self.halt(str(error))
        else:
            self.state, self.reason = "booting", "reads every other site before it serves"
            self._add_thread("standing", self._standing_step)

    def _standing_step(self) -> float:
        """Look again until nothing is in the way, then begin anew as an active primary."""
        found = self._standing.look()
        if not found:
            self.on_role_change()
            return _STANDING_SECONDS
        self.reason = f"{found}; to go on without a site: replicatorctl promote --force --without"
        return _STANDING_SECONDS

    def _follow_history(self, peer: Peer) -> None:
        """Enter what a peer that is not pulled from has gone on to; a new upstream begins anew."""
        if self.journal.attached and peer.statement is not None:
            if peer.statement.newer.body.catalog is None:
                return
            meet(self.journal, peer)
            self._begin_anew_if_moved()

    def _begin_anew_if_moved(self) -> None:
        body = self.journal.body
        moved = body.upstream != self.part.upstream or (body.role == "primary") != self.primary
        if moved and not self._changing.locked():
            self.on_role_change()

    def _term_ended(self, error: Exception) -> None:
        """Serve no more: the group has gone on elsewhere; follow it if nothing is beyond."""
        log.warning("term ended reason=%r", str(error))
        if not self._changing.acquire(blocking=False):
            return
        self.state, self.reason = "changing", str(error)
        self._shut_hosts_out()
        retire_after(self.journal, self.devices.peers.values())
        self.on_role_change()

    # -- primary ---------------------------------------------------------------------------

    def _make_link(self) -> SyncLink | None:
        near = self.group.near
        if not self.primary or near is None or self.devices.leg is None:
            return None
        self._leg_thread = LegThread(near.name)
        leg = Leg(near.name, self.devices.leg, self.journal)
        peer = self.devices.peers[near.name]
        now = self.clock.monotonic
        return SyncLink(self.journal, leg, peer, near.link, self._leg_thread, now)

    def _link_step(self) -> float:
        """Be admitted by the near site, serve, and from then on do what the link needs."""
        link = self.link
        assert link is not None
        if self.commit is not None:
            return link.step(self.clock.monotonic())
        if not link.admit():
            self.reason = f"hosts are held until {link.site} is there again: {link.reason}"
            return RETRY_SECONDS
        self._serve()
        return 0.0

    def _serve(self) -> None:
        """Redo, look at the peers, publish, and begin to take writes."""
        while self.restore.step(self.clock.monotonic()):
            pass
        self._look_first()
        self._standing.activate()
        self.journal.publish(unmark={HALTED})
        self.commit = Commit(
            self.journal, self.devices.volumes, self.clock, aligned_buffer, self.link
        )
        self.runner = CommitRunner(
            self.commit,
            self.devices.volumes,
            self._runner_failed,
            self._hosts_see,
            self._liveness.check,
        )
        self.runner.start()
        self.verification = Verification(
            self.journal, self.devices.volumes, self.commit, self.runner
        )
        self.verification.go_on(self.group.verify_rate)
        self.resync = Resync(
            self.journal, self.devices.peers, self.devices.volumes, self.runner, os.urandom
        )
        self.on_serving(self.runner)
        with self._lock:
            if self.state != "halted":
                self.state, self.reason = "serving", ""

    def _runner_failed(self, error: Exception) -> None:
        if isinstance(error, WentOn):  # a front end's thread may be the caller: hang up elsewhere
            threading.Thread(target=self._term_ended, args=(error,), daemon=True).start()
            return
        self.halt(str(error), shut_out=isinstance(error, ShutOut))

    def _hosts_see(self, volume: HostVolume) -> HostVolume:
        link = self.link
        if link is None or link.policy != "sync-or-stop":
            return volume
        return HeldVolume(volume, lambda: link.held, self._ended)

    def _verify_step(self) -> float:
        if self.verification is None:
            return _WATCH_SECONDS  # not serving yet
        return self.verification.step(self.clock.monotonic())

    def _look_first(self) -> None:
        """Read every peer that can be read soon; PeerAhead if one has more than this journal."""
        ahead: list[TowlineError] = []

        def look(peer: Peer) -> None:
            try:
                self._look(peer)
            except (PeerAhead, WentOn, SplitBrain) as error:
                ahead.append(error)
            except TowlineError as error:
                log.warning("peer not read at start site=%s reason=%r", peer.site, str(error))

        threads = [
            threading.Thread(target=look, args=(peer,), daemon=True)
            for peer in self.devices.peers.values()
        ]
        for thread in threads:
            thread.start()
        deadline = self.clock.monotonic() + _FIRST_LOOK_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - self.clock.monotonic()))
        if ahead:
            raise ahead[0]

    # -- secondary -------------------------------------------------------------------------

    def _add_secondary_threads(self) -> None:
        upstream = self.part.upstream
        assert upstream is not None
        if self.part.data:
            self.restore.pace = RestorePace(self.journal, self.part.restore, self._load.part)
            self._add_thread("restore", self._restore_step)
        if self.part.sync:
            self._near = Near(self.journal, self.devices.peers[upstream])
            self._add_thread("near", self._near_step)
            return
        self._pull = self.pull = Pull(
            self.journal,
            self.devices.peers[upstream],
            self.part.interval,
            self.clock,
            load=self._load.part,
            primary_head=lambda: known_primary_head(self.devices.peers.values()),
            ahead=in_thread,
            has_volumes=self.part.data,
            keep_image=self._last_consistent.keep,
        )
        self._add_thread("pull", self._pull_step)

    def _pull_step(self) -> float:
        attached = self.journal.attached
        report = self._pull.step(self.clock.monotonic())
        self._begin_anew_if_moved()
        if not attached and self.journal.attached:
            check_catalog(self.journal, self.journal.catalog, self.watch.group)
            self.state = "following"
        self._clear("pull")
        if report is not None:
            self.pulls.append((self.clock.realtime_ns(), report))
            self._note_page(self.devices.peers[report.source])
            if report.bytes:
                self._wake("restore", "checkpoint")
        return max(0.0, self._pull.due_at - self.clock.monotonic())

    def _near_step(self) -> float:
        assert self._near is not None
        attached = self.journal.attached
        moved = self._near.step(self.clock.monotonic())
        if not attached:
            check_catalog(self.journal, self.journal.catalog, self.watch.group)
            self.state = "following"
        self._clear("near")
        if moved:
            self._wake("restore", "checkpoint")
        return 0.0 if moved else _NEAR_SECONDS

    def _wake(self, *names: str) -> None:
        for name in names:
            if name in self._threads:
                self._threads[name].wake()

    def _restore_step(self) -> float:
        with self._restoring:
            moved = self.restore.step(self.clock.monotonic())
        if moved:
            return 0.0
        assert self.restore.pace is not None
        slowed = self.restore.pace.wait_seconds(self.clock.monotonic())
        return slowed or _IDLE_RESTORE_SECONDS

    # -- both ------------------------------------------------------------------------------

    def _watch_step(self) -> float:
        self.watch.step()
        self.on_volumes()
        self._clear("volumes")
        return _WATCH_SECONDS

    def _checkpoint_step(self) -> float:
        if self.primary and self.commit is None:
            return _CHECKPOINT_TICK  # held: nobody may count on a head that is not admitted yet
        said = self._checkpoint.step(self.clock.monotonic())
        if said and self.pull is not None and self.pull.has_room_again:
            self._threads["pull"].wake()
        self._last_consistent.settle()
        return _CHECKPOINT_TICK

    def _room_step(self) -> float:
        self.room.step(self.clock.monotonic())
        return _ROOM_SHORT_SECONDS if self._checkpoint.short_of_space else _ROOM_SECONDS

    def _resync_step(self) -> float:
        if self.resync is None:
            return _WATCH_SECONDS  # not serving yet
        return self.resync.step(self.clock.monotonic())

    def _observers(self) -> dict[str, Callable[[], float]]:
        """A thread for each peer that is not pulled from: reclaim and status need its page."""
        return {
            f"peer {name}": self._observer(peer)
            for name, peer in self.devices.peers.items()
            if name != self.part.upstream or self.part.sync
        }

    def _observer(self, peer: Peer) -> Callable[[], float]:
        def observe() -> float:
            self._look(peer)
            self._clear(f"peer {peer.site}")
            short = self._checkpoint.short_of_space
            return _OBSERVE_SHORT_SECONDS if short else _OBSERVE_SECONDS

        return observe

    def _look(self, peer: Peer) -> None:
        peer.look()
        self._note_page(peer)
        self._follow_history(peer)

    def _note_page(self, peer: Peer) -> None:
        assert peer.statement is not None
        generation = peer.statement.newer.generation
        known = self.page_seen_at.get(peer.site)
        if known is None or known[0] != generation:
            self.page_seen_at[peer.site] = (generation, self.clock.monotonic())
        if self.verification is not None:
            self.verification.repair.look(peer.site, peer.statement.newer.body.verified)

    def _add_thread(self, name: str, step: Callable[[], float]) -> None:
        self._threads[name] = MoverThread(name, step, lambda error: self._failed(name, error))

    def _clear(self, name: str) -> None:
        if self.faults.pop(name, None) is not None:
            log.info("recovered from fault mover=%r", name)

    def _failed(self, name: str, error: Exception) -> float | None:
        """Decide what a mover's failure means: halt the site, or try again later."""
        if isinstance(error, JournalFailed | PeerAhead) or not isinstance(error, TowlineError):
            self.halt(f"{name}: {error}")
            return None
        if isinstance(error, ShutOut):
            self.halt(f"{name}: {error}", shut_out=True)
            return None
        if isinstance(error, WentOn):
            self._term_ended(error)
            return None
        if isinstance(error, SplitBrain) and self.primary:
            self.halt(f"{name}: {error}")
            return None
        if self.faults.get(name) != str(error):
            log.warning("mover fails mover=%r reason=%r", name, str(error))
        self.faults[name] = str(error)
        if name in ("restore", "link") or (name == "near" and isinstance(error, _FATAL_AT_NEAR)):
            self.halt(f"{name}: {error}")
            return None
        if name == "pull":
            if isinstance(error, WrongJournal):
                self.halt(f"pull: {error}")
                return None
            return max(0.1, self._pull.due_at - self.clock.monotonic())
        if name == "checkpoint":
            self._checkpoint.hold()
            return _CHECKPOINT_TICK
        return _OBSERVE_SECONDS
