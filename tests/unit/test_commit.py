"""The commit loop: group commit, order, failures (claims 1, 7, 9, 10, 15)."""

from __future__ import annotations

import itertools

import pytest

from replicator.codec.records import RecordKind
from replicator.errors import DeviceFailed, JournalFailed
from replicator.journal.reader import read_batches
from replicator.model import HostFailure, HostWrite, WriteKind
from tests.fakes.group_on_sim import Primary
from tests.sim.devices import Fault

BLOCK = 4096


def logged(primary: Primary) -> list[tuple[int, int, int, int, int]]:
    """Every record of the log: sequence number, kind, volume, offset, length."""
    catalog = primary.journal.catalog
    start = primary.journal.restored
    run = read_batches(
        primary.journal.ring,
        start,
        primary.journal.head.position,
        catalog.group_id,
        catalog.history,
        1 << 20,
    )
    return [
        (
            batch.header.first_sequence + index,
            record.kind,
            record.volume_id,
            record.offset,
            record.length,
        )
        for batch in run.batches
        for index, record in enumerate(batch.records())
    ]


def test_commit_many_waiting_writes_cost_one_batch_and_one_flush() -> None:
    primary = Primary()
    for index in range(32):
        primary.write(1, index * BLOCK, bytes([index]) * BLOCK)
    done: list[str] = []
    primary.machine.observers.append(
        lambda device, operation: done.append(f"{device.name} {operation}")
    )
    assert primary.commit.step(0.0)
    assert [each for each in done if each.startswith("journal")] == [
        "journal write",
        "journal flush",
    ]
    assert done.count("db write") == 1, "neighbours become one write"
    assert len(primary.answers.calls) == 1
    assert len(primary.answers.requests) == 32
    assert primary.commit.totals.batches == 1


def test_commit_volumes_of_a_group_share_one_dense_sequence() -> None:
    primary = Primary()
    for index in range(10):
        primary.write(1 + index % 2, 0, bytes([index]) * 512)
        if index % 3 == 0:
            primary.commit.step(0.0)
    while primary.commit.step(0.0):
        pass
    log = logged(primary)
    assert [row[0] for row in log] == list(range(10))
    assert [row[2] for row in log] == [1 + index % 2 for index in range(10)]


def test_commit_answer_comes_after_journal_is_durable() -> None:
    primary = Primary()
    primary.write(1, 0, b"x" * BLOCK)
    prepared = primary.commit.prepare()
    assert prepared is not None
    assert primary.answers.calls == []
    primary.commit.append(prepared)
    durable = primary.machine.fork_after_power_loss(seed=3, survival="none")
    at = primary.journal.ring.place.offset
    assert durable["journal"].content[at : at + 8] == b"TOWLBTCH"
    primary.commit.apply(prepared)
    assert primary.content(1, 0, BLOCK) == b"x" * BLOCK
    assert primary.answers.calls == []
    primary.commit.answer(prepared)
    assert len(primary.answers.requests) == 1


def test_commit_overlapping_writes_reach_the_volume_in_record_order() -> None:
    primary = Primary()
    for index in range(20):
        primary.write(1, 512 * (index % 3), bytes([index]) * 2048)
    primary.commit.step(0.0)
    expected = bytearray(4096)
    for index in range(20):
        at = 512 * (index % 3)
        expected[at : at + 2048] = bytes([index]) * 2048
    assert primary.content(1, 0, 4096) == expected


def test_commit_zero_between_writes_keeps_its_place() -> None:
    primary = Primary()
    primary.write(1, 0, b"a" * BLOCK)
    primary.commit.submit([HostWrite(primary.answers, 1, WriteKind.ZERO, 0, 8192, [])])
    primary.write(1, 512, b"b" * 512)
    primary.commit.step(0.0)
    assert primary.content(1, 0, 1536) == bytes(512) + b"b" * 512 + bytes(512)
    assert [row[1] for row in logged(primary)] == [
        RecordKind.WRITE,
        RecordKind.ZERO,
        RecordKind.WRITE,
    ]


