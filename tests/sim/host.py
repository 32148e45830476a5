"""Hosts that write stamped blocks into the group, and remember what they were told."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence

from replicator.model import SECTOR, HostFailure, HostVolume, HostWrite, WriteKind
from tests.sim.oracle import Asked, BrokenPromise, Oracle
from tests.sim.plans import Shape

_STAMP = struct.Struct("<QQQQ")


def stamped(stamp: int, volume_id: int, offset: int, length: int) -> bytes:
    """Return content in which every sector names its write, volume and address."""
    fill = bytes([stamp % 251 + 1]) * (SECTOR - _STAMP.size)
    return b"".join(
        _STAMP.pack(stamp, volume_id, offset + at, length) + fill for at in range(0, length, SECTOR)
    )


class Host:
    """All hosts of the group; an AnswerSink."""

    def __init__(self, oracle: Oracle, shape: Shape, rng: random.Random) -> None:
        self._oracle = oracle
        self._rng = rng
        self._sizes = {entry.id: entry.size_bytes for entry in shape.volumes}
        self._longest = (min(shape.ring_bytes.values()) // 8) // 4096 * 4096 - 4096
        self._last_stamp = 0
        self.outstanding: dict[int, HostWrite] = {}
        self.answered = 0

    def follow(self, volumes: Mapping[int, HostVolume]) -> None:
        """Write to these volumes from now on: what the primary exports."""
        self._sizes = {volume_id: volume.size_bytes for volume_id, volume in volumes.items()}

    def ask(self, how_many: int) -> list[HostWrite]:
        """Return new requests: writes, zeros and compare-and-writes that overlap a lot."""
        return [self._ask_one() for _ in range(how_many)]

    def _ask_one(self) -> HostWrite:
        rng = self._rng
        self._last_stamp += 1
        stamp = self._last_stamp
        volume_id = rng.choice(sorted(self._sizes))
        size = self._sizes[volume_id]
        draw = rng.random()
        length = min(size, self._longest, SECTOR * rng.choice((1, 2, 3, 8, 8, 8, 16, 32)))
        if draw < 0.08:
            length = min(size, SECTOR * rng.choice((1, 8, 64, 160)))
        unit = rng.choice((SECTOR, 4096))
        offset = rng.randrange((size - length) // unit + 1) * unit
        if draw < 0.08:
            asked = Asked(stamp, volume_id, offset, bytes(length))
            request = HostWrite(self, volume_id, WriteKind.ZERO, offset, length, [], asked)
        else:
            content = stamped(stamp, volume_id, offset, length)
            asked = Asked(stamp, volume_id, offset, content)
            cut = rng.randrange(length + 1)
            buffers = [content] if cut % 2 else [content[:cut], memoryview(content)[cut:]]
            request = HostWrite(self, volume_id, WriteKind.WRITE, offset, length, buffers, asked)
            if draw < 0.16:
                request.kind = WriteKind.COMPARE_AND_WRITE
                there = bytes(self._oracle.image[volume_id][offset : offset + length])
                request.expected = there if rng.random() < 0.8 else content
        self.outstanding[stamp] = request
        return request

    def journaled(self, request: HostWrite) -> None:
        """Note a request that a batch took, in log order, before the batch is written."""
        asked = request.tag
        assert isinstance(asked, Asked)
        end = request.offset + request.length
        there = bytes(self._oracle.image[request.volume_id][request.offset : end])
        failed = request.failure in (HostFailure.MEDIUM_ERROR, HostFailure.NO_VOLUME)
        if request.kind is WriteKind.COMPARE_AND_WRITE and not failed:
            refused = request.failure is HostFailure.MISCOMPARE
            if refused != (there != request.expected):
                raise BrokenPromise(
                    f"compare-and-write {asked.stamp}: failure {request.failure}, but the volume "
                    f"{'equals' if refused else 'differs from'} what the host expects"
                )
        if request.failure is None:
            self._oracle.append(asked, request.volume_id, request.offset, asked.content)

    def answer(self, requests: Sequence[HostWrite]) -> None:
        """Take answers (AnswerSink)."""
        for request in requests:
            asked = request.tag
            assert isinstance(asked, Asked)
            if self.outstanding.pop(asked.stamp, None) is None:
                raise BrokenPromise(f"write {asked.stamp} was answered after it was given up")
            if request.failure is None:
                self._oracle.answer(asked)
            else:
                asked.failed = True
            self.answered += 1

    def forget_outstanding(self) -> None:
        """Give up what was not answered: the primary's process has ended."""
        self.outstanding.clear()
