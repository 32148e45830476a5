"""Control records: events in batches of their own, and the catalog that they change."""

from __future__ import annotations

import threading

import msgspec
import pytest

from replicator.codec.batch import Batch, Content, Context, Invalid, build_batch, check_batch
from replicator.codec.catalog_records import (
    BadEvent,
    VolumeChange,
    changed_volumes,
    encode_event,
)
from replicator.codec.history import VolumeEntry
from replicator.codec.records import RecordKind
from replicator.codec.topology import FixedInterval
from replicator.errors import JournalFailed
from replicator.group.commit_runner import CommitRunner
from replicator.journal.journal import Journal, Owner
from replicator.journal.reader import read_batches
from replicator.journal.recovery import recover
from replicator.model import ChunkRecord, ControlRecord, HostWrite, Pair, WriteKind
from replicator.movers.commit import Commit
from replicator.movers.pull import Pull
from replicator.movers.restore import Restore
from tests.fakes.group_on_sim import BOOT, VOLUMES, Primary, Secondary, blank_volumes, plain_buffer
from tests.sim.devices import Fault

ADDED = VolumeEntry(7, "logs", 1 << 20)


def added() -> bytes:
    return encode_event(VolumeChange("add", ADDED.id, ADDED.name, ADDED.size_bytes))


def kinds(primary: Primary) -> list[list[int]]:
    """The kinds of each batch's records, from the checkpoint on."""
    journal = primary.journal
    catalog = journal.catalog
    run = read_batches(
        journal.ring,
        journal.restored,
        journal.head.position,
        catalog.group_id,
        catalog.history,
        1 << 20,
    )
    return [[record.kind for record in batch.records()] for batch in run.batches]


def commit_all(primary: Primary) -> None:
    while primary.commit.step(0.0):
        pass


def test_control_events_stand_in_batches_of_their_own_and_take_turns_with_writes() -> None:
    primary = Primary()
    ends: list[Pair] = []
    primary.write(1, 0, b"x" * 512)
    primary.commit.submit_control(
        [ControlRecord(RecordKind.BOOKMARK, b"before", on_durable=ends.append) for _ in range(2)]
    )
    primary.write(1, 512, b"y" * 512)
    commit_all(primary)
    assert kinds(primary) == [[RecordKind.WRITE] * 2, [RecordKind.BOOKMARK] * 2]
    assert ends == [primary.journal.head.pair] * 2
    assert primary.commit.applied == primary.journal.head
    assert len(primary.answers.requests) == 2


def test_control_event_after_a_failed_flush_is_never_called_durable() -> None:
    primary = Primary()
    ends: list[Pair] = []
    primary.device.faults.append(Fault("flush"))
    primary.commit.submit_control([ControlRecord(RecordKind.BOOKMARK, b"", on_durable=ends.append)])
    with pytest.raises(JournalFailed):
        primary.commit.step(0.0)
    assert ends == []


def test_control_events_have_room_in_a_ring_that_is_full_for_hosts() -> None:
    primary = Primary()
    index = 0
    while True:
        primary.write(1, index % 32 * 4096, b"z" * 4096)
        index += 1
        if not primary.commit.step(0.0):
            break
    assert primary.commit.held_by_space
    primary.commit.submit_control([ControlRecord(RecordKind.BOOKMARK, b"")])
    assert primary.commit.step(0.0), "the event has room"
    assert not primary.commit.step(0.0), "hosts have none"


def test_batch_of_events_and_writes_is_refused() -> None:
    primary = Primary()
    journal = primary.journal
    contents: list[Content] = [
        (RecordKind.BOOKMARK, 0, 0, 4, [b"mark"]),
        (RecordKind.WRITE, 1, 0, 512, [bytes(512)]),
    ]
    out = memoryview(bytearray(1 << 16))
    catalog = journal.catalog
    context = Context(catalog.group_id, catalog.history.last.id, journal.head, 1, 0)
    end = build_batch(context, contents, out)
    verdict = check_batch(out[: end.position], journal.head, catalog.group_id, catalog.history)
    assert isinstance(verdict, Invalid)
    assert verdict.rule == "V10"
    good = build_batch(context, contents[:1], out)
    verdict = check_batch(out[: good.position], journal.head, catalog.group_id, catalog.history)
    assert isinstance(verdict, Batch)
    assert verdict.first_kind == RecordKind.BOOKMARK


def test_volume_event_reaches_the_catalog_of_every_site_with_the_head() -> None:
    primary = Primary()
    secondary = Secondary(primary)
    pull = Pull(secondary.journal, secondary.peer, FixedInterval(seconds=1.0), primary.clock)
    primary.write(1, 0, b"x" * 512)
    commit_all(primary)
    primary.journal.publish()
    pull.step(0.0)
    assert secondary.journal.catalog.volumes == VOLUMES
    primary.commit.submit_control([ControlRecord(RecordKind.VOLUME, added())])
    commit_all(primary)
    assert primary.journal.catalog.volumes == (*VOLUMES, ADDED)
    assert primary.journal.body.head == primary.journal.head, "published together"
    pull.step(10.0)
    assert secondary.journal.catalog.volumes == (*VOLUMES, ADDED)
    secondary.open(primary)
    assert secondary.journal.catalog.volumes == (*VOLUMES, ADDED)