def test_commit_host_that_changes_its_buffer_in_flight_changes_nothing() -> None:
    primary = Primary()
    buffer = bytearray(b"x" * BLOCK)
    primary.commit.submit(
        [HostWrite(primary.answers, 1, WriteKind.WRITE, 0, BLOCK, [memoryview(buffer)])]
    )
    prepared = primary.commit.prepare()
    assert prepared is not None
    primary.commit.append(prepared)
    buffer[:] = b"y" * BLOCK
    primary.commit.apply(prepared)
    assert primary.content(1, 0, BLOCK) == b"x" * BLOCK


def compare_and_write(primary: Primary, expected: bytes, payload: bytes) -> HostWrite:
    request = HostWrite(
        primary.answers,
        1,
        WriteKind.COMPARE_AND_WRITE,
        0,
        len(payload),
        [payload],
        expected=expected,
    )
    primary.commit.submit([request])
    return request


def test_commit_compare_and_write_two_waiting_only_one_wins() -> None:
    primary = Primary()
    first = compare_and_write(primary, bytes(512), b"1" * 512)
    second = compare_and_write(primary, bytes(512), b"2" * 512)
    assert primary.commit.step(0.0)
    assert len(primary.answers.requests) == 1, "at most one a batch (model m12)"
    assert primary.commit.step(0.0)
    assert first.failure is None
    assert (second.failure, second.failure_offset) == (HostFailure.MISCOMPARE, 0)
    assert primary.content(1, 0, 512) == b"1" * 512
    assert len(logged(primary)) == 1


def test_commit_miscompare_names_first_differing_byte() -> None:
    primary = Primary()
    primary.write(1, 0, b"a" * 512)
    primary.commit.step(0.0)
    request = compare_and_write(primary, b"a" * 300 + b"b" * 212, b"c" * 512)
    primary.commit.step(0.0)
    assert (request.failure, request.failure_offset) == (HostFailure.MISCOMPARE, 300)


@pytest.mark.parametrize("operation", ["write", "flush"])
def test_commit_journal_failure_answers_nothing_and_is_final(operation: str) -> None:
    primary = Primary()
    primary.device.faults.append(Fault(operation))
    head = primary.journal.head
    primary.write(1, 0, b"x" * BLOCK)
    with pytest.raises(JournalFailed, match="distrusted"):
        primary.commit.step(0.0)
    assert primary.answers.calls == []
    assert primary.journal.head == head
    assert primary.content(1, 0, BLOCK) == bytes(BLOCK)
    primary.write(1, 0, b"y" * BLOCK)
    with pytest.raises(JournalFailed):
        primary.commit.step(0.0)


def test_commit_volume_failure_keeps_the_answer_and_fails_reads() -> None:
    primary = Primary()
    device = primary.volumes[1].device
    device.faults.append(Fault("write"))  # type: ignore[attr-defined]
    request = primary.write(1, 0, b"x" * BLOCK)
    other = primary.write(2, 0, b"y" * BLOCK)
    primary.commit.step(0.0)
    assert (request.failure, other.failure) == (None, None)
    assert list(primary.commit.failed_volumes) == [1]
    assert primary.content(2, 0, BLOCK) == b"y" * BLOCK
    assert len(logged(primary)) == 2, "the journal has the record"
    with pytest.raises(DeviceFailed):
        primary.content(1, 0, BLOCK)


def test_commit_full_ring_holds_until_a_reader_has_received() -> None:
    primary = Primary()
    answered = 0
    for index in range(2000):
        primary.write(1, 0, bytes([index % 256]) * 16384)
        if not primary.commit.step(0.0):
            break
        answered += 1
    assert primary.commit.held_by_space
    assert answered == len(primary.answers.requests) > 50
    assert primary.commit.waiting == 1
    assert not primary.commit.step(0.0), "held, not answered, not lost"


def test_commit_wall_clock_that_jumps_back_never_moves_log_time_back() -> None:
    primary = Primary()
    times = []
    for jump in (0, -86_400_000_000_000, 86_400_000_000_000):
        primary.clock.wall_ns += jump
        primary.clock.seconds += 1.0
        primary.write(1, 0, b"x" * 512)
        primary.commit.step(0.0)
        times.append(primary.journal.head.time_ns)
    assert [b - a for a, b in itertools.pairwise(times)] == [1_000_000_000] * 2
