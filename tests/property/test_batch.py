"""Batches: what was written is what is read, and nothing else is ever accepted."""

from __future__ import annotations

import random
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.codec.batch import (
    LOG_START,
    Batch,
    Content,
    Invalid,
    Point,
    check_batch,
    parse_header,
    walk,
)
from replicator.codec.digest import digest, digest_of_parts
from replicator.codec.history import Epoch, History
from replicator.codec.records import RecordKind
from replicator.model import BLOCK
from tests.property.strategies import (
    EPOCH_ID,
    GROUP_ID,
    HISTORY,
    content_lists,
    points,
    written,
)

_LENGTH_AT = 80
_DIGESTS_AT = (120, 136)
"""Where the payload's digest and the header's own digest stand (docs/formats/journal.md)."""


def _judge(content: bytes | bytearray, at: Point = LOG_START) -> Batch | Invalid:
    return check_batch(memoryview(content), at, GROUP_ID, HISTORY)


@given(content_lists, points)
def test_batch_written_then_read_gives_the_same_records(records: list[Content], at: Point) -> None:
    batch = _judge(written(records, at, at.time_ns), at)
    assert isinstance(batch, Batch)
    found = list(batch.records())
    assert [row[:4] for row in found] == [record[:4] for record in records]
    for row, record in zip(found, records, strict=True):
        if record[4]:
            assert bytes(batch.payload_of(row)) == b"".join(record[4])
    assert batch.end.position == at.position + len(batch.content)
    assert batch.end.sequence == at.sequence + len(records)


def test_batch_with_any_bit_flipped_is_never_accepted() -> None:
    payload = random.Random(7).randbytes(1536)
    content = written(
        [(RecordKind.WRITE, 1, 512, 1536, (payload,)), (RecordKind.ZERO, 2, 0, 8, ())]
    )
    assert isinstance(_judge(content), Batch)
    for at in range(len(content)):
        for bit in range(8):
            content[at] ^= 1 << bit
            assert isinstance(_judge(content), Invalid), (at, bit)
            content[at] ^= 1 << bit


@given(content_lists, points, points)
def test_batch_elsewhere_in_the_log_is_never_accepted(
    records: list[Content], at: Point, other: Point
) -> None:
    content = written(records, at)
    if other[:3] != at[:3]:
        assert isinstance(_judge(content, other), Invalid)
    assert isinstance(check_batch(memoryview(content), at, bytes(16), HISTORY), Invalid), (
        "another group"
    )
    reborn = History((Epoch(bytes(16), 1, 0, bytes(16), "a"),))
    assert isinstance(check_batch(memoryview(content), at, GROUP_ID, reborn), Invalid)
    forked = History((*HISTORY.epochs, Epoch(bytes(16), 2, at.position, at.digest, "b")))
    assert isinstance(check_batch(memoryview(content), at, GROUP_ID, forked), Invalid)


@given(content_lists, st.data())
def test_batch_cut_short_asks_for_more_bytes(records: list[Content], data: st.DataObject) -> None:
    content = written(records)
    short = data.draw(st.integers(0, len(content) // BLOCK - 1)) * BLOCK
    verdict = _judge(content[:short])
    assert isinstance(verdict, Invalid)
    assert short < verdict.needs <= len(content)


@given(st.lists(content_lists, min_size=1, max_size=5), st.data())
def test_walk_stops_at_the_first_batch_that_does_not_hold(
    batches: list[list[Content]], data: st.DataObject
) -> None:
    at, stream, ends = LOG_START, bytearray(), [0]
    for records in batches:
        content = written(records, at)
        verdict = _judge(content, at)
        assert isinstance(verdict, Batch)
        at = verdict.end
        stream += content
        ends.append(len(stream))
    broken = data.draw(st.integers(0, len(stream) - 1))
    stream[broken] ^= 1 << data.draw(st.integers(0, 7))
    verdicts = list(walk(memoryview(stream), LOG_START, GROUP_ID, HISTORY))
    whole = sum(end <= broken for end in ends) - 1
    assert [type(verdict) for verdict in verdicts] == [Batch] * whole + [Invalid]
    assert verdicts[-1].position == ends[whole]


@given(st.binary(max_size=3 * BLOCK))
def test_batch_from_garbage_is_invalid_without_an_exception(content: bytes) -> None:
    assert isinstance(_judge(content), Invalid)
    parse_header(content)


@settings(max_examples=500)
@given(content_lists, st.data())
def test_batch_by_a_faulty_writer_never_raises(records: list[Content], data: st.DataObject) -> None:
    """Any field changed, with digests made to fit: a verdict, or rows inside the payload."""
    content = written(records)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content), 192 + 32 * len(records) + 64) - 8))
        width, form = data.draw(st.sampled_from([(1, "B"), (2, "<H"), (4, "<I"), (8, "<Q")]))
        value = data.draw(st.integers(0, (1 << 8 * width) - 1))
        struct.pack_into(form, content, at, value)
    head = struct.unpack_from("<I", content, 12)[0]
    total = struct.unpack_from("<Q", content, _LENGTH_AT)[0]
    payload_at, own_at = _DIGESTS_AT
    content[payload_at:own_at] = digest(memoryview(content)[head:total])
    content[own_at : own_at + 16] = digest_of_parts(
        (memoryview(content)[:own_at], memoryview(content)[own_at + 16 : head])
    )
    verdict = _judge(content)
    if isinstance(verdict, Batch):
        for row in verdict.records():
            if row.kind != RecordKind.ZERO:
                assert len(verdict.payload_of(row)) == row.length
    assert HISTORY.last.id == EPOCH_ID
