"""The kernel's half of a TCMU ring, on plain memory, and a service that answers from memory."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from replicator.errors import DeviceFailed
from replicator.model import HostFailure, HostVolume, HostWrite, WriteKind

RING_OFFSET = 128
SENSE_BYTES = 96


class KernelRing:
    """Appends commands and reads answers as drivers/target/target_core_user.c does."""

    def __init__(self, ring_size: int = 4096, data_size: int = 1 << 20) -> None:
        self.ring_size = ring_size
        self.data_start = RING_OFFSET + ring_size
        self.memory = memoryview(bytearray(self.data_start + data_size))
        struct.pack_into("<HHIII", self.memory, 0, 2, 15, RING_OFFSET, ring_size, 0)
        self.head = 0
        self.cleaned = 0
        self._next_id = 1
        self._next_data = self.data_start
        self._data: dict[int, list[memoryview]] = {}
        self.answers: dict[int, tuple[int, int, bytes]] = {}

    def set_head(self, head: int) -> None:
        self.head = head
        struct.pack_into("<I", self.memory, 12, head)

    def append(self, cdb: bytes, data_out: bytes = b"", room: int = 0, pieces: int = 1) -> int:
        """Queue a command with its Data-Out, or ``room`` bytes for Data-In; return its id."""
        size = len(data_out) or room
        iovecs = self._allocate(size, pieces)
        content = memoryview(data_out)
        for base, length in iovecs:
            self.memory[base : base + length] = content[:length] if data_out else b"\xaa" * length
            content = content[length:]
        command_id = self._next_id
        self._next_id += 1
        base_size = max(48 + 16 * len(iovecs), 112)
        length = base_size + (len(cdb) + 7) // 8 * 8
        self._make_room(length)
        start = RING_OFFSET + self.head
        self.memory[start : start + length] = bytes(length)
        struct.pack_into("<IH", self.memory, start, length | 1, command_id)
        cdb_offset = start + base_size
        struct.pack_into("<III4xQ", self.memory, start + 8, len(iovecs), 0, 0, cdb_offset)
        for index, iovec in enumerate(iovecs):
            struct.pack_into("<QQ", self.memory, start + 48 + 16 * index, *iovec)
        self.memory[cdb_offset : cdb_offset + len(cdb)] = cdb
        self._data[command_id] = [self.memory[base : base + size] for base, size in iovecs]
        self.set_head((self.head + length) % self.ring_size)
        return command_id

    def _allocate(self, size: int, pieces: int) -> list[tuple[int, int]]:
        if not size:
            return []
        if self._next_data + size > len(self.memory):
            self._next_data = self.data_start
        start, self._next_data = self._next_data, self._next_data + size
        step = -(-size // pieces)
        return [(start + at, min(step, size - at)) for at in range(0, size, step)]

    def _make_room(self, length: int) -> None:
        """Pad to the end of the ring if the entry would wrap."""
        if self.head + length > self.ring_size:
            struct.pack_into("<I", self.memory, RING_OFFSET + self.head, self.ring_size - self.head)
            self.set_head(0)

    def collect(self) -> list[int]:
        """Read the answers up to the tail; return their ids in order (an id twice asserts)."""
        tail = struct.unpack_from("<I", self.memory, 64)[0]
        done = []
        while self.cleaned != tail:
            start = RING_OFFSET + self.cleaned
            word, command_id, _, flags, status, read_length = struct.unpack_from(
                "<IHBBB3xI", self.memory, start
            )
            self.cleaned = (self.cleaned + (word & ~7)) % self.ring_size
            if word & 7 != 1:
                continue
            assert command_id in self._data, "ring is broken: unknown command id"
            data = b"".join(self._data.pop(command_id))
            if flags & 2 and read_length:
                data = data[:read_length]
            sense = bytes(self.memory[start + 16 : start + 16 + SENSE_BYTES])
            self.answers[command_id] = (status, read_length, sense if status == 2 else data)
            done.append(command_id)
        return done


class MemoryVolume:
    """A volume in memory; ``broken`` makes reads fail."""

    def __init__(self, name: str = "db", volume_id: int = 1, size_bytes: int = 1 << 20) -> None:
        self.name = name
        self.volume_id = volume_id
        self.size_bytes = size_bytes
        self.content = bytearray(size_bytes)
        self.broken = False

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        if self.broken:
            raise DeviceFailed(f"{self.name}: read at {offset} failed")
        for buffer in buffers:
            buffer[:] = self.content[offset : offset + len(buffer)]
            offset += len(buffer)


class MemoryService:
    """Carries changes out on MemoryVolumes when ``commit`` is called, as the commit loop would."""

    def __init__(self, volumes: Sequence[MemoryVolume]) -> None:
        self._volumes = {volume.volume_id: volume for volume in volumes}
        self.queue: list[HostWrite] = []
        self.submissions = 0
        self.failure: HostFailure | None = None

    @property
    def volumes(self) -> Sequence[HostVolume]:
        return list(self._volumes.values())

    def submit(self, requests: Sequence[HostWrite]) -> None:
        self.submissions += 1
        self.queue.extend(requests)

    def submit_alone(self, requests: Sequence[HostWrite]) -> None:
        self.submit(requests)

    def commit(self, order: int = 1) -> None:
        """Apply all that is queued, then answer it (``order`` -1: the last first)."""
        requests, self.queue = self.queue, []
        for request in requests:
            self._apply(request)
        for request in requests[::order]:
            request.origin.answer([request])

    def _apply(self, request: HostWrite) -> None:
        content = self._volumes[request.volume_id].content
        start, end = request.offset, request.offset + request.length
        request.failure = self.failure
        if self.failure:
            return
        if request.kind is WriteKind.COMPARE_AND_WRITE:
            found = bytes(content[start:end])
            if found != request.expected:
                request.failure = HostFailure.MISCOMPARE
                pairs = zip(found, request.expected, strict=True)
                request.failure_offset = next(i for i, (a, b) in enumerate(pairs) if a != b)
                return
        if request.kind is WriteKind.ZERO:
            content[start:end] = bytes(request.length)
        else:
            content[start:end] = b"".join(request.buffers)
        assert len(content) == self._volumes[request.volume_id].size_bytes