def test_volume_event_in_the_tail_above_the_page_is_found_by_recovery() -> None:
    primary = Primary()
    event = ControlRecord(RecordKind.VOLUME, added())
    primary.write(1, 0, b"x" * 512)
    primary.commit.submit_control([event])
    crash = Commit(primary.journal, primary.volumes, primary.clock, plain_buffer)
    crash.submit_control([event])
    prepared = crash.prepare()
    assert prepared is not None
    length = prepared.end.position - primary.journal.head.position
    primary.journal.ring.write(primary.journal.head.position, prepared.content[:length])
    primary.device.flush()  # and here the process dies: the page knows nothing of the event
    again = Journal.open(primary.device, Owner("orders", "a", BOOT, ("b",)))
    assert again.catalog.volumes == VOLUMES
    recover(again)
    assert again.catalog.volumes == (*VOLUMES, ADDED)
    assert again.head == prepared.end
    once_more = Journal.open(primary.device, Owner("orders", "a", BOOT, ("b",)))
    recover(once_more)
    assert once_more.catalog.volumes == (*VOLUMES, ADDED)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (VolumeChange("add", 1, "fresh", 1 << 20), "used before"),
        (VolumeChange("add", 9, "db", 1 << 20), "name is in use"),
        (VolumeChange("add", 5, "fresh", 1 << 20), "used before"),
        (VolumeChange("grow", 1, "db", 4096), "no growth"),
        (VolumeChange("grow", 8, "db", 1 << 30), "no such volume"),
        (VolumeChange("remove", 1, "wal", 1 << 20), "no such volume"),
    ],
)
def test_volume_event_that_does_not_fit_is_refused_by_name(
    change: VolumeChange, reason: str
) -> None:
    primary = Primary()
    catalog = msgspec.structs.replace(primary.journal.catalog, retired=(5,))
    with pytest.raises(BadEvent, match=reason):
        changed_volumes(catalog, change)


def test_runner_control_record_is_committed_while_hosts_write() -> None:
    primary = Primary(peers=())
    runner = CommitRunner(primary.commit, primary.volumes, lambda error: None)
    done = threading.Event()
    runner.start()
    runner.submit_control(
        [ControlRecord(RecordKind.BOOKMARK, b"now", on_durable=lambda _: done.set())]
    )
    assert done.wait(20.0)
    runner.stop()


def test_chunks_stand_in_batches_of_their_own_with_what_lower_writes_left() -> None:
    primary = Primary()
    primary.write(1, 4096, b"x" * 4096)
    sent: list[int] = []
    chunks = [
        ChunkRecord(RecordKind.COPY, 1, 4096, 4096),
        ChunkRecord(RecordKind.COPY, 1, 64 << 10, 8192),
        ChunkRecord(RecordKind.VERIFY, 1, 0, 16384),
    ]
    for chunk in chunks:
        chunk.on_durable = lambda _, chunk=chunk: sent.append(chunk.sent_bytes)  # type: ignore[misc]
    primary.commit.submit_chunks(chunks)
    commit_all(primary)
    assert kinds(primary) == [
        [RecordKind.WRITE],
        [RecordKind.COPY, RecordKind.ZERO, RecordKind.VERIFY],
    ]
    assert sent[:2] == [4096, 0]


def test_chunk_of_a_volume_that_cannot_be_read_fails_and_takes_no_place() -> None:
    primary = Primary()
    failed: list[int] = []
    gone = ChunkRecord(RecordKind.COPY, 9, 0, 4096, on_failed=lambda: failed.append(9))
    beyond = ChunkRecord(RecordKind.COPY, 1, 1 << 30, 4096, on_failed=lambda: failed.append(1))
    primary.commit.submit_chunks([gone, beyond])
    commit_all(primary)
    assert failed == [9, 1]
    assert primary.journal.head.position == 0


def test_verify_record_finds_a_flipped_bit_and_nothing_else() -> None:
    primary = Primary()
    secondary = Secondary(primary)
    volumes = blank_volumes(secondary.machine)
    pull = Pull(secondary.journal, secondary.peer, FixedInterval(seconds=1.0), primary.clock)
    restore = Restore(secondary.journal, volumes)

    def verify_all(now: float) -> None:
        primary.commit.submit_chunks(
            [
                ChunkRecord(RecordKind.VERIFY, 1, at, 32 << 10)
                for at in range(0, 256 << 10, 32 << 10)
            ]
        )
        commit_all(primary)
        primary.journal.publish()
        pull.step(now)
        while restore.step(now):
            pass

    for index in range(64):
        primary.write(1, index * 4096, bytes([index + 1]) * 4096)
    commit_all(primary)
    verify_all(0.0)
    assert restore.judge.verified_bytes == 256 << 10
    assert not restore.judge.differs
    secondary.machine["db"].content[100_000] ^= 4
    verify_all(10.0)
    assert [(each.volume_id, each.offset, each.length) for each in restore.judge.differs] == [
        (1, 98304, 32768)
    ]


def test_runner_chunk_waits_for_the_writes_below_it() -> None:
    primary = Primary(peers=())
    runner = CommitRunner(primary.commit, list(primary.volumes.values()), lambda error: None)
    done = threading.Event()
    runner.start()
    for index in range(20):
        runner.submit(
            [HostWrite(primary.answers, 1, WriteKind.WRITE, 0, 512, [bytes([index + 1]) * 512])]
        )
    runner.submit_chunks(
        [ChunkRecord(RecordKind.COPY, 1, 0, 4096, on_durable=lambda _: done.set())]
    )
    assert done.wait(20.0)
    runner.stop()
    catalog = primary.journal.catalog
    run = read_batches(
        primary.journal.ring,
        primary.journal.restored,
        primary.journal.head.position,
        catalog.group_id,
        catalog.history,
        1 << 20,
    )
    image = bytearray(4096)
    for batch in run.batches:
        for record in batch.records():
            if record.kind == RecordKind.COPY:
                assert batch.payload_of(record) == image
            else:
                image[record.offset : record.offset + record.length] = batch.payload_of(record)
