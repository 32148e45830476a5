"""The CHAP secrets of a node: ``{chap: {INITIATOR: {password: ..., mutual_password: ...}}}``."""

from __future__ import annotations

import os
import re
import stat
from typing import Any

import yaml

from replicator.errors import ConfigError

_LONGEST_FILE = 1 << 20
_SECRET = re.compile(r"[A-Za-z0-9]{12,16}")
_FIELDS = ("password", "mutual_password")


def read_chap_secrets(path: str | os.PathLike[str]) -> dict[str, tuple[str, str]]:
    """Return (password, mutual password) of each initiator in the file at ``path``.

    Raises ConfigError with every violation; a violation never quotes a secret. A file that
    others than its owner can read is refused.
    """
    where = os.fspath(path)
    try:
        with open(where, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_LONGEST_FILE)
    except OSError as error:
        raise ConfigError(where, [f"cannot be read: {error.strerror}"]) from error
    if stat.S_IMODE(mode) & 0o077:
        found = f"{stat.S_IMODE(mode):04o}"
        raise ConfigError(where, [f"holds secrets: expected mode 0600, got {found}; chmod it"])
    try:
        document = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else "unknown line"
        raise ConfigError(where, [f"is not YAML ({place})"]) from None
    violations: list[str] = []
    secrets = _checked(document, violations)
    if violations:
        raise ConfigError(where, violations)
    return secrets


def _checked(document: Any, violations: list[str]) -> dict[str, tuple[str, str]]:
    chap = document.get("chap") if isinstance(document, dict) else None
    if not isinstance(chap, dict):
        violations.append("expected a mapping 'chap' of initiator names")
        return {}
    secrets = {}
    for initiator, entry in chap.items():
        if not isinstance(entry, dict) or sorted(entry) != sorted(_FIELDS):
            violations.append(f"chap.{initiator}: expected exactly {' and '.join(_FIELDS)}")
            continue
        wrong = [name for name in _FIELDS if not _SECRET.fullmatch(str(entry[name]))]
        violations += [f"chap.{initiator}.{name}: expected 12-16 letters/digits" for name in wrong]
        if entry["password"] == entry["mutual_password"]:
            violations.append(f"chap.{initiator}: the two passwords must differ (RFC 7143 12.1.3)")
        secrets[str(initiator)] = (str(entry["password"]), str(entry["mutual_password"]))
    return secrets
