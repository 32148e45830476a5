"""Tell systemd that the daemon is ready (sd_notify(3)); nothing where there is no systemd."""

from __future__ import annotations

import os
import socket


def notify_systemd(state: str) -> None:
    """Send ``state`` (``READY=1``, ``STATUS=...``) to NOTIFY_SOCKET, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        notifier.sendto(state.encode(), address)
