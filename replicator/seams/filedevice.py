"""Journal and volume devices on Linux files and block devices.

Journals are opened with O_DIRECT (past the page cache, so that a reader beside LIO sees what the
device holds), data volumes without. Durability is fdatasync: one device flush for a batch, where
O_DSYNC costs two on disks without FUA (measured on Debian's kernel 6.1).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from replicator.errors import DeviceBusy, DeviceFailed, DeviceUnusable
from replicator.seams.blockdevice import Buffer

_BLKGETSIZE64 = 0x80081272  # linux/fs.h
_IOV_MAX = 1024  # limits.h: buffers that one preadv or pwritev takes
_FALLOC_KEEP_SIZE = 0x01  # linux/falloc.h
_FALLOC_PUNCH_HOLE = 0x02
_FALLOC_ZERO_RANGE = 0x10
_ZERO_CHUNK = bytes(1 << 20)
_READS_IN_FLIGHT = 4
_LARGEST_CACHED_WRITE = 512 << 10
"""Bytes of one write into a file's page cache. The kernel caches what one call writes in folios of
up to that size, and each later small write then walks over every block of its folio: on Linux 6.18
with ext4, 4 KiB into 1 MiB folios takes 14 us, into 128 KiB folios 4.6 us, else 2.5 us. Sequential
writes want large ones: 512 KiB costs them nothing that could be measured, 128 KiB a tenth."""
_LOCK_SECONDS = 3.0
_HUGE_PAGE = 2 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


def aligned_buffer(length: int) -> memoryview:
    """Return ``length`` zero bytes whose address fits O_DIRECT (page aligned).

    Long ones ask for huge pages: with small ones the kernel takes longer to provide and to pin
    them for a read of some MiB than the disk takes to read (measured: 600 instead of 2,900 MiB/s).
    Only private memory gets them, and that must not be there twice after a fork (open(2)).
    """
    if length < _HUGE_PAGE:
        return memoryview(mmap.mmap(-1, length))[:length]
    memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_DONTFORK)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)[:length]


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise DeviceBusy(
                f"{path}: in use by another process (LVM, a file system or a second replicator);"
                " find the holder with lsblk or fuser"
            ) from error
        raise DeviceUnusable(f"{path}: cannot be opened: {error.strerror}") from error


def _size_of(fd: int, path: Path) -> int:
    status = os.fstat(fd)
    if stat.S_ISBLK(status.st_mode):
        answer = fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8))
        return int(struct.unpack("<Q", answer)[0])
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    os.close(fd)
    raise DeviceUnusable(f"{path}: expected a block device or a regular file")


class _OpenFile:
    """What journal and volume devices share: descriptor, name, size, distrust after failure."""

    def __init__(self, path: Path, flags: int, lock: bool) -> None:
        self.path = path
        self._fd = _open(path, flags)
        self.size_bytes = _size_of(self._fd, path)
        self._is_block = path.is_block_device()
        self._failed: str | None = None
        if lock:
            self._lock()

    @property
    def name(self) -> str:
        """The path, for messages."""
        return str(self.path)

    def _lock(self) -> None:
        """Take the lock; udev holds a shared one for moments on block devices, so wait a little."""
        deadline = time.monotonic() + (_LOCK_SECONDS if self._is_block else 0)
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if time.monotonic() < deadline:
                    time.sleep(_LOCK_SECONDS / 50)
                    continue
                os.close(self._fd)
                raise DeviceBusy(
                    f"{self.path}: locked by another replicator; stop it first "
                    "(systemctl status 'replicatord@*')"
                ) from error

    def _check(self, what: str) -> None:
        if self._failed is not None:
            raise DeviceFailed(f"{self.path}: {what} refused: the device failed ({self._failed})")

    def _fail(self, what: str, error: OSError) -> DeviceFailed:
        self._failed = f"{what}: {error.strerror}"
        return DeviceFailed(f"{self.path}: {what} failed: {error.strerror}")

    def _transfer_all(self, call: object, offset: int, buffers: Sequence[Buffer], what: str) -> int:
        """Run preadv or pwritev until every buffer is done; short transfers go on."""
        if len(buffers) == 1:
            count = call(self._fd, buffers, offset)  # type: ignore[operator]
            if count == len(buffers[0]):
                return offset + int(count)
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        while views:
            count = call(self._fd, views[:_IOV_MAX], offset)  # type: ignore[operator]
            if count == 0:
                raise OSError(errno.EIO, f"{what} past the end of the device")
            offset += count
            while views and count >= len(views[0]):
                count -= len(views[0])
                del views[0]
            if count:
                views[0] = views[0][count:]
        return offset

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor (and give up the lock)."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DirectDevice(_OpenFile):
    """A journal volume with O_DIRECT; offsets and lengths are multiples of 4096.

    ``writable`` False is for a peer's journal. ``lock`` takes an exclusive flock, so a second
    replicator on the same journal ends with DeviceBusy (LIO holds the device exclusively in its
    own way, therefore not O_EXCL).
    """

    def __init__(self, path: Path, *, writable: bool, lock: bool = False) -> None:
        mode = os.O_RDWR if writable else os.O_RDONLY
        super().__init__(path, mode | os.O_DIRECT, lock)
        self._pool: ThreadPoolExecutor | None = None

    def read(self, offset: int, length: int) -> memoryview:
        """Return exactly ``length`` bytes; DeviceFailed on an error (reads may be tried again)."""
        buffer = aligned_buffer(length)
        self._read_into(offset, buffer)
        return buffer

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> memoryview:
        """Return the ranges one after the other, read several at a time to fill a long link."""
        if len(ranges) == 1:
            return self.read(*ranges[0])
        whole = aligned_buffer(sum(length for _, length in ranges))
        views: list[memoryview] = []
        at = 0
        for _, length in ranges:
            views.append(whole[at : at + length])
            at += length
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_READS_IN_FLIGHT, f"read-{self.path.name}")
        for _ in self._pool.map(self._read_into, [offset for offset, _ in ranges], views):
            pass
        return whole

    def _read_into(self, offset: int, buffer: memoryview) -> None:
        try:
            self._transfer_all(os.preadv, offset, [buffer], "read")
        except OSError as error:
            raise DeviceFailed(
                f"{self.path}: read of {len(buffer)} bytes at {offset} failed: {error.strerror}"
            ) from error

    def write(self, offset: int, content: Buffer) -> None:
        """Write ``content`` (page-aligned memory goes out as it is, other is copied first)."""
        self._check("write")
        try:
            try:
                self._transfer_all(os.pwritev, offset, [content], "write")
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                copy = aligned_buffer(len(content))
                copy[:] = content
                self._transfer_all(os.pwritev, offset, [copy], "write")
        except OSError as error:
            raise self._fail(f"write of {len(content)} bytes at {offset}", error) from error

    def flush(self) -> None:
        """fdatasync; a failure is final."""
        self._check("flush")
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise self._fail("flush", error) from error

    def close(self) -> None:
        """Close; reads in flight end first."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()


