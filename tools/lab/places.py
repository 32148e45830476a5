"""Where the lab keeps its things: project, cache, state, and the short folder for sockets."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError

GIBIBYTE = 1 << 30
DEFAULT_TOPOLOGY = "async"


@dataclass(frozen=True)
class Places:
    """Every folder that the lab uses, from the project's root."""

    project: Path

    @property
    def state(self) -> Path:
        """Keys, disks, logs and pid files of the lab: ``build/lab`` or $TOWLINE_LAB."""
        return Path(os.environ.get("TOWLINE_LAB") or self.project / "build" / "lab").absolute()

    @property
    def cache(self) -> Path:
        """What outlives the lab: images by content hash ($TOWLINE_CACHE or ``.cache``)."""
        return Path(os.environ.get("TOWLINE_CACHE") or self.project / ".cache").absolute()

    @property
    def sockets(self) -> Path:
        """A folder whose path is short enough for Unix sockets (108 bytes), private to the user."""
        digest = hashlib.sha256(str(self.state).encode()).hexdigest()[:8]
        return Path(tempfile.gettempdir()) / f"towline-{os.getuid()}-{digest}"

    @property
    def topology_file(self) -> Path:
        """What the machines replicate: a file of ``inventory/lab/topologies``."""
        folder = self.project / "inventory/lab/topologies"
        name = os.environ.get("TOWLINE_LAB_TOPOLOGY") or DEFAULT_TOPOLOGY
        path = folder / f"{name}.yml"
        if not path.exists():
            there = sorted(each.stem for each in folder.glob("*.yml"))
            raise LabError(
                f"no topology {name} for the lab", f"set TOWLINE_LAB_TOPOLOGY to {there}"
            )
        return path

    @property
    def ssh_config(self) -> Path:
        return self.state / "ssh_config"

    def make(self) -> None:
        """Create the folders; refuse a socket folder that somebody else made."""
        for folder in (self.state, self.cache):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                next_step = "choose others with TOWLINE_LAB and TOWLINE_CACHE"
                raise LabError(f"cannot make {folder}: {error.strerror}", next_step) from error
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        owner = self.sockets.lstat()
        if owner.st_uid != os.getuid() or self.sockets.is_symlink():
            raise LabError(f"{self.sockets} belongs to somebody else", "remove it or set TMPDIR")


def require_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Refuse to begin what would fill the disk."""
    usage = os.statvfs(folder)
    free = usage.f_bavail * usage.f_frsize
    if free < needed_bytes:
        raise LabError(
            f"{what} needs {needed_bytes / GIBIBYTE:.1f} GiB below {folder}, "
            f"{free / GIBIBYTE:.1f} GiB are free",
            "free some space or point TOWLINE_CACHE and TOWLINE_LAB elsewhere",
        )
