"""The commit loop with threads: what front ends submit to (model.HostService).

One thread builds batches, writes and flushes them; a second one writes the data volumes and
answers, so that both overlap under load. When nothing waits, the first does it all, which saves a
hand-over; and a front end whose client has one request at a time commits in its own thread
(``submit_alone``), which saves the other. Whoever commits holds ``_turn``. Requests and batches are
handed over by queues that wake one thread each: with a shared condition every request woke both
(measured: half of the time at depth 1).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue

from replicator.model import ChunkRecord, ControlRecord, HostVolume, HostWrite
from replicator.movers.commit import Commit, Prepared

log = logging.getLogger(__name__)

MOST_WAITING = 2048
"""Requests that may wait before submit does."""

_ROOM_POLL_SECONDS = 0.05
_HELD_SECONDS = 0.05
"""Between two tries of a batch that the sync link holds."""


class CommitRunner:
    """Runs a Commit with a commit thread and an apply thread.

    ``on_halt`` is called once, from a thread of the runner, when the journal has failed or a
    mistake of ours was hit: nothing is answered from then on.
    """

    def __init__(
        self,
        commit: Commit,
        volumes: Mapping[int, HostVolume],
        on_halt: Callable[[Exception], None],
        see: Callable[[HostVolume], HostVolume] = lambda volume: volume,
        may_answer: Callable[[], None] = lambda: None,
    ) -> None:
        """``may_answer`` is called before a batch is appended and before it is answered; what it
        raises halts the runner."""
        self._commit = commit
        self._volumes = volumes
        self._see = see
        self._may_answer = may_answer
        self._on_halt = on_halt
        self._inbox: SimpleQueue[Sequence[HostWrite]] = SimpleQueue()
        self._events: SimpleQueue[Sequence[ControlRecord]] = SimpleQueue()
        self._chunks: SimpleQueue[Sequence[ChunkRecord]] = SimpleQueue()
        self._to_apply: SimpleQueue[Prepared | None] = SimpleQueue()
        self._turn = threading.Lock()
        """Held by the thread that calls prepare and append, and never while it waits for work."""
        self._room = threading.Condition()
        self._waiting = 0  # submitted and in no batch; guarded by _room
        self._handed_over = 0  # batches; the holder of _turn changes it
        self._applied = 0  # of those; the apply thread's
        self._starved = False  # the commit thread wants to be woken when a batch is applied
        self._ended = False
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._guard, args=(target,), name=name, daemon=True)
            for name, target in (("commit", self._commit_batches), ("apply", self._apply_batches))
        ]

    @property
    def volumes(self) -> Sequence[HostVolume]:
        """The group's data volumes as they are now."""
        return [self._see(volume) for volume in self._volumes.values()]

    @property
    def held(self) -> bool:
        """Whether requests wait that no batch can take (the ring is full)."""
        return self._commit.waiting > 0 and self._commit.held_by_space

    @property
    def held_by_link(self) -> bool:
        """Whether a batch waits for the sync link, and everything behind it."""
        return self._commit.ahead is not None and self._commit.link_holds

    @property
    def longest_chunk(self) -> int:
        """The most bytes that one chunk may cover."""
        return self._commit.longest_chunk

    def start(self) -> None:
        """Begin to serve."""
        for thread in self._threads:
            thread.start()

    def submit(self, requests: Sequence[HostWrite]) -> None:
        """Queue requests; waits while too many are waiting. Dropped after a halt: no answer."""
        with self._room:
            while self._waiting >= MOST_WAITING and not self._ended:
                self._room.wait()
            self._waiting += len(requests)
        if not self._ended:
            self._inbox.put(requests)

    def submit_alone(self, requests: Sequence[HostWrite]) -> None:
        """Commit, apply and answer ``requests`` in this thread if nothing else is on its way.

        Otherwise as ``submit``. For a caller that has nothing else to do until the answer. Never
        with a sync link: while that holds a batch, front ends must serve on, and end when asked.
        """
        self._guard(lambda: self._try_alone(requests))

    def submit_control(self, records: Sequence[ControlRecord]) -> None:
        """Queue events of the group; each ``on_durable`` says when. Never waits."""
        self._events.put(records)
        self._inbox.put(())

    def submit_chunks(self, records: Sequence[ChunkRecord]) -> None:
        """Queue chunks of volumes, each read once just before; never waits.

        Whoever submits bounds how many are under way.
        """
        self._chunks.put(records)
        self._inbox.put(())

    def stop(self) -> None:
        """Finish the batch in flight and end; what waits is not answered."""
        self.halt()
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join()
        with self._turn:  # a front end's thread may be in the middle of its batch
            pass

    def halt(self) -> None:
        """Take no further batch."""
        with self._room:
            self._ended = True
            self._ending.set()
            self._room.notify_all()
        self._inbox.put(())
        self._to_apply.put(None)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            log.exception("halted thread=%s", threading.current_thread().name)
            self.halt()
            self._on_halt(error)

    @property
    def _unapplied(self) -> int:
        return self._handed_over - self._applied

    @property
    def _idle(self) -> bool:
        """Whether nothing is on its way (asked by the holder of _turn)."""
        quiet = self._inbox.empty() and self._events.empty() and self._chunks.empty()
        return quiet and not (self._commit.waiting or self._unapplied or self._ended)

    def _try_alone(self, requests: Sequence[HostWrite]) -> None:
        if self._turn.acquire(blocking=False):
            try:
                if self._idle and not self._commit.waits_for_a_link:
                    self._carry_out_alone(requests)
                    return
            finally:
                self._turn.release()
        self.submit(requests)

    def _carry_out_alone(self, requests: Sequence[HostWrite]) -> None:
        commit = self._commit
        commit.submit(requests)
        prepared = commit.prepare()
        while prepared is not None:
            self._may_answer()
            commit.append(prepared)
            commit.apply(prepared)
            self._answer(prepared)
            prepared = commit.prepare() if commit.waiting else None
        if commit.waiting:  # no room in the ring: the commit thread goes on when there is
            with self._room:
                self._waiting += commit.waiting
            self._inbox.put(())

    def _commit_batches(self) -> None:
        arrived: Sequence[HostWrite] = ()
        while not self._ended:
            with self._turn:
                self._commit.submit(arrived)
                self._starved = False
                self._commit_waiting()
                if self._commit.waiting:
                    self._starved = True  # then look once more: a batch may just have been applied
                    self._commit_waiting()
                pause = _ROOM_POLL_SECONDS if self._commit.waiting else None
            try:
                arrived = self._inbox.get(timeout=pause)
            except Empty:
                arrived = ()  # look whether there is room in the ring now

    def _commit_waiting(self) -> None:
        """Append batches until nothing waits or the next one must wait."""
        commit = self._commit
        while (prepared := self._next()) is not None:
            if not self._append(prepared):
                return
            if not self._unapplied and not commit.waiting and self._inbox.empty():
                commit.apply(prepared)
                self._answer(prepared)
                continue
            self._handed_over += 1
            self._to_apply.put(prepared)

    def _answer(self, prepared: Prepared) -> None:
        self._may_answer()
        self._commit.answer(prepared)

    def _append(self, prepared: Prepared) -> bool:
        """Append the batch, however long the sync link holds it; False if the end comes first."""
        self._may_answer()
        while not self._commit.append(prepared):
            if self._ending.wait(_HELD_SECONDS):
                return False
        return True

    def _next(self) -> Prepared | None:
        """Return the next batch; None if nothing waits, it must wait, or this is the end."""
        commit = self._commit
        self._take_in()
        if self._ended or not commit.waiting or (commit.next_reads and self._unapplied):
            return None
        prepared = commit.prepare()
        if prepared is not None:
            with self._room:
                self._waiting -= len(prepared.requests)
                self._room.notify_all()
        return prepared

    def _take_in(self) -> None:
        """Give the commit loop everything that has been submitted."""
        while not self._inbox.empty():
            self._commit.submit(self._inbox.get())
        while not self._events.empty():
            self._commit.submit_control(self._events.get())
        while not self._chunks.empty():
            self._commit.submit_chunks(self._chunks.get())

    def _apply_batches(self) -> None:
        while (prepared := self._to_apply.get()) is not None:
            self._commit.apply(prepared)
            self._answer(prepared)
            self._applied += 1
            if self._starved:
                self._inbox.put(())
