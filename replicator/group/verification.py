"""Verification of a running group: the movers at a primary, and what any site says about it."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from replicator.codec.page import OwnerBody
from replicator.group.commit_runner import CommitRunner
from replicator.journal.journal import Journal
from replicator.movers.commit import Commit
from replicator.movers.repair import Repair
from replicator.movers.verify import CHUNK_BYTES, Verify
from replicator.seams.volume import DataVolume


class Verification:
    """The verify and repair movers of a serving primary."""

    def __init__(
        self,
        journal: Journal,
        volumes: Mapping[int, DataVolume],
        commit: Commit,
        runner: CommitRunner,
    ) -> None:
        chunk_bytes = min(CHUNK_BYTES, commit.longest_chunk)
        self._journal = journal
        self.verify = Verify(journal, volumes, runner.submit_chunks, chunk_bytes)
        self.repair = Repair(journal, runner.submit_chunks, chunk_bytes)

    def go_on(self, rate: float | None) -> None:
        """Take up the run of before the restart; ``rate`` is the topology's, which begins one.

        A run that an operator stopped stays stopped. Durable on return.
        """
        run = self._journal.body.verify_run
        if run is not None and run.state == "stopped":
            return
        if rate is not None and (run is None or run.state == "finished" or run.rate != rate):
            self.verify.start(rate, repeat=True)

    def step(self, now: float) -> float:
        """Send what is due and return the seconds until the next step."""
        self.verify.step(now)
        return self.verify.wait_seconds()


def ask_repair(journal: Journal) -> int:
    """Ask the primary, in the own page, to send again what differs here: durable on return.

    Returns the request's number, which is larger than any before it.
    """

    def change(body: OwnerBody) -> OwnerBody:
        number = max(journal.page.generation + 1, body.verified.repair + 1)
        return replace(body, verified=replace(body.verified, repair=number))

    return journal.restate(change).body.verified.repair
