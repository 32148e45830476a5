"""How much a resync moves: what changed, and not the holes (bars of issue 2 of 3)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from replicator.codec.dirty_map import MapSet, everything, pack
from replicator.codec.history import VolumeEntry
from replicator.codec.page import GapNote
from replicator.journal.journal import Journal
from replicator.journal.peer import Peer
from replicator.model import ChunkRecord, ControlRecord
from replicator.movers.commit import Commit
from replicator.movers.resync import Resync
from replicator.seams.filedevice import CachedDevice
from replicator.seams.volume import DataVolume
from tests.fakes.group_on_sim import Primary
from tests.tally import count

MIB = 1 << 20


class Counting:
    """A submitter that commits every chunk at once and counts the log's bytes."""

    def __init__(self, primary: Primary, volume: DataVolume) -> None:
        self._journal: Journal = primary.journal
        self.commit = Commit(
            primary.journal,
            {volume.volume_id: volume},
            primary.clock,
            lambda length: memoryview(bytearray(length)),
        )
        self.log_bytes = 0

    @property
    def longest_chunk(self) -> int:
        return self.commit.longest_chunk

    def submit_control(self, records: Sequence[ControlRecord]) -> None:
        self.commit.submit_control(records)
        self._run()

    def submit_chunks(self, records: Sequence[ChunkRecord]) -> None:
        self.commit.submit_chunks(records)
        self._run()

    def _run(self) -> None:
        before = self._journal.head.position
        while self.commit.waiting:
            self.commit.step(0.0)
            self._journal.publish(restored=self._journal.head)  # nobody reads: the ring is free
            self._journal.publish()
        self.log_bytes += self._journal.head.position - before


class OneGap:
    """A Peer, as far as the mover asks: a durable page with a gap, and its map."""

    def __init__(self, missing: dict[int, list[int]], journal: Journal) -> None:
        self._missing = missing
        body = journal.body
        self.statement = _Statement(body, GapNote(id=b"g" * 16, after=0, since_ns=0))

    def maps(self):  # type: ignore[no-untyped-def]
        return MapSet(missing=self._missing)


class _Statement:
    def __init__(self, body, gap):  # type: ignore[no-untyped-def]
        self.older = type("Older", (), {"body": msgspec.structs.replace(body, gap=gap)})()


def moved(path: Path, size: int, missing: dict[int, list[int]]) -> tuple[int, Resync]:
    """Resync ``missing`` of the volume at ``path``; return the bytes that came into the log."""
    primary = Primary(peers=())
    device = CachedDevice(path)
    try:
        volume = DataVolume(1, "big", size, device)
        counting = Counting(primary, volume)
        peer = OneGap(missing, primary.journal)
        peers: dict[str, Peer] = {"b": peer}  # type: ignore[dict-item]
        resync = Resync(
            primary.journal, peers, {1: volume}, counting, lambda n: b"r" * n, rate=1e15
        )
        now = 0.0
        while resync.last is None:
            now += 1.0
            resync.step(now)
        assert not resync.last.failed
        return counting.log_bytes, resync
    finally:
        device.close()


def test_resync_moves_what_changed_and_little_more(tmp_path: Path) -> None:
    size = 256 * MIB
    path = tmp_path / "volume"
    chance = random.Random(4)
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(chance.randbytes(MIB))
    ranges = []
    at = 0
    while at < size // 4096 - 600:
        at += chance.randrange(1, 300)
        length = chance.choice((1, 1, 1, 4, 16, 64, 256))
        ranges.append((at, at + length))
        at += length
    changed = 4096 * sum(end - start for start, end in ranges)
    log_bytes, resync = moved(path, size, pack({1: tuple(ranges)}))
    assert resync.last is not None
    assert resync.last.sent_bytes == changed
    assert log_bytes <= 1.1 * changed + MIB, (log_bytes, changed)
    count("resync: log bytes for each changed byte, per mille", round(1000 * log_bytes / changed))


def test_resync_of_nothing_moves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "volume"
    path.write_bytes(bytes(MIB))
    log_bytes, _ = moved(path, MIB, {})
    assert log_bytes <= 4 * 4096, "a begin and an end"


@pytest.mark.slow
def test_initial_copy_of_a_sparse_volume_moves_its_data_alone(tmp_path: Path) -> None:
    size, data = 10 << 30, 100 * MIB
    path = tmp_path / "volume"
    chance = random.Random(5)
    with path.open("wb") as file:
        file.truncate(size)
        for part in range(25):
            file.seek(part * (size // 25) // (256 << 10) * (256 << 10))
            file.write(chance.randbytes(data // 25))
    missing = pack(everything([VolumeEntry(1, "big", size)]))
    log_bytes, resync = moved(path, size, missing)
    assert resync.last is not None
    assert resync.last.done_bytes == size
    assert log_bytes <= 110 * MIB + MIB, log_bytes
    count("initial copy of 10 GiB with 100 MiB of data, MiB moved", round(log_bytes / MIB))
