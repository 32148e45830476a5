"""Restore: apply the own ring's records to the own data volumes (claim 13).

Also the redo of a primary after a restart: the same work on the same ring. Idempotent, so a crash
anywhere costs only the way from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from replicator.codec.coalesce import Check, UnknownRecord, Write, Zero, coalesce
from replicator.errors import DeviceFailed, JournalRotten, Refused
from replicator.journal.journal import Journal
from replicator.journal.reader import read_batches
from replicator.movers.judge import Judge
from replicator.movers.restore_pace import RestorePace
from replicator.seams.volume import DataVolume

WINDOW_BYTES = 4 << 20


@dataclass(slots=True)
class RestoreTotals:
    """What was restored since the start."""

    batches: int = 0
    records: int = 0
    bytes: int = 0


class Restore:
    """Moves ``applied`` towards the journal's head, a window at a time."""

    def __init__(
        self,
        journal: Journal,
        volumes: Mapping[int, DataVolume],
        window: int = WINDOW_BYTES,
        pace: RestorePace | None = None,
    ) -> None:
        """``pace`` holds back what must wait; None applies everything at once."""
        self._journal = journal
        self._volumes = volumes
        self._window = window
        self.pace = pace
        self.applied = journal.restored
        """Records below are in the data volumes' page cache (durable after a checkpoint)."""
        self.totals = RestoreTotals()
        self.judge = Judge(journal)

    @property
    def behind_bytes(self) -> int:
        """Bytes of the log that may be applied and are not."""
        return self._journal.restorable - self.applied.position

    def step(self, now: float) -> bool:
        """Apply one window; False if there was nothing to do or what there is must wait.

        Takes nothing above what the own page durably states (Journal.restorable). Raises
        JournalRotten (halt, nothing of the bad batch was applied), DeviceFailed (the volume is
        failed from then on), Refused (a record that does not fit this group's volumes).
        """
        if self.applied.position < self._journal.restored.position:
            self.applied = self._journal.restored  # a gap was taken
        limit = self._journal.restorable
        if self.applied.position >= limit:
            return False
        catalog = self._journal.catalog
        ring = self._journal.ring
        run = read_batches(
            ring, self.applied, limit, catalog.group_id, catalog.history, self._window
        )
        if run.stop is not None and not run.batches:
            offset = ring.place.segments(self.applied.position, 1)[0][0]
            raise JournalRotten(
                f"{self._journal.device.name}: journal rot at device offset {offset} "
                f"({run.stop}), below the durable head {limit}; restore halts there; compare with "
                "a peer's ring: replicatorctl journal check"
            )
        batches = run.batches
        if self.pace is not None:
            batches = batches[: self.pace.allowed(now, batches)]
            if not batches:
                return False
        try:
            for action in coalesce(batches):
                volume = self._volume(action.volume_id, action.offset)
                if volume is not None:
                    self._carry_out(action, volume)
        except UnknownRecord as error:
            raise Refused(f"{self._journal.device.name}: {error}; upgrade this site") from error
        if self._journal.gap is not None:
            self._journal.gap.applied(batches)
        end = batches[-1].end
        self.totals.batches += len(batches)
        self.totals.records += end.sequence - self.applied.sequence
        self.totals.bytes += end.position - self.applied.position
        self.applied = end
        if self.pace is not None:
            self.pace.applied(now)
        self.judge.publish()
        return True

    def _carry_out(self, action: Write | Zero | Check, volume: DataVolume) -> None:
        try:
            if isinstance(action, Check):
                self.judge.judge(action, volume)
            elif isinstance(action, Zero):
                volume.device.zero(action.offset, action.length)
            else:
                volume.device.write_from(action.offset, action.buffers)
        except DeviceFailed:
            if action.volume_id not in self._journal.catalog.retired:
                raise  # else it was removed from the group meanwhile

    def _volume(self, volume_id: int, offset: int) -> DataVolume | None:
        """Return the volume, None for one that was removed from the group further up the log."""
        volume = self._volumes.get(volume_id)
        if volume is None and volume_id in self._journal.catalog.retired:
            return None
        if volume is None or offset >= volume.size_bytes:
            raise Refused(
                f"{self._journal.device.name}: a record names volume {volume_id} offset {offset}, "
                f"this site has volumes {sorted(self._volumes)}; compare the topology with the "
                "primary's"
            )
        return volume
