"""The file seam: what is written in pieces is read back whole, and failures are translated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from replicator.errors import DeviceFailed
from replicator.seams.filedevice import CachedDevice, DirectDevice, aligned_buffer, preallocate

SIZE = 2 << 20


@pytest.fixture
def volume(tmp_path: Path) -> CachedDevice:
    path = tmp_path / "volume.img"
    preallocate(path, SIZE, written=True)
    return CachedDevice(path)


def _read(device: CachedDevice, offset: int, length: int) -> bytes:
    found = bytearray(length)
    device.read_into(offset, [memoryview(found)])
    return bytes(found)


@pytest.mark.parametrize("length", [512, 512 << 10, (512 << 10) + 512, 1 << 20])
def test_write_from_of_any_length_is_read_back_and_touches_nothing_else(
    volume: CachedDevice, length: int
) -> None:
    content = os.urandom(length)
    volume.write_from(1536, [content])
    assert _read(volume, 0, SIZE) == bytes(1536) + content + bytes(SIZE - 1536 - length)


def test_write_from_several_buffers_are_written_in_order(volume: CachedDevice) -> None:
    parts = [os.urandom(4096), os.urandom(512), os.urandom(640 << 10)]
    volume.write_from(4096, parts)
    assert _read(volume, 4096, sum(map(len, parts))) == b"".join(parts)


def test_write_from_with_a_closed_descriptor_fails_the_volume_for_reads_too(
    volume: CachedDevice,
) -> None:
    volume.close()
    with pytest.raises(DeviceFailed, match="write at 4096"):
        volume.write_from(4096, [bytes(640 << 10)])
    with pytest.raises(DeviceFailed):
        volume.read_into(0, [memoryview(bytearray(512))])


@pytest.mark.parametrize("length", [4096, (2 << 20) - 4096, 2 << 20, (5 << 20) + 4096])
def test_aligned_buffer_of_any_length_is_zero_and_takes_direct_io(
    tmp_path: Path, length: int
) -> None:
    content = aligned_buffer(length)
    assert content.tobytes() == bytes(length)
    content[:] = os.urandom(length)
    path = tmp_path / "journal"
    preallocate(path, 8 << 20)
    device = DirectDevice(path, writable=True)
    device.write(4096, content)
    half = length // 8192 * 4096
    assert device.read(4096, length) == content
    assert device.read_ranges([(4096, half), (4096 + half, length - half)][not half :]) == content
    device.close()
