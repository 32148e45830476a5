"""The near site's journal as its primary writes it: a device, and the connection it is behind."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from replicator.errors import DeviceFailed, DeviceUnusable
from replicator.seams.blockdevice import Buffer, JournalDevice
from replicator.seams.filedevice import DirectDevice

WRITER_AT, WRITER_BYTES = 8192, 8192
"""The writer's page (docs/formats/journal.md): who writes a ring in a file locks these bytes."""

_FLOCK = struct.Struct("hhqqi4x")  # struct flock, fcntl(2)
_LOGIN_SECONDS = 60.0
_DISK_SECONDS = 10.0


class LegDevice(JournalDevice, Protocol):
    """A journal device at another site, writable; after a failure ``renew`` comes first."""

    def connection(self) -> object | None:
        """Return what names the present connection, None where that cannot be told.

        Two equal answers mean one unbroken connection between them: what was written over it is
        made durable by a flush over it.
        """

    def renew(self) -> None:
        """End the present session and begin a new one; DeviceFailed if there is none to be had.

        On return no write of an earlier session can still arrive.
        """


def lock_writer(fd: int) -> bool:
    """Take the lock that a ring's writer from afar holds on a file; False if another has it.

    An open file description lock (fcntl(2)): it goes with the descriptor, not with the process.
    """
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, WRITER_AT, WRITER_BYTES, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
    except OSError:
        return False
    return True


class FileLeg:
    """The near site's journal in a file of the same machine (the embedded lab).

    The connection is the open file. While it is open its writer's page is locked, so that a seal
    knows whether somebody may still write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._device: DirectDevice | None = None

    @property
    def name(self) -> str:
        """The path, for messages."""
        return str(self._path)

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self._opened().size_bytes

    def connection(self) -> object | None:
        """Return the open file."""
        return self._device

    def renew(self) -> None:
        """Open anew; DeviceFailed if another process writes this ring."""
        self.close()
        try:
            device = DirectDevice(self._path, writable=True)
        except DeviceUnusable as error:
            raise DeviceFailed(str(error)) from error
        if not lock_writer(device.fileno()):
            device.close()
            raise DeviceFailed(f"{self._path}: another process writes or seals this ring")
        self._device = device

    def read(self, offset: int, length: int) -> Buffer:
        """Return exactly ``length`` bytes."""
        return self._opened().read(offset, length)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> Buffer:
        """Return the concatenated bytes of each (offset, length)."""
        return self._opened().read_ranges(ranges)

    def write(self, offset: int, content: Buffer) -> None:
        """Write ``content``; durable after ``flush``."""
        self._opened().write(offset, content)

    def flush(self) -> None:
        """fdatasync; after a failure only ``renew`` helps."""
        self._opened().flush()

    def close(self) -> None:
        """Close the file and give the lock up."""
        if self._device is not None:
            self._device.close()
            self._device = None

    def _opened(self) -> DirectDevice:
        if self._device is None:
            raise DeviceFailed(f"{self._path}: not open")
        return self._device


Run = Callable[[Sequence[str]], int]
"""Runs a command and returns its exit code."""


def run_command(words: Sequence[str]) -> int:
    """Run a command for a while at most; its exit code, 124 if it did not end."""
    try:
        return subprocess.run(
            words, capture_output=True, timeout=_LOGIN_SECONDS, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return 124
    except OSError:
        return 127


class IscsiLeg(FileLeg):
    """The near site's journal as a LUN of its leg target, over the kernel's initiator.

    The connection is told by what sysfs says of the session's TCP connection: the initiator's
    local port changes with each login. Where that is not to be read, the answer is None and what
    is written is read back.
    """

    def __init__(
        self,
        path: Path,
        target: str,
        run: Run = run_command,
        sysfs: Path = Path("/sys/class/iscsi_session"),
    ) -> None:
        super().__init__(path)
        self._target = target
        self._run = run
        self._sysfs = sysfs

    def renew(self) -> None:
        """Log out, log in, open: the target ends the old session before it takes the new one.

        systemd does it, by the unit that keeps this session (role iscsi_initiator): the daemon has
        a network namespace of its own, where iscsid cannot be asked.
        """
        self.close()
        unit = f"towline-session@{self._target}.service"
        if (code := self._run(["systemctl", "restart", unit])) != 0:
            raise DeviceFailed(
                f"{self.name}: no new session (systemctl restart {unit}: {code}); is the near site "
                "up, and does it export its leg?"
            )
        deadline = time.monotonic() + _DISK_SECONDS
        while not self._path.exists():
            if time.monotonic() > deadline:
                raise DeviceFailed(f"{self.name}: logged in, but there is no such disk")
            time.sleep(0.05)
        super().renew()

    def connection(self) -> object | None:
        """Return session and local port, None if sysfs does not tell them."""
        for session in sorted(self._sysfs.glob("session*")):
            try:
                if (session / "targetname").read_text().strip() != self._target:
                    continue
                found = []
                for connection in sorted((session / "device").glob("connection*")):
                    port = connection / "iscsi_connection" / connection.name / "local_port"
                    found.append((connection.name, port.read_text().strip()))
            except OSError:
                return None
            told = bool(found) and all(re.fullmatch(r"[1-9]\d*", port) for _, port in found)
            return (session.name, tuple(found)) if told else None
        return None
