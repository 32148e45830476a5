"""Tell systemd that the daemon is ready (sd_notify(3)); nothing where there is no systemd."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)


def notify_systemd(state: str) -> None:
    """Send ``state`` (``READY=1``, ``STATUS=...``) to NOTIFY_SOCKET, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        try:
            notifier.sendto(state.encode(), address)
        except OSError as error:  # nobody listens (any more): that is no reason to end
            log.warning("not notified state=%s reason=%s", state, error)