class CachedDevice(_OpenFile):
    """A data volume through the page cache; offsets and lengths are multiples of 512.

    A block device is opened with O_EXCL, so that nothing else (LVM, mount, multipath) holds it.
    """

    def __init__(self, path: Path) -> None:
        exclusive = os.O_EXCL if path.is_block_device() else 0
        super().__init__(path, os.O_RDWR | exclusive, lock=True)

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Fill ``buffers``; DeviceFailed on a read error and after a failed write-back."""
        self._check("read")
        try:
            self._transfer_all(os.preadv, offset, buffers, "read")
        except OSError as error:
            raise DeviceFailed(f"{self.path}: read at {offset} failed: {error.strerror}") from error

    def write_from(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write ``buffers`` in order; on DeviceFailed the volume is failed for reads too."""
        self._check("write")
        try:
            if len(buffers) == 1 and not self._is_block:
                self._write_pieces(offset, buffers[0])
            else:
                self._transfer_all(os.pwritev, offset, buffers, "write")
        except OSError as error:
            raise self._fail(f"write at {offset}", error) from error

    def _write_pieces(self, offset: int, content: Buffer) -> None:
        left = len(content)
        if left <= _LARGEST_CACHED_WRITE:
            self._transfer_all(os.pwritev, offset, (content,), "write")
            return
        view = memoryview(content)
        for start in range(0, left, _LARGEST_CACHED_WRITE):
            piece = view[start : start + _LARGEST_CACHED_WRITE]
            self._transfer_all(os.pwritev, offset + start, (piece,), "write")

    def next_content(self, offset: int) -> int:
        """Return where the next data are (lseek(2), SEEK_DATA); block devices are all data."""
        self._check("read")
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError as error:
            return self.size_bytes if error.errno == errno.ENXIO else offset

    def zero(self, offset: int, length: int) -> None:
        """Zero the range by the kernel, or write zeros if it cannot.

        A block device gives the space back where it can; a file keeps its blocks, because a
        preallocated volume must not need new ones later.
        """
        self._check("zero")
        modes = (
            (_FALLOC_PUNCH_HOLE, _FALLOC_ZERO_RANGE) if self._is_block else (_FALLOC_ZERO_RANGE,)
        )
        for mode in modes:
            result = _libc.fallocate(self._fd, mode | _FALLOC_KEEP_SIZE, offset, length)
            if result == 0:
                return
            number = ctypes.get_errno()
            if number not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise self._fail(f"zero at {offset}", OSError(number, os.strerror(number)))
        for start in range(offset, offset + length, len(_ZERO_CHUNK)):
            step = min(len(_ZERO_CHUNK), offset + length - start)
            self.write_from(start, [_ZERO_CHUNK[:step]])

    def flush(self) -> None:
        """fdatasync; a failure is final, reads fail from then on (fsync(2) reports once)."""
        self._check("flush")
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise self._fail("flush", error) from error

    def measure(self) -> int:
        """Return the size now; the attribute ``size_bytes`` follows."""
        self._check("measure")
        self.size_bytes = _size_of(self._fd, self.path)
        return self.size_bytes

    def retire(self) -> None:
        """Refuse everything from now on and give up the device and its lock.

        The descriptor's number is put on /dev/null in one step, so that a call of another thread
        that is under way ends on the device and none meets a descriptor that was opened anew.
        """
        self._failed = "the volume was removed from the group"
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, self._fd, inheritable=False)
        os.close(null)


def preallocate(path: Path, size_bytes: int, *, written: bool = False) -> None:
    """Create ``path`` with all its blocks allocated, so a full file system cannot stop it later.

    ``written`` writes the zeros, for a journal: a flush after the first write of a block that was
    only allocated also waits for the file system's own journal.
    Does nothing if it exists with this size; raises DeviceUnusable if it exists with another one
    or there is no room (the file is removed again).
    """
    if path.exists():
        if path.stat().st_size != size_bytes:
            raise DeviceUnusable(
                f"{path}: is {path.stat().st_size} bytes, the topology says {size_bytes}"
            )
        return
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size_bytes)
        for start in range(0, size_bytes if written else 0, len(_ZERO_CHUNK)):
            os.pwrite(fd, _ZERO_CHUNK[: size_bytes - start], start)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # they would stay in large folios
    except OSError as error:
        path.unlink()
        raise DeviceUnusable(
            f"{path}: no room for {size_bytes} bytes: {error.strerror}; free some space"
        ) from error
    finally:
        os.close(fd)
