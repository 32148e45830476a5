"""The files that tell a node what it is: the topology and the name of its own site."""

from __future__ import annotations

import os
from pathlib import Path

from replicator.codec.topology import Group, Topology
from replicator.codec.topology_file import parse_topology
from replicator.errors import ConfigError, UsageError

_LONGEST_FILE = 4 << 20


def read_topology(path: str | os.PathLike[str]) -> Topology:
    """Return the topology in the file at ``path``; relative directories start at its folder.

    Raises ConfigError with every violation, or with why the file cannot be read.
    """
    where = os.fspath(path)
    folder = os.path.dirname(os.path.abspath(where))
    return parse_topology(_read_text(where, "--topology or TOWLINE_TOPOLOGY"), where, folder)


class ChangedTopology:
    """Notices when the topology file was changed after it was made, and reads it anew."""

    def __init__(self, path: str | os.PathLike[str], group: str) -> None:
        """Call it right after the file was read for the first time."""
        self._path = path
        self._group = group
        self._seen = self._stamp()

    def read(self) -> Group | None:
        """Return the group if the file was changed since the last call, else None.

        Raises ConfigError, again with each call, while the changed file is not a good one.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return None
        topology = read_topology(self._path)
        try:
            group = topology.group(self._group)
        except UsageError as error:
            raise ConfigError(os.fspath(self._path), [str(error)]) from error
        self._seen = stamp
        return group

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


def read_site_name(path: str | os.PathLike[str]) -> str:
    """Return the one line in the file at ``path``: the name of this node's site."""
    where = os.fspath(path)
    lines = _read_text(where, "--site or TOWLINE_SITE").split()
    if len(lines) != 1:
        raise ConfigError(where, [f"expected one line with the site's name, got {len(lines)}"])
    return lines[0]


def _read_text(where: str, other_way: str) -> str:
    try:
        with Path(where).open("rb") as file:
            content = file.read(_LONGEST_FILE)
        return content.decode("utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            where, [f"cannot be read: {reason} (name it with {other_way})"]
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(where, [f"expected UTF-8 text, got byte {error.start}"]) from error
