"""Anonymous memory of a replicatord stays below its bar, whatever clients do."""

from __future__ import annotations

import struct
import threading
import time
from pathlib import Path

import pytest

from replicator.embedded.lab import LabPlan
from tests.embedded.conftest import MakeLab
from tests.fakes.nbd_client import REQUEST_MAGIC, WRITE, NbdClient

BAR = 150 << 20
PLAN = LabPlan(volumes={"db": "32MiB"}, journal="256MiB", interval={"fixed": "50ms"})
LONG = 1 << 20


def _flood(path: Path, until: float) -> None:
    """Have sixteen long writes in flight again and again."""
    payload = bytes(LONG)
    with NbdClient(path, "db") as client:
        flying = 0
        while time.monotonic() < until:
            if flying == 16:
                client.reply()
                flying -= 1
            client.send(WRITE, flying * LONG, LONG, payload)
            flying += 1
        while flying:
            client.reply()
            flying -= 1


@pytest.mark.slow
def test_memory_many_greedy_and_many_slow_clients_stays_below_the_bar(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    lab.start()
    primary = lab.primary
    slow = [NbdClient(primary.nbd_socket, "db") for _ in range(40)]
    for client in slow:  # each in the middle of a long write, and silent from then on
        client.socket.sendall(struct.pack(">IHHQQI", REQUEST_MAGIC, 0, WRITE, 1, 0, LONG))
        client.socket.sendall(bytes(700_000))
    until = time.monotonic() + 4
    threads = [threading.Thread(target=_flood, args=(primary.nbd_socket, until)) for _ in range(16)]
    for thread in threads:
        thread.start()
    largest = 0
    while any(thread.is_alive() for thread in threads):
        largest = max(largest, primary.memory())
        time.sleep(0.05)
    for client in slow:
        client.socket.close()
    assert largest < BAR, f"{largest >> 20} MiB"
    lab.wait_converged()
    for site in lab.sites.values():
        assert site.memory() < BAR
