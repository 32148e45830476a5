"""The bench in the VM lab: the TCMU volume against LIO's own block backstore.

Both are LUNs of site a on logical volumes of the same disk, reached by the lab's host over the same
cable. Rounds are interleaved and medians quoted, as ratios: absolute figures are those of emulated
machines. Then pull catch-up at b against dd with O_DIRECT from the same LUN.

``python -m bench.vms`` needs a lab that is up (``make lab``); it writes the volume ``scratch``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.report import merge_into_report, print_rows
from replicator.codec import naming
from replicator.seams.nodefiles import read_topology
from replicator.target.wanted import TPG_PARAMETERS

PROJECT = Path(__file__).resolve().parents[1]
LAB = Path(os.environ.get("TOWLINE_LAB", PROJECT / "build" / "lab"))
TOPOLOGY = PROJECT / "inventory" / "lab" / "topologies" / "async.yml"
GROUP, VOLUME = "orders", "scratch"
REFERENCE = "bench-reference"
REFERENCE_BYTES = 64 << 20
CATCH_UP_BYTES = 96 << 20
WORKLOADS = {
    "4 KiB random, depth 1": ["--rw=randwrite", "--bs=4k", "--iodepth=1"],
    "4 KiB random, depth 32": ["--rw=randwrite", "--bs=4k", "--iodepth=32"],
    "128 KiB sequential, depth 8": ["--rw=write", "--bs=128k", "--iodepth=8"],
}
BARS = {
    "4 KiB random, depth 1": 0.5,
    "4 KiB random, depth 32": 1.0,
    "128 KiB sequential, depth 8": 0.5,
}
CATCH_UP_BAR = 0.8

EXPORT_REFERENCE = """
from rtslib_fb import (BlockStorageObject, FabricModule, LUN, MappedLUN, NetworkPortal, NodeACL,
                       TPG, Target)
backstore = BlockStorageObject("{name}", dev="/dev/towline/{name}")
backstore.set_attribute("emulate_3pc", "0")
target = Target(FabricModule("iscsi"), "{iqn}")
portal_group = TPG(target, 1)
for name, value in (("authentication", "0"), ("generate_node_acls", "0")):
    portal_group.set_attribute(name, value)
for name, value in {parameters!r}.items():
    portal_group.set_parameter(name, value)
LUN(portal_group, 0, backstore)
MappedLUN(NodeACL(portal_group, "{initiator}"), 0, 0)
NetworkPortal(portal_group, "{address}", 3260)
portal_group.enable = True
"""
REMOVE_REFERENCE = """
from rtslib_fb import RTSRoot
root = RTSRoot()
for target in list(root.targets):
    if target.wwn == "{iqn}":
        target.delete()
for backstore in list(root.storage_objects):
    if backstore.name == "{name}":
        backstore.delete()
"""


class CommandFailed(Exception):
    """A command on a machine of the lab ended with another code than 0."""


def on(machine: str, command: str, text: str = "") -> str:
    """Run a shell command on a machine of the lab and return what it prints."""
    done = subprocess.run(
        ["ssh", "-F", str(LAB / "ssh_config"), machine, command],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CommandFailed(f"{machine}: {command}: {done.stderr.strip() or done.returncode}")
    return done.stdout


@contextmanager
def reference_lun(topology_address: str, initiator: str, iqn: str) -> Iterator[None]:
    """A LUN on LIO's block backstore beside the TCMU one, logged in at the host."""
    parameters = {name: value for name, value in TPG_PARAMETERS.items() if name != "AuthMethod"}
    names = {"name": REFERENCE, "iqn": iqn, "initiator": initiator, "address": topology_address}
    python = "/opt/towline/venv/bin/python -"
    node = f"-m node -T {iqn} -p {topology_address}:3260"
    remove = f"/sbin/lvremove -fy towline/{REFERENCE}"
    on("a", python, REMOVE_REFERENCE.format(**names))
    on("a", f"{remove} 2>/dev/null; /sbin/lvcreate -y -L {REFERENCE_BYTES}b -n {REFERENCE} towline")
    try:
        on("a", python, EXPORT_REFERENCE.format(parameters=parameters, **names))
        on("app1", f"iscsiadm {node} -o new && iscsiadm {node} --login")
        yield
    finally:
        on("app1", f"iscsiadm {node} --logout; iscsiadm {node} -o delete; true")
        on("a", python, REMOVE_REFERENCE.format(**names))
        on("a", remove)


def towline_device() -> str:
    """Return the host's disk of the volume, as Towline serves it."""
    topology = read_topology(TOPOLOGY)
    data = naming.data_target_iqn(topology.iqn_prefix, GROUP, "a")
    lun = naming.data_lun(topology.group(GROUP), VOLUME)
    return f"/dev/disk/by-path/ip-{naming.portal(topology.site('a'))}-iscsi-{data}-lun-{lun}"


def head_of(site: str) -> int:
    """Return the position that a site has durably received, by its own page."""
    page = json.loads(on(site, f"replicatorctl journal info --group {GROUP} --json"))
    return int(str(page["head"]).split(":")[0])


