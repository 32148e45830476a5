"""The lab's CHAP secrets: made once a lab, kept in one file that only its owner can read."""

from __future__ import annotations

import os
import secrets
import string
from pathlib import Path

import yaml

ALPHABET = string.ascii_letters + string.digits
LENGTH = 16


def ensure_secrets(path: Path, initiators: list[str]) -> bool:
    """Give every initiator a password and one for the targets' proof; return whether any is new.

    Existing secrets stay. To rotate one, delete its entry and provision again.
    """
    held = yaml.safe_load(path.read_text()) if path.exists() else {}
    chap = dict((held or {}).get("towline_chap") or {})
    missing = [name for name in initiators if name not in chap]
    if not missing:
        return False
    for name in missing:
        chap[name] = {"password": _password(), "mutual_password": _password()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        yaml.safe_dump({"towline_chap": chap}, file)
    temporary.rename(path)
    return True


def _password() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
