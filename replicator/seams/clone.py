"""Clones of volumes: a reflink or a copy of a file, a snapshot of an LVM thin volume.

A clone shows the volume's durable content and what of the page cache was written back by then; who
clones a live volume has to redo the log from its checkpoint on (``codec/image_note.py``).
"""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from replicator.errors import DeviceUnusable, MissingPackage

How = Literal["reflink", "copy", "snapshot"]
_FICLONE = 0x40049409  # linux/fs.h
_PIECE = 4 << 20


class CloneStore(Protocol):
    """Makes and drops clones of one site's volumes."""

    def clone(self, source: str, target: str) -> How:
        """Clone ``source`` as ``target`` (a path that does not exist): durable on return.

        Raises DeviceUnusable with nothing left of ``target``.
        """

    def drop(self, target: str) -> None:
        """Remove a clone; nothing happens if it is not there."""


class FileClones:
    """Clones of files: shared blocks where the file system can, else a copy without the zeros."""

    def __init__(self, *, copies: bool = True) -> None:
        """Without ``copies`` a file whose blocks cannot be shared is refused."""
        self._copies = copies

    def clone(self, source: str, target: str) -> How:
        """Clone a file; it is durable, and its name too, on return."""
        unfinished = f"{target}~"
        try:
            how = _clone_file(source, unfinished, self._copies)
            os.rename(unfinished, target)
            _sync_folder(target)
        except OSError as error:
            Path(unfinished).unlink(missing_ok=True)
            raise DeviceUnusable(
                f"{target}: cannot be cloned from {source}: {error.strerror}"
            ) from error
        return how

    def drop(self, target: str) -> None:
        """Remove the file."""
        Path(target).unlink(missing_ok=True)
        Path(f"{target}~").unlink(missing_ok=True)


def _clone_file(source: str, target: str, copies: bool) -> How:
    with open(source, "rb") as old, open(target, "w+b") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            how: How = "reflink"
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY):
                raise
            if not copies:
                raise OSError(error.errno, "this file system cannot share blocks") from error
            copy_range(old.fileno(), new.fileno(), os.fstat(old.fileno()).st_size)
            how = "copy"
        os.fsync(new.fileno())
    return how


def copy_range(source: int, target: int, length: int) -> None:
    """Copy ``length`` bytes between two descriptors; zeros are left out (the target has none)."""
    zeros = bytes(_PIECE)
    if os.fstat(target).st_size < length:
        os.ftruncate(target, length)
    for at in range(0, length, _PIECE):
        piece = os.pread(source, min(_PIECE, length - at), at)
        if piece != zeros[: len(piece)]:
            os.pwrite(target, piece, at)


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


Run = Callable[[Sequence[str]], str]
"""Runs a command and returns its output; DeviceUnusable with its last line if it fails."""


class ThinClones:
    """Snapshots of LVM thin volumes, ``/dev/VG/LV`` both; anything else is refused."""

    def __init__(self, run: Run | None = None) -> None:
        self._run = run or run_command

    def clone(self, source: str, target: str) -> How:
        """Take a thin snapshot, active and read-only for everybody but us."""
        _, _, group, volume = source.split("/", 3)
        name = target.rsplit("/", 1)[1]
        pool = self._run(["lvs", "--noheadings", "-o", "pool_lv", f"{group}/{volume}"]).strip()
        if not pool:
            raise DeviceUnusable(
                f"{source}: is no thin volume, so it has no snapshot that costs nothing; images "
                "need volumes that were made with lvcreate --thin"
            )
        command = ["lvcreate", "--snapshot", "--name", name, "--setactivationskip", "n"]
        self._run([*command, f"{group}/{volume}"])
        return "snapshot"

    def drop(self, target: str) -> None:
        """Remove the snapshot if it is there."""
        _, _, group, volume = target.split("/", 3)
        known = self._run(["lvs", "--noheadings", "-o", "lv_name", group]).split()
        if volume in known:
            self._run(["lvremove", "--yes", f"{group}/{volume}"])


def run_command(command: Sequence[str]) -> str:
    """Run ``command`` without a shell; MissingPackage if it is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MissingPackage(f"{command[0]} is not installed: apt install lvm2") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise DeviceUnusable(f"{' '.join(command)}: {' '.join(last) or done.returncode}")
    return done.stdout
