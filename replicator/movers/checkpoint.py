"""Checkpoint and publish: make applied records durable, then say so.

The order is the promise: data volumes are flushed first, and only then does a page state the
point up to which their writes had returned before the flush began.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from replicator.codec.batch import Point
from replicator.errors import DeviceFailed
from replicator.journal.journal import Journal
from replicator.seams.volume import DataVolume

CHECKPOINT_SECONDS = 5.0
PUBLISH_SECONDS = 1.0
UNTOLD_PART = 16
"""A page is published for what peers have received when it would say less by this part of the
ring: its readers would take the ring for fuller than it is, also when nobody writes."""


class Checkpoint:
    """Publishes the owner's page when there is something new to say."""

    def __init__(
        self,
        journal: Journal,
        volumes: Mapping[int, DataVolume],
        applied: Callable[[], Point],
        *,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        publish_seconds: float = PUBLISH_SECONDS,
    ) -> None:
        self._journal = journal
        self._volumes = volumes
        self._applied = applied
        self._checkpoint_seconds = checkpoint_seconds
        self._publish_seconds = publish_seconds
        self._checkpointed_at = float("-inf")
        self._published_at = float("-inf")
        self._held = False
        self._last_seen_head = journal.head.position

    @property
    def short_of_space(self) -> bool:
        """Whether less than a quarter of the ring is free."""
        return self._journal.free_bytes < self._journal.ring.place.size // 4

    def step(self, now: float) -> bool:
        """Checkpoint or publish if it is due; False if there was nothing to say.

        Raises DeviceFailed: a volume whose flush failed keeps the checkpoint where it is, a
        journal that failed is final for the site.
        """
        if self._checkpoint_due(now):
            self.run(now)
            return True
        if self._publish_due(now):
            self._journal.publish()
            self._published_at = now
            return True
        return False

    def run(self, now: float) -> None:
        """Flush every data volume, then publish the checkpoint: durable on return."""
        applied = self._applied()
        for volume in list(self._volumes.values()):
            self._flush(volume)
        inconsistent = self._journal.gap is not None
        self._journal.publish(restored=applied)
        if self.short_of_space or inconsistent:
            # space is free, and a piece is there, when both page copies say so (model m10)
            self._journal.publish()
        self._checkpointed_at = self._published_at = now

    def _flush(self, volume: DataVolume) -> None:
        try:
            volume.device.flush()
        except DeviceFailed:
            if volume.volume_id in self._volumes:
                raise  # else it was removed from the group meanwhile

    def hold(self) -> None:
        """Make no checkpoint any more: a data volume's flush failed, and that is final.

        The head is still published; the checkpoint and with it the reclaim stay where they are.
        """
        self._held = True

    def _checkpoint_due(self, now: float) -> bool:
        if self._held:
            return False
        behind = self._applied().position - self._journal.restored.position
        if behind <= 0:
            return False
        if behind >= self._journal.ring.place.size // 8 or self.short_of_space:
            return True
        pace = self._checkpoint_seconds if self._volumes else self._publish_seconds
        return now - self._checkpointed_at >= pace  # without volumes it costs no more than a page

    def _publish_due(self, now: float) -> bool:
        head = self._journal.head.position
        idle = head == self._last_seen_head
        self._last_seen_head = head
        if self.short_of_space and self._journal.reclaimable:
            return True
        late = now - self._published_at >= self._publish_seconds
        if late and self._journal.untold_bytes >= self._journal.ring.place.size // UNTOLD_PART:
            return True  # readers decide their interval by what the page says of others
        if head == self._journal.body.head.position:
            return late and not self._journal.copies_agree
        return idle or late
