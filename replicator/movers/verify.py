"""Verification: send digests of all volumes through the log, at a set rate (design: verify).

The primary walks its volumes chunk by chunk. The commit loop reads each chunk when all lower writes
are on the volume, and journals its digest; whoever restores that record compares (movers/judge.py).
This mover has read the chunk once before, so the commit loop finds it in the page cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from msgspec.structs import replace

from replicator.codec.page import OwnerBody, VerifyRun
from replicator.codec.records import RecordKind
from replicator.errors import DeviceFailed
from replicator.journal.journal import Journal
from replicator.model import ChunkRecord, Pair
from replicator.seams.volume import DataVolume

CHUNK_BYTES = 256 << 10
MOST_UNDER_WAY = 4
"""Chunks that are submitted and not durable."""
HOLD_FROM_FILL = 0.8
"""Part of the ring in use from which no chunk is sent: the warning mark (design section 7)."""
SAVE_SECONDS = 10.0
_SHORTEST_WAIT_SECONDS = 0.02
_IDLE_SECONDS = 1.0

Send = Callable[[Sequence[ChunkRecord]], None]


class Verify:
    """Walks a primary's volumes for the run that its page states. Orders come from any thread."""

    def __init__(
        self,
        journal: Journal,
        volumes: Mapping[int, DataVolume],
        send: Send,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """``send`` queues chunks for the commit loop; each at most its ``longest_chunk`` bytes."""
        self._journal = journal
        self._volumes = volumes
        self._send = send
        self._chunk_bytes = chunk_bytes
        self._run = journal.body.verify_run
        self._allowance = 0.0
        self._stepped_at: float | None = None
        self._saved_at = float("-inf")
        self._sent = 0  # chunks; the mover's thread
        self._done = 0  # of those, durable or failed; the commit thread
        self._end = 0  # position; the commit thread
        self.unreadable_bytes = 0
        """Bytes that this pass could not read: no digest of them was sent."""
        self.held = ""
        """Why a running verification sends nothing just now; empty when it does."""

    @property
    def run(self) -> VerifyRun | None:
        """The run as it is now, ahead of what the page states; None if there never was one."""
        stated, own = self._journal.body.verify_run, self._run
        if stated is None or own is None or not _same(stated, own):
            return stated
        return own

    def start(self, rate: float, *, repeat: bool, only: int = 0) -> VerifyRun:
        """Begin a pass over all volumes, or ``only`` one, from the start: durable on return.

        ``rate`` is bytes of volumes a second. A pass that is under way is given up.
        """
        head = self._journal.head
        before = self._journal.body.verify_run
        run = VerifyRun(
            state="running",
            rate=rate,
            repeat=repeat,
            number=before.number + 1 if before else 1,
            only=only,
            began=head.position,
            began_ns=head.time_ns,
        )
        self._journal.restate(lambda body: replace(body, verify_run=run))
        return run

    def stop(self) -> VerifyRun | None:
        """End the run where it is, and let no restart take it up again: durable on return."""
        self._journal.restate(
            lambda body: (
                replace(body, verify_run=replace(body.verify_run, state="stopped"))
                if body.verify_run is not None and body.verify_run.state == "running"
                else body
            )
        )
        return self._journal.body.verify_run

    def step(self, now: float) -> bool:
        """Send the chunks that are due; False if there were none.

        Raises JournalFailed if the page cannot be written. A volume that cannot be read is passed
        over, and counted.
        """
        elapsed = now - self._stepped_at if self._stepped_at is not None else 0.0
        self._stepped_at = now
        run = self._taken_up()
        if run is None or run.state != "running":
            return False
        burst = max(float(self._chunk_bytes), run.rate * _IDLE_SECONDS / 2)
        self._allowance = min(burst, self._allowance + run.rate * elapsed)
        self.held = self._why_held()
        if self.held:
            return False
        chunk = self._next_chunk(run)
        if chunk is None:
            return self._end_pass(run)
        moved = False
        while (
            chunk is not None
            and self._sent - self._done < MOST_UNDER_WAY
            and self._allowance >= min(chunk.length, burst)
        ):
            self._allowance -= chunk.length
            self._submit(chunk)
            run = replace(run, volume_id=chunk.volume_id, offset=chunk.offset + chunk.length)
            self._run = run
            moved = True
            chunk = self._next_chunk(run)
        if moved and now - self._saved_at >= SAVE_SECONDS:
            self._saved_at = now
            self._state(run)
        return moved

    def wait_seconds(self) -> float:
        """Return for how long a thread should wait before the next step."""
        run = self.run
        if run is None or run.state != "running" or self.held:
            return _IDLE_SECONDS
        missing = self._chunk_bytes - self._allowance
        return min(_IDLE_SECONDS, max(_SHORTEST_WAIT_SECONDS, missing / run.rate))

    # -- one pass ------------------------------------------------------------------------------

    def _taken_up(self) -> VerifyRun | None:
        """Return the run to go on with: the page's, where an order has changed it."""
        run = self.run
        if run is not self._run:
            self._run = run
            self.unreadable_bytes = 0
            self.held = ""
        return run

    def _why_held(self) -> str:
        fill = self._journal.used_fraction
        if fill >= HOLD_FROM_FILL:
            return f"journal {fill:.0%} in use: nothing is sent from {HOLD_FROM_FILL:.0%} on"
        return ""

    def _walk(self, run: VerifyRun) -> list[tuple[int, int]]:
        return [
            (volume_id, volume.size_bytes)
            for volume_id, volume in sorted(self._volumes.items())
            if run.only in (0, volume_id)
        ]

    def _next_chunk(self, run: VerifyRun) -> ChunkRecord | None:
        for volume_id, size in self._walk(run):
            at = run.offset if volume_id == run.volume_id else 0
            if volume_id >= run.volume_id and at < size:
                length = min(self._chunk_bytes, size - at)
                failed = partial(self._has_failed, length)
                return ChunkRecord(
                    RecordKind.VERIFY, volume_id, at, length, self._is_durable, failed
                )
        return None

    def _submit(self, chunk: ChunkRecord) -> None:
        """Bring a chunk into the page cache and hand it to the commit loop."""
        volume = self._volumes.get(chunk.volume_id)
        if volume is None:  # removed since: there is nothing to compare any more
            return
        try:
            volume.read_into(chunk.offset, [memoryview(bytearray(chunk.length))])
        except DeviceFailed:
            self.unreadable_bytes += chunk.length
            return
        self._sent += 1
        self._send([chunk])

    def _is_durable(self, end: Pair) -> None:
        self._end = end.position
        self._done += 1

    def _has_failed(self, length: int) -> None:
        self.unreadable_bytes += length
        self._done += 1

    def _end_pass(self, run: VerifyRun) -> bool:
        """State that the pass has ended, when its last chunk is durable; begin the next one."""
        if self._sent != self._done:
            return False
        head = self._journal.head
        ended = replace(
            run, state="finished", ended=max(self._end, run.began), ended_ns=head.time_ns
        )
        if run.repeat:
            ended = replace(
                ended,
                state="running",
                number=run.number + 1,
                volume_id=0,
                offset=0,
                began=head.position,
                began_ns=head.time_ns,
            )
            self.unreadable_bytes = 0
        self._state(ended)
        return True

    def _state(self, run: VerifyRun) -> None:
        """Publish progress, unless an order has come meanwhile."""

        def change(body: OwnerBody) -> OwnerBody:
            mine = body.verify_run is not None and _same(body.verify_run, self._run or run)
            return replace(body, verify_run=run) if mine else body

        self._journal.restate(change)
        self._run = run if self._journal.body.verify_run is run else None


def _same(stated: VerifyRun, own: VerifyRun) -> bool:
    """Whether ``own`` is the stated run, further on."""
    return (stated.number, stated.state, stated.began) == (own.number, own.state, own.began)
