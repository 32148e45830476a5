"""Commit, pull and restore over three sites on files, without threads."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from replicator.clock import SystemClock
from replicator.codec.history import VolumeEntry
from replicator.codec.topology import FixedInterval
from replicator.journal.format import NewJournal, format_journal
from replicator.journal.journal import Journal, Owner
from replicator.journal.peer import Peer
from replicator.journal.recovery import recover
from replicator.model import HostWrite, WriteKind
from replicator.movers.checkpoint import Checkpoint
from replicator.movers.commit import Commit
from replicator.movers.pull import Pull
from replicator.movers.restore import Restore
from replicator.seams.filedevice import CachedDevice, DirectDevice, aligned_buffer, preallocate
from replicator.seams.volume import DataVolume

BOOT = bytes(16)
VOLUMES = (VolumeEntry(1, "db", 4 << 20), VolumeEntry(2, "wal", 1 << 20))
UPSTREAM = {"a": None, "b": "a", "c": "b"}


class Answers:
    """An AnswerSink that keeps what it is told."""

    def __init__(self) -> None:
        self.requests: list[HostWrite] = []

    def answer(self, requests: list[HostWrite]) -> None:
        self.requests.extend(requests)


class Site:
    """One site's journal, volumes and movers on files."""

    def __init__(self, folder: Path, name: str) -> None:
        peers = tuple(site for site in "abc" if site != name)
        owner = Owner("orders", name, BOOT, peers)
        device = DirectDevice(folder / f"{name}.journal", writable=True, lock=True)
        self.journal = Journal.open(device, owner)
        self.volumes = {
            entry.id: DataVolume(
                entry.id,
                entry.name,
                entry.size_bytes,
                CachedDevice(folder / f"{name}.{entry.name}.img"),
            )
            for entry in VOLUMES
        }
        self.peers = {
            site: Peer(site, DirectDevice(folder / f"{site}.journal", writable=False), self.journal)
            for site in peers
        }
        recover(self.journal)
        self.restore = Restore(self.journal, self.volumes)
        while self.restore.step(0.0):
            pass

    def close(self) -> None:
        self.journal.device.close()
        for volume in self.volumes.values():
            volume.device.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, upstream in UPSTREAM.items():
        preallocate(tmp_path / f"{name}.journal", 17 << 20)
        for entry in VOLUMES:
            preallocate(tmp_path / f"{name}.{entry.name}.img", entry.size_bytes)
        device = DirectDevice(tmp_path / f"{name}.journal", writable=True)
        volumes = VOLUMES if upstream is None else ()
        new = NewJournal("orders", name, upstream, 16 << 20, volumes)
        format_journal(device, new, os.urandom, BOOT)
        device.close()
    return tmp_path


def test_cascade_random_writes_wrap_and_converge(folder: Path) -> None:
    rng = random.Random(7)
    sites = {name: Site(folder, name) for name in "abc"}
    a = sites["a"]
    commit = Commit(a.journal, a.volumes, SystemClock(), aligned_buffer)
    checkpoints = [
        Checkpoint(a.journal, a.volumes, lambda: commit.applied, checkpoint_seconds=0),
        *(
            Checkpoint(
                sites[name].journal,
                sites[name].volumes,
                lambda name=name: sites[name].restore.applied,
                checkpoint_seconds=0,
            )
            for name in "bc"
        ),
    ]
    pulls = [
        Pull(
            sites[name].journal, sites[name].peers[source], FixedInterval(seconds=0), SystemClock()
        )
        for name, source in (("b", "a"), ("c", "b"))
    ]
    answers = Answers()
    expected = {entry.id: bytearray(entry.size_bytes) for entry in VOLUMES}
    total = 0
    for round_number in range(400):
        requests = []
        for _ in range(rng.randint(1, 20)):
            entry = rng.choice(VOLUMES)
            length = rng.choice([512, 4096, 16384, 65536])
            offset = rng.randrange(0, entry.size_bytes - length, 512)
            zero = rng.random() < 0.1
            payload = bytes(length) if zero else rng.randbytes(length)
            kind = WriteKind.ZERO if zero else WriteKind.WRITE
            buffers = [] if zero else [payload]
            requests.append(HostWrite(answers, entry.id, kind, offset, length, buffers))
            expected[entry.id][offset : offset + length] = payload
            total += 1
        commit.submit(requests)
        while commit.waiting:
            if not commit.step(0.0):
                run_everything(sites, checkpoints, pulls, float(round_number))
        if rng.random() < 0.3:
            run_everything(sites, checkpoints, pulls, float(round_number))
    for extra in range(6):
        run_everything(sites, checkpoints, pulls, 1000.0 + extra)
    assert len(answers.requests) == total
    assert all(request.failure is None for request in answers.requests)
    assert a.journal.head.position > 3 * a.journal.ring.place.size
    heads = {site.journal.head for site in sites.values()}
    assert len(heads) == 1
    for site in sites.values():
        for entry in VOLUMES:
            found = memoryview(bytearray(entry.size_bytes))
            site.volumes[entry.id].read_into(0, [found])
            assert found == expected[entry.id]
    for site in sites.values():
        site.close()
    again = Site(folder, "a")
    assert again.journal.head in heads
    again.close()


def run_everything(
    sites: dict[str, Site], checkpoints: list[Checkpoint], pulls: list[Pull], now: float
) -> None:
    """One step of every mover at every site."""
    for checkpoint in checkpoints:
        checkpoint.step(now)
    for pull in pulls:
        pull.due_at = float("-inf")
        pull.step(now)
    for site in sites.values():
        if site.journal.body.role == "secondary":
            site.restore.step(now)
        for peer in site.peers.values():
            peer.look()
