"""One replicatord of the embedded lab: start it, wait for it, kill it, ask it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from replicator.codec import naming
from replicator.codec.topology import Topology
from replicator.daemon.control import ask
from replicator.errors import DaemonUnreachable, TowlineError
from replicator.status import GroupStatus

_T = TypeVar("_T")

READY_SECONDS = 30.0
STOP_SECONDS = 20.0


class DaemonEnded(TowlineError):
    """A replicatord of the lab ended although it should run; carries its own exit code."""

    def __init__(self, site: str, code: int, last_line: str) -> None:
        super().__init__(f"replicatord of site {site} ended with exit code {code}: {last_line}")
        self.exit_code = code if code > 0 else 1
        self.code = code


class EmbeddedSite:
    """One site: its files, its sockets, and the process that serves them (or none)."""

    def __init__(self, topology_path: Path, topology: Topology, group: str, name: str) -> None:
        self.name = name
        self._topology_path = topology_path
        self._site = topology.site(name)
        self._group = group
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.kills = 0

    @property
    def folder(self) -> Path:
        """Where the site's files and sockets are."""
        return Path(self._site.devices.path)

    @property
    def journal_path(self) -> Path:
        """The site's journal volume."""
        return Path(naming.journal_path(self._site, self._group))

    @property
    def log_path(self) -> Path:
        """What the site's daemons have said, one after the other."""
        return self.folder / "replicatord.log"

    @property
    def pid(self) -> int:
        """The process id of the running daemon."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the daemon's process lives."""
        return self._process is not None and self._process.poll() is None

    def volume_path(self, volume: str) -> Path:
        """The file of a data volume."""
        return Path(naming.volume_path(self._site, self._group, volume))

    def nbd_uri(self, volume: str) -> str:
        """What NBD clients call a volume (only the primary serves it)."""
        return f"nbd+unix:///{volume}?socket={naming.nbd_socket_path(self._site, self._group)}"

    @property
    def nbd_socket(self) -> Path:
        """The NBD front end's socket."""
        return Path(naming.nbd_socket_path(self._site, self._group))

    def start(self, wrapper: Sequence[str] = (), *, wait: bool = True) -> None:
        """Start the daemon, below ``wrapper`` if given (such as prlimit), and wait until ready.

        Raises DaemonEnded if it ends instead, DaemonUnreachable if it is not ready in time.
        """
        assert not self.running
        notifier = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with notifier, self.log_path.open("ab") as log:
            notifier.bind("")  # the kernel chooses an abstract name (unix(7), autobind)
            address = "@" + notifier.getsockname()[1:].decode()
            self._process = subprocess.Popen(
                [*wrapper, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": address},
                start_new_session=True,
            )
            self.starts += 1
            if wait:
                self._wait_ready(notifier)

    def command(self) -> list[str]:
        """Return the command line of this site's replicatord."""
        module = ["-m", "replicator.daemon.main", "--group", self._group]
        names = ["--topology", str(self._topology_path), "--site", self.name]
        return [sys.executable, *module, *names]

    def _wait_ready(self, notifier: socket.socket) -> None:
        deadline = time.monotonic() + READY_SECONDS
        notifier.settimeout(0.05)
        while time.monotonic() < deadline:
            try:
                if b"READY=1" in notifier.recv(4096):
                    return
            except TimeoutError:
                if not self.running:
                    raise self.ended() from None
        raise DaemonUnreachable(
            f"site {self.name}: not ready within {READY_SECONDS:g} s; see {self.log_path}"
        )

    def ended(self) -> DaemonEnded:
        """Return the error that says how the process ended."""
        assert self._process is not None
        lines = self.log_path.read_text(errors="replace").strip().splitlines()
        return DaemonEnded(self.name, self._process.wait(), lines[-1] if lines else "no output")

    def wait_ended(self, timeout: float = STOP_SECONDS) -> int:
        """Wait for the process to end by itself; return its exit code."""
        assert self._process is not None
        return self._process.wait(timeout)

    def kill(self) -> None:
        """Kill -9, and wait until the process is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.kills += 1

    def pause(self) -> None:
        """Stop the process where it is (SIGSTOP): a zombie, until ``resume``."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def note_killed(self) -> None:
        """Count a kill -9 that somebody else sent, and wait until the process is gone."""
        assert self._process is not None
        self._process.wait(STOP_SECONDS)
        self.kills += 1

    def stop(self) -> None:
        """Ask the daemon to end and wait; kill it if it does not.

        Raises DaemonEnded if it ends with an error, DaemonUnreachable if it had to be killed.
        """
        if self._process is None or not self.running:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise DaemonUnreachable(
                f"site {self.name}: did not end within {STOP_SECONDS:g} s; see {self.log_path}"
            ) from None
        if self._process.returncode:
            raise self.ended()

    def status(self) -> GroupStatus:
        """Ask the daemon; DaemonUnreachable if it does not answer, DaemonEnded if it is gone."""
        path = naming.control_socket_path(self._site, self._group)
        try:
            return ask(path, "status", kind=GroupStatus, timeout_seconds=5)
        except DaemonUnreachable as error:
            if self._process is not None and self._process.poll() is not None:
                raise self.ended() from error
            raise

    def ask(self, command: str, arguments: Mapping[str, object], kind: type[_T]) -> _T:
        """Ask the daemon for something else; raises what ``control.ask`` raises."""
        path = naming.control_socket_path(self._site, self._group)
        return ask(path, command, arguments, kind=kind, timeout_seconds=60)

    def memory(self) -> int:
        """Return the anonymous memory of the process (RssAnon), bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise DaemonUnreachable(f"site {self.name}: its process is gone")
