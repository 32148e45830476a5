"""Coalescing has the effect of the records one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.codec.batch import LOG_START, Batch, Content, Context, build_batch, check_batch
from replicator.codec.chunks import encode_verify
from replicator.codec.coalesce import Check, UnknownRecord, Write, Zero, coalesce
from replicator.codec.history import Epoch, History
from replicator.codec.records import RecordKind

GROUP, EPOCH = bytes(16), b"e" * 16
HISTORY = History((Epoch(EPOCH, 1, 0, bytes(16), "a"),))
SIZE = 256 << 10


def batch_of(contents: list[Content]) -> Batch:
    out = memoryview(bytearray(1 << 20))
    build_batch(Context(GROUP, EPOCH, LOG_START, 1, 0), contents, out)
    batch = check_batch(out, LOG_START, GROUP, HISTORY)
    assert isinstance(batch, Batch)
    return batch


def write(volume: int, sector: int, sectors: int, fill: int) -> Content:
    length = sectors * 512
    return (RecordKind.WRITE, volume, sector * 512, length, [bytes([fill]) * length])


def zero(volume: int, sector: int, sectors: int, fill: int) -> Content:
    del fill
    return (RecordKind.ZERO, volume, sector * 512, sectors * 512, ())


def record(kind: object, volume: int, sector: int, sectors: int, fill: int) -> Content:
    make = write if kind == "write" else zero
    return make(volume, sector, min(sectors, SIZE // 512 - sector), fill)


RECORDS = st.lists(
    st.builds(
        record,
        st.sampled_from(["write", "write", "write", "zero"]),
        st.integers(1, 2),
        st.integers(0, SIZE // 512 - 1),
        st.sampled_from([1, 2, 8, 16, 200]),
        st.integers(1, 255),
    ),
    min_size=1,
    max_size=24,
)


@given(RECORDS)
def test_coalesce_any_records_equal_one_by_one(contents: list[Content]) -> None:
    expected = {1: bytearray(b"\xee" * SIZE), 2: bytearray(b"\xee" * SIZE)}
    found = {1: bytearray(b"\xee" * SIZE), 2: bytearray(b"\xee" * SIZE)}
    for kind, volume, offset, length, buffers in contents:
        payload = b"".join(buffers) if kind == RecordKind.WRITE else bytes(length)
        expected[volume][offset : offset + length] = payload
    for action in coalesce([batch_of(contents)]):
        content = bytes(action.length) if isinstance(action, Zero) else b"".join(action.buffers)
        found[action.volume_id][action.offset : action.offset + len(content)] = content
    assert found == expected


def test_coalesce_neighbours_become_one_write() -> None:
    contents = [write(1, index * 8, 8, index + 1) for index in (3, 0, 2, 1)]
    actions = list(coalesce([batch_of(contents)]))
    assert [(type(each), each.offset) for each in actions] == [(Write, 0)]


def test_coalesce_same_block_written_often_is_written_once() -> None:
    contents = [write(1, 8, 8, fill) for fill in range(1, 50)]
    (action,) = coalesce([batch_of(contents)])
    assert isinstance(action, Write)
    assert b"".join(action.buffers) == bytes([49]) * 4096


def test_coalesce_verify_stands_between_what_is_below_and_above_it() -> None:
    check = encode_verify(4096, bytes(16))
    actions = list(
        coalesce(
            [
                batch_of([write(1, 0, 8, 1)]),
                batch_of([(RecordKind.VERIFY, 1, 0, len(check), [check])]),
                batch_of([write(1, 0, 8, 2)]),
            ]
        )
    )
    assert [type(action) for action in actions] == [Write, Check, Write]


def test_coalesce_verify_that_makes_no_sense_is_refused() -> None:
    contents: list[Content] = [(RecordKind.VERIFY, 1, 0, 16, [bytes(16)])]
    with pytest.raises(UnknownRecord, match="verify"):
        list(coalesce([batch_of(contents)]))
