"""The bench in the VM lab, with the link between a and b held to a rate and a delay.

The host's writes to a must not notice: b pulls what the link carries, and the journal keeps the
rest. Rounds with and without the constraint are interleaved, on the same machines.

``python -m bench.links`` needs a lab that is up (``make lab``); it writes the volume ``scratch``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.report import merge_into_report, print_rows
from bench.vms import GROUP, PROJECT, CommandFailed, fio, head_of, on, towline_device

RATE, DELAY = "20mbit", "10ms"
"""Of each direction: 20 ms there and back."""

BAR = 0.9
WORKLOAD = ["--rw=randwrite", "--bs=4k", "--iodepth=32"]
CATCH_UP_SECONDS = 900.0
POLL_SECONDS = 2.0


@contextmanager
def constrained() -> Iterator[None]:
    """Hold both directions of the cable a-b."""
    ends = (("a", "to-b"), ("b", "to-a"))
    try:
        for machine, interface in ends:
            on(machine, f"tc qdisc replace dev {interface} root netem rate {RATE} delay {DELAY}")
        yield
    finally:
        for machine, interface in ends:
            on(machine, f"tc qdisc del dev {interface} root")


def measure(rounds: int, seconds: int) -> dict[str, object]:
    """Interleave; b catches up after each run, so that each begins with an empty journal."""
    device = towline_device()
    samples: dict[str, list[float]] = {"free": [], "constrained": []}
    for number in range(rounds):
        samples["free"].append(fio(device, WORKLOAD, [], seconds))
        _wait_for_b()
        with constrained():
            samples["constrained"].append(fio(device, WORKLOAD, [], seconds))
        _wait_for_b()
        print(f"constrained link: round {number + 1} of {rounds}", file=sys.stderr)
    held, free = (statistics.median(samples[kind]) for kind in ("constrained", "free"))
    return {
        "what": f"VMs: 4 KiB random, depth 32, a-b held to {RATE}, 20 ms",
        "unit": "writes/s",
        "towline": round(held, 1),
        "reference": "the same, link not held",
        "reference_value": round(free, 1),
        "ratio": round(held / free, 2),
        "bar": BAR,
        "met": held / free >= BAR,
        "samples": samples,
    }


def _wait_for_b() -> None:
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while head_of("b") < head_of("a"):
        if time.monotonic() > deadline:
            raise CommandFailed(f"b has not caught up after {CATCH_UP_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def main() -> int:
    """Measure and merge the row into build/bench.json."""
    parser = argparse.ArgumentParser(prog="bench.links", description=f"Group {GROUP}, a-b held.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8, help="a fio run, each")
    arguments = parser.parse_args()
    try:
        rows = [measure(arguments.rounds, arguments.seconds)]
    except CommandFailed as error:
        print(f"bench: {error}; is the lab up (make lab)?", file=sys.stderr)
        return 1
    merge_into_report(PROJECT / "build" / "bench.json", "links", rows)
    print_rows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
