"""The NBD codec: bulk decoding, checks, and whatever bytes a client may send."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.codec import nbd

SIZE = 1 << 20


def _request(command: int, offset: int, length: int, flags: int = 0, cookie: int = 7) -> bytes:
    return struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, length)


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 3, 4, 6, 9]), st.integers(0, 2000)), min_size=1, max_size=9
    ),
    st.data(),
)
def test_decode_requests_cut_anywhere_yields_the_same_requests(
    wanted: list[tuple[int, int]], data: st.DataObject
) -> None:
    stream = b"".join(
        _request(command, 0, length, cookie=number) + (bytes(length) if command == 1 else b"")
        for number, (command, length) in enumerate(wanted)
    )
    cut = data.draw(st.integers(0, len(stream)))
    first, start, partial = nbd.decode_requests(stream, 0, cut, 100)
    if partial is not None:
        assert partial.command == nbd.COMMAND_WRITE
        assert partial.payload + partial.length > cut
    rest, end, nothing = nbd.decode_requests(stream, start, len(stream), 100)
    assert nothing is None
    assert end == len(stream)
    assert [(r.command, r.length) for r in first + rest] == wanted
    assert [int.from_bytes(r.cookie, "big") for r in first + rest] == list(range(len(wanted)))


def test_decode_requests_more_than_the_limit_leaves_the_rest_in_the_buffer() -> None:
    stream = _request(3, 0, 0) * 5
    requests, start, _ = nbd.decode_requests(stream, 0, len(stream), 3)
    assert len(requests) == 3
    assert start == 3 * nbd.REQUEST_LENGTH


def test_decode_requests_wrong_magic_is_a_violation() -> None:
    with pytest.raises(nbd.ProtocolViolation, match="magic"):
        nbd.decode_requests(bytes(28), 0, 28, 10)


def test_decode_requests_write_too_long_is_a_violation_before_its_payload_comes() -> None:
    with pytest.raises(nbd.ProtocolViolation, match="at most 33554432"):
        nbd.decode_requests(_request(1, 0, 0xFFFFFE00), 0, 28, 10)


@given(st.binary(max_size=200))
def test_decode_requests_any_bytes_yield_requests_or_a_violation(stream: bytes) -> None:
    try:
        requests, start, _ = nbd.decode_requests(stream, 0, len(stream), 10)
    except nbd.ProtocolViolation:
        return
    assert start <= len(stream)
    assert requests or len(stream) < nbd.REQUEST_LENGTH


@given(st.binary(max_size=60))
def test_decode_export_choice_any_bytes_yield_a_name_or_none(content: bytes) -> None:
    name = nbd.decode_export_choice(content)
    assert name is None or len(name.encode()) == int.from_bytes(content[:4], "big")


@pytest.mark.parametrize(
    ("command", "offset", "length", "flags", "error"),
    [
        (nbd.COMMAND_READ, 0, 4096, 0, 0),
        (nbd.COMMAND_READ, 0, 4096, nbd.FLAG_FUA, 0),
        (nbd.COMMAND_WRITE, SIZE - 512, 512, nbd.FLAG_FUA, 0),
        (nbd.COMMAND_WRITE_ZEROES, 0, SIZE, nbd.FLAG_FUA | nbd.FLAG_NO_HOLE, 0),
        (nbd.COMMAND_READ, 1, 512, 0, nbd.EINVAL),
        (nbd.COMMAND_WRITE, 0, 511, 0, nbd.EINVAL),
        (nbd.COMMAND_READ, SIZE, 512, 0, nbd.EINVAL),
        (nbd.COMMAND_TRIM, 512, SIZE, 0, nbd.EINVAL),
        (nbd.COMMAND_WRITE, SIZE - 512, 1024, 0, nbd.ENOSPC),
        (nbd.COMMAND_WRITE_ZEROES, (1 << 64) - 512, 512, 0, nbd.ENOSPC),
        (nbd.COMMAND_WRITE, 0, 512, nbd.FLAG_NO_HOLE, nbd.EINVAL),
        (nbd.COMMAND_READ, 0, 512, 1 << 2, nbd.EINVAL),
        (nbd.COMMAND_READ, 0, 0xFFFFFE00, 0, nbd.EINVAL),
    ],
)
def test_check_request_misfit_gets_the_error_of_the_protocol(
    command: int, offset: int, length: int, flags: int, error: int
) -> None:
    request = nbd.Request(flags, command, bytes(8), offset, length, 0)
    assert nbd.check_request(request, SIZE) == error
