"""The files that tell a node what it is: the topology and the name of its own site."""

from __future__ import annotations

import os
from pathlib import Path

from replicator.codec.topology import Topology
from replicator.codec.topology_file import parse_topology
from replicator.errors import ConfigError

_LONGEST_FILE = 4 << 20


def read_topology(path: str | os.PathLike[str]) -> Topology:
    """Return the topology in the file at ``path``; relative directories start at its folder.

    Raises ConfigError with every violation, or with why the file cannot be read.
    """
    where = os.fspath(path)
    folder = os.path.dirname(os.path.abspath(where))
    return parse_topology(_read_text(where, "--topology or TOWLINE_TOPOLOGY"), where, folder)


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
