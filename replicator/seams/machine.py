"""What the kernel says of this machine."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from replicator.errors import DeviceUnusable

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id() -> bytes:
    """Return the 16 bytes that the kernel drew at this boot (random(4))."""
    try:
        return UUID(_BOOT_ID.read_text().strip()).bytes
    except (OSError, ValueError) as error:
        raise DeviceUnusable(f"{_BOOT_ID}: cannot be read ({error}); is /proc mounted?") from error