def fio(device: str, workload: list[str], extra: list[str], seconds: int) -> float:
    """Run fio on the host; return writes per second."""
    command = [
        "fio --name=bench --output-format=json --ioengine=libaio --direct=1 --time_based",
        f"--runtime={seconds} --size=64m --filename=$(readlink -f {device})",
        *workload,
        *extra,
    ]
    job = json.loads(on("app1", " ".join(command)))["jobs"][0]
    if job["error"]:
        raise CommandFailed(f"fio on {device}: error {job['error']}")
    return float(job["write"]["iops"])


def measure_writes(rounds: int, seconds: int) -> list[dict[str, object]]:
    """Interleave the three kinds; return a row for each workload."""
    topology = read_topology(TOPOLOGY)
    site = topology.site("a")
    reference = f"{topology.iqn_prefix}:{REFERENCE}"
    by_path = f"/dev/disk/by-path/ip-{naming.portal(site)}-iscsi-"
    kinds: dict[str, tuple[str, list[str]]] = {
        "towline": (towline_device(), []),
        "lio": (f"{by_path}{reference}-lun-0", ["--sync=dsync"]),
        "lio unsynced": (f"{by_path}{reference}-lun-0", []),
    }
    found: dict[str, dict[str, list[float]]] = {w: {k: [] for k in kinds} for w in WORKLOADS}
    with reference_lun(site.address, topology.host("app1").initiator, reference):
        on("app1", "udevadm settle")
        for number in range(rounds):
            for workload, options in WORKLOADS.items():
                for kind, (device, extra) in kinds.items():
                    rate = fio(device, options, extra, seconds)
                    found[workload][kind].append(rate)
                print(f"round {number + 1} of {rounds}: {workload}", file=sys.stderr)
    return [_row(workload, samples) for workload, samples in found.items()]


def _row(workload: str, samples: dict[str, list[float]]) -> dict[str, object]:
    medians = {kind: statistics.median(rates) for kind, rates in samples.items()}
    ratio = medians["towline"] / medians["lio"]
    return {
        "what": f"VMs: {workload}",
        "unit": "writes/s",
        "towline": round(medians["towline"], 1),
        "reference": "LIO block backstore, --sync=dsync",
        "reference_value": round(medians["lio"], 1),
        "limit_unsynced": round(medians["lio unsynced"], 1),
        "ratio": round(ratio, 2),
        "bar": BARS[workload],
        "met": ratio >= BARS[workload],
        "samples": samples,
    }


def measure_catch_up(rounds: int) -> dict[str, object]:
    """Stop b, write, read the same range with dd, start b and see how fast it pulls."""
    topology = read_topology(TOPOLOGY)
    lun = naming.peer_journal_path(topology, GROUP, "a")
    volume = towline_device()
    pulls, reads = [], []
    for number in range(rounds):
        on("b", f"systemctl stop replicatord@{GROUP}")
        size = CATCH_UP_BYTES
        on(
            "app1",
            f"fio --name=fill --ioengine=libaio --direct=1 --rw=write --bs=128k --iodepth=8 "
            f"--size=64m --io_size={size} --filename=$(readlink -f {volume})",
        )
        timed = on(
            "b",
            f"dd if={lun} of=/dev/null bs=1M count={size >> 20} skip=1 iflag=direct 2>&1 | tail -1",
        )
        reads.append(_dd_rate(timed))
        on("b", f"systemctl start replicatord@{GROUP}")
        pulls.append(_pull_rate(size))
        print(f"catch-up round {number + 1} of {rounds}", file=sys.stderr)
    pulled, read = statistics.median(pulls), statistics.median(reads)
    return {
        "what": "VMs: pull catch-up",
        "unit": "MB/s",
        "towline": round(pulled / 1e6, 1),
        "reference": "dd iflag=direct bs=1M of the same LUN",
        "reference_value": round(read / 1e6, 1),
        "ratio": round(pulled / read, 2),
        "bar": CATCH_UP_BAR,
        "met": pulled / read >= CATCH_UP_BAR,
        "samples": {"towline": pulls, "dd": reads},
    }


def _dd_rate(line: str) -> float:
    """Bytes per second from dd's last line: ``N bytes (...) copied, S s, R MB/s``."""
    words = line.replace(",", "").split()
    return float(words[0]) / float(words[words.index("copied") + 1])


def _pull_rate(expected_bytes: int) -> float:
    """Wait until b has pulled what was written; bytes per second from its own list of pulls."""
    for _ in range(120):
        history = json.loads(on("b", f"replicatorctl pulls --group {GROUP} --json"))
        big = [pull for pull in history["pulls"] if pull["bytes"] >= 1 << 20]
        if sum(pull["bytes"] for pull in big) >= expected_bytes * 0.9 and len(big) > 2:
            moved = sum(pull["bytes"] for pull in big[1:])
            return float(moved / ((big[-1]["at_ns"] - big[0]["at_ns"]) / 1e9))
    raise CommandFailed("b has not caught up within 120 looks")


def main() -> int:
    """Measure and merge the rows into build/bench.json."""
    parser = argparse.ArgumentParser(prog="bench.vms", description="The bench in the VM lab.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="a fio run, each")
    arguments = parser.parse_args()
    try:
        rows = measure_writes(arguments.rounds, arguments.seconds)
        rows.append(measure_catch_up(min(3, arguments.rounds)))
    except CommandFailed as error:
        print(f"bench: {error}; is the lab up (make lab)?", file=sys.stderr)
        return 1
    merge_into_report(PROJECT / "build" / "bench.json", "vms", rows)
    print_rows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
