"""The kernel's boot id: tells a daemon's restart from a machine's."""

from __future__ import annotations

import uuid
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> bytes:
    """Return the 16 bytes that name this boot (random(4))."""
    return uuid.UUID(BOOT_ID.read_text().strip()).bytes
