"""What costs something when nothing happens, and the lag when something does.

Three sites on files with the default policy: CPU of each idle daemon, CPU of an interval
decision, and the lag at c under a steady load that does not fill the link. Prints a table;
``--json FILE`` keeps it. No test waits on it: it measures.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import socket
import struct
import sys
import time
import timeit
from pathlib import Path

from bench.embedded import TICK_MICROSECONDS, cpu_ticks
from replicator.codec.topology import AdaptiveInterval
from replicator.codec.topology_interval import INPUTS
from replicator.embedded.lab import EmbeddedLab, LabPlan
from replicator.movers.interval import Measured, decide

IDLE_BAR = 0.01
DECISION_BAR_MICROSECONDS = 100.0
LAG_BAR_SECONDS = 3.0
VOLUME = 64 << 20


def idle_cores(lab: EmbeddedLab, seconds: float) -> dict[str, float]:
    """Return what part of a core each site's daemon uses while nobody writes."""
    before = {name: cpu_ticks(site.pid) for name, site in lab.sites.items()}
    began = time.monotonic()
    time.sleep(seconds)
    span = time.monotonic() - began
    return {
        name: (cpu_ticks(site.pid) - before[name]) * TICK_MICROSECONDS / 1e6 / span
        for name, site in lab.sites.items()
    }


def decision_microseconds() -> float:
    """Return the time of one decision with every input and a target RPO."""
    policy = AdaptiveInterval(inputs=INPUTS, traffic_limit=2.5e6, rpo_seconds=5.0)
    measured = Measured(1.0, 300, elapsed_seconds=1.0, traffic=1e6, used=0.6, load=0.5, source=0.3)
    count = 20_000
    return (
        min(timeit.repeat(lambda: decide(policy, measured), number=count, repeat=5)) / count * 1e6
    )


class Writer:
    """A bare NBD client that writes 4 KiB blocks one after the other (docs/reference/nbd.md)."""

    def __init__(self, path: Path, export: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._take(18)
        self._socket.sendall(struct.pack(">I", 3))
        name = export.encode()
        self._socket.sendall(b"IHAVEOPT" + struct.pack(">II", 1, len(name)) + name)
        self._take(10)

    def write(self, offset: int, payload: bytes) -> None:
        """Write and wait for the answer."""
        self._socket.sendall(
            struct.pack(">IHHQQI", 0x25609513, 0, 1, offset, offset, len(payload)) + payload
        )
        assert self._take(16)[4:8] == bytes(4)

    def _take(self, length: int) -> bytes:
        taken = b""
        while len(taken) < length:
            piece = self._socket.recv(length - len(taken))
            assert piece, "the server hung up"
            taken += piece
        return taken


def lag_seconds(lab: EmbeddedLab, seconds: float, rate: float) -> list[float]:
    """Return the lag at c, sampled ten times a second under ``rate`` writes a second.

    Not what c says of itself, which knows a's head only as of its last look: for each answered
    write the head of a is noted, and the age of the first one that c has not received is taken.
    """
    writer, rng = Writer(lab.primary.nbd_socket, "db"), random.Random(1)
    noted: list[tuple[float, int]] = []
    lags: list[float] = []
    began = looked = time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        writer.write(rng.randrange(VOLUME // 4096) * 4096, rng.randbytes(4096))
        if now - looked >= 0.1:
            looked = now
            head = lab.primary.status().own.received
            received = lab.sites["c"].status().own.received
            here = received.position if received else 0
            noted.append((now, head.position if head else 0))
            noted = [each for each in noted if each[1] > here]
            lags.append(now - noted[0][0] if noted else 0.0)
        time.sleep(max(0.0, 1 / rate - (time.monotonic() - now)))
    return sorted(lags)


def main() -> int:
    """Measure, print, keep; 0 if every bar holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/quiet"))
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    default = {"inputs": ["records", "capacity", "source"], "min": "100ms", "max": "1s"}
    lab = EmbeddedLab(
        arguments.folder, LabPlan(volumes={"db": "64MiB"}, journal="128MiB", interval=default)
    )
    lab.make()
    lab.start()
    try:
        time.sleep(5.0)
        cores = idle_cores(lab, arguments.seconds)
        lags = lag_seconds(lab, arguments.seconds, arguments.rate)
    finally:
        lab.stop()
    decision = decision_microseconds()
    result = {
        "idle_core": {name: round(part, 5) for name, part in cores.items()},
        "decision_microseconds": round(decision, 2),
        "lag_at_c_seconds": {
            "p50": round(lags[len(lags) // 2], 3),
            "p99": round(lags[int(len(lags) * 0.99)], 3),
            "worst": round(lags[-1], 3),
        },
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    shutil.rmtree(arguments.folder)
    held = (
        max(cores.values()) < IDLE_BAR,
        decision < DECISION_BAR_MICROSECONDS,
        lags[int(len(lags) * 0.99)] < LAG_BAR_SECONDS,
    )
    print(f"bars: idle under 1 % of a core {held[0]}, decision under 100 us {held[1]}, "
          f"p99 lag at c under 3 s {held[2]}")  # fmt: skip
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
