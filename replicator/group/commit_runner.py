"""The commit loop with threads: what front ends submit to (model.HostService).

One thread builds batches, writes and flushes them; a second one writes the data volumes and
answers, so that both overlap under load. When nothing waits, the first does it all, which saves a
hand-over at depth 1.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from replicator.model import HostVolume, HostWrite
from replicator.movers.commit import Commit, Prepared

log = logging.getLogger(__name__)

MOST_WAITING = 2048
"""Requests that may wait before submit does."""

_ROOM_POLL_SECONDS = 0.05


class CommitRunner:
    """Runs a Commit with a commit thread and an apply thread.

    ``on_halt`` is called once, from a thread of the runner, when the journal has failed or a
    mistake of ours was hit: nothing is answered from then on.
    """

    def __init__(
        self,
        commit: Commit,
        volumes: Sequence[HostVolume],
        on_halt: Callable[[Exception], None],
    ) -> None:
        self._commit = commit
        self._volumes = volumes
        self._on_halt = on_halt
        self._changed = threading.Condition()
        self._to_apply: deque[Prepared] = deque()
        self._unapplied = 0
        self._ended = False
        self._threads = [
            threading.Thread(target=self._guarded, args=(target,), name=name, daemon=True)
            for name, target in (("commit", self._commit_batches), ("apply", self._apply_batches))
        ]

    @property
    def volumes(self) -> Sequence[HostVolume]:
        """The group's data volumes."""
        return self._volumes

    @property
    def held(self) -> bool:
        """Whether requests wait that no batch can take (the ring is full)."""
        return self._commit.waiting > 0 and self._commit.held_by_space

    def start(self) -> None:
        """Begin to serve."""
        for thread in self._threads:
            thread.start()

    def submit(self, requests: Sequence[HostWrite]) -> None:
        """Queue requests; waits while too many are waiting. Dropped after a halt: no answer."""
        with self._changed:
            while self._commit.waiting >= MOST_WAITING and not self._ended:
                self._changed.wait()
            if self._ended:
                return
            self._commit.submit(requests)
            self._changed.notify_all()

    def stop(self) -> None:
        """Finish the batch in flight and end; what waits is not answered."""
        self.halt()
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join()

    def halt(self) -> None:
        """Take no further batch."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _guarded(self, target: Callable[[], None]) -> None:
        try:
            target()
        except Exception as error:
            log.exception("halted thread=%s", threading.current_thread().name)
            self.halt()
            self._on_halt(error)

    def _commit_batches(self) -> None:
        commit = self._commit
        while (prepared := self._next()) is not None:
            commit.append(prepared)
            if not self._unapplied and not commit.waiting:
                commit.apply(prepared)
                commit.answer(prepared)
                continue
            with self._changed:
                self._unapplied += 1
                self._to_apply.append(prepared)
                self._changed.notify_all()

    def _next(self) -> Prepared | None:
        """Wait for requests and room; return the next batch, or None at the end."""
        commit = self._commit
        with self._changed:
            while not self._ended:
                may = commit.waiting and not (commit.next_compares and self._unapplied)
                prepared = commit.prepare() if may else None
                if prepared is not None:
                    self._changed.notify_all()
                    return prepared
                self._changed.wait(_ROOM_POLL_SECONDS if may else None)
        return None

    def _apply_batches(self) -> None:
        while True:
            with self._changed:
                while not self._to_apply:
                    if self._ended:
                        return
                    self._changed.wait()
                prepared = self._to_apply.popleft()
            self._commit.apply(prepared)
            self._commit.answer(prepared)
            with self._changed:
                self._unapplied -= 1
                self._changed.notify_all()
