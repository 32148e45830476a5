"""A consistency group over plain memory or files, for tests of front ends.

It answers from a thread of its own, many requests at once, as the commit loop does. ``hold`` keeps
answers back, which is what a stalled journal looks like.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from replicator.errors import DeviceFailed
from replicator.model import HostFailure, HostWrite, WriteKind


class MemoryVolume:
    """A volume in memory that can be told to fail its reads in a range."""

    def __init__(self, name: str, volume_id: int, size_bytes: int) -> None:
        self.name = name
        self.volume_id = volume_id
        self.size_bytes = size_bytes
        self.content = bytearray(size_bytes)
        self.bad_offset: int | None = None

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            assert offset % 512 == 0 and len(buffer) % 512 == 0
            end = offset + len(buffer)
            if self.bad_offset is not None and offset <= self.bad_offset < end:
                raise DeviceFailed(f"{self.name}: read error at {self.bad_offset}")
            buffer[:] = self.content[offset:end]
            offset = end

    def carry_out(self, request: HostWrite) -> None:
        if request.kind is WriteKind.ZERO:
            self.content[request.offset : request.offset + request.length] = bytes(request.length)
            return
        content = b"".join(request.buffers)
        assert len(content) == request.length
        self.content[request.offset : request.offset + request.length] = content


class FileVolume:
    """A volume in a file, through the page cache."""

    def __init__(self, name: str, volume_id: int, path: Path, size_bytes: int) -> None:
        self.name = name
        self.volume_id = volume_id
        self.size_bytes = size_bytes
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(self._file, 0, size_bytes)

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        os.preadv(self._file, buffers, offset)

    def carry_out(self, request: HostWrite) -> None:
        if request.kind is WriteKind.ZERO:
            os.pwrite(self._file, bytes(request.length), request.offset)
            return
        os.pwritev(self._file, request.buffers, request.offset)


class FakeService:
    """A HostService whose commit is only the volume write."""

    def __init__(self, volumes: Sequence[MemoryVolume | FileVolume]) -> None:
        self.volumes = volumes
        self.largest_batch = 0
        self.submitted_alone = 0
        self.before_alone: Callable[[], object] = lambda: None
        self.fail_with: HostFailure | None = None
        self._by_id = {volume.volume_id: volume for volume in volumes}
        self._waiting: list[HostWrite] = []
        self._changed = threading.Condition()
        self._held = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="fake-commit", daemon=True)
        self._thread.start()

    def submit(self, requests: Sequence[HostWrite]) -> None:
        with self._changed:
            self._waiting.extend(requests)
            self._changed.notify()

    def submit_alone(self, requests: Sequence[HostWrite]) -> None:
        self.submitted_alone += len(requests)
        self.before_alone()
        self._commit(list(requests))

    def hold(self) -> None:
        with self._changed:
            self._held = True

    def let_go(self) -> None:
        with self._changed:
            self._held = False
            self._changed.notify()

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    def close(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and (self._held or not self._waiting):
                    self._changed.wait()
                if self._stopping:
                    return
                batch, self._waiting = self._waiting, []
            self.largest_batch = max(self.largest_batch, len(batch))
            self._commit(batch)

    def _commit(self, batch: list[HostWrite]) -> None:
        by_origin: dict[int, list[HostWrite]] = {}
        for request in batch:
            if self.fail_with is None:
                self._by_id[request.volume_id].carry_out(request)
            else:
                request.failure = self.fail_with
            by_origin.setdefault(id(request.origin), []).append(request)
        for requests in by_origin.values():
            requests[0].origin.answer(requests)
