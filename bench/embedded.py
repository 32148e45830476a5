"""Embedded bench: our NBD front end against qemu-nbd and plain writes on the same file system.

Rounds are interleaved and medians quoted, because two equal runs of a few seconds differ by a
factor of two on a busy machine. Beside the rates stands the CPU time of the server for each write,
which does not depend on what else the disk has to do.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from replicator.clock import SystemClock
from replicator.codec import naming
from replicator.daemon.control import ask
from replicator.embedded.daemon import EmbeddedSite
from replicator.embedded.lab import GROUP, EmbeddedLab, LabPlan
from replicator.errors import MissingPackage
from replicator.group.devices import open_site
from replicator.journal.recovery import recover
from replicator.movers.restore import Restore
from replicator.seams.boot import boot_id
from replicator.seams.filedevice import preallocate
from replicator.seams.nodefiles import read_topology
from replicator.status import PullHistory

SIZE = 512 << 20
SECONDS = 2
WORKLOADS = {
    "4k random x32": ("randwrite", "4k", 32),
    "4k random x1": ("randwrite", "4k", 1),
    "128k sequential x8": ("write", "128k", 8),
}
BARS = {
    "4k random x32": 0.9,
    "4k random x1": 0.6,
    "128k sequential x8": 0.85,
}
CATCH_UP_BAR = 0.8
MEMORY_BAR = 150 << 20
TICK_MICROSECONDS = 1e6 / os.sysconf("SC_CLK_TCK")

Sample = dict[str, float]


def cpu_ticks(pid: int) -> int:
    """Return user and system time of a process, in clock ticks (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


class NbdServerUnderTest:
    """A server that fio writes to: its URI and its process."""

    def __init__(self, uri: str, pid: int, folder: Path) -> None:
        self._uri = uri
        self._pid = pid
        self._output = folder / "fio.json"

    def measure(self, workload: str) -> Sample:
        """Run one workload for a few seconds."""
        pattern, block, depth = WORKLOADS[workload]
        before = cpu_ticks(self._pid)
        subprocess.run(
            [
                "fio",
                "--name=bench",
                "--ioengine=nbd",
                f"--uri={self._uri}",
                f"--rw={pattern}",
                f"--bs={block}",
                f"--iodepth={depth}",
                f"--size={SIZE}",
                f"--runtime={SECONDS}",
                "--time_based",
                "--output-format=json",
                f"--output={self._output}",
            ],
            check=True,
            capture_output=True,
        )
        used = cpu_ticks(self._pid) - before
        text = self._output.read_text()
        write = json.loads(text[text.index("{") :])["jobs"][0]["write"]
        return {
            "iops": write["iops"],
            "bytes_per_second": write["bw_bytes"],
            "server_cpu_us_per_write": used * TICK_MICROSECONDS / max(1, write["total_ios"]),
        }


class PlainWrites:
    """A loop of O_DIRECT|O_DSYNC writes by one thread: what durable writes cost here."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_DIRECT | os.O_DSYNC)

    def measure(self, workload: str) -> Sample:
        """Write for a few seconds; one write at a time whatever the workload's depth."""
        pattern, block, _ = WORKLOADS[workload]
        length = int(block.removesuffix("k")) << 10
        buffer = memoryview(mmap.mmap(-1, length))
        generator = random.Random(1)
        count = at = 0
        started = time.monotonic()
        while time.monotonic() < started + SECONDS:
            at = generator.randrange(SIZE // length) if pattern == "randwrite" else at + 1
            os.pwrite(self._file, buffer, at * length % SIZE)
            count += 1
        seconds = time.monotonic() - started
        return {"iops": count / seconds, "bytes_per_second": count * length / seconds}


class Qemu:
    """A qemu-nbd on a preallocated raw file."""

    def __init__(self, folder: Path, cache: str) -> None:
        self.image = folder / f"qemu-{cache}.img"
        preallocate(self.image, SIZE, written=True)
        socket = folder / f"qemu-{cache}.nbd"
        aio = "--aio=native"
        command = ["qemu-nbd", "-t", "-f", "raw", f"--cache={cache}", aio, "-e", "4", "-x", "db"]
        self.process = subprocess.Popen([*command, "-k", str(socket), str(self.image)])
        deadline = time.monotonic() + 10
        while not socket.exists():
            assert time.monotonic() < deadline and self.process.poll() is None, "qemu-nbd failed"
            time.sleep(0.01)
        self.uri = f"nbd+unix:///db?socket={socket}"


def measure_writes(folder: Path, rounds: int, console: Console) -> dict[str, object]:
    """Measure every server with every workload; return medians, ratios and memory."""
    plan = LabPlan(volumes={"db": f"{SIZE >> 20}MiB"}, journal="1GiB", sites=("a",))
    lab = EmbeddedLab(folder / "lab", plan)
    lab.make()
    qemus = {cache: Qemu(folder, cache) for cache in ("none", "directsync")}
    plain = folder / "plain.img"
    preallocate(plain, SIZE, written=True)
    samples: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    memory = 0
    try:
        lab.start()
        primary = lab.primary
        servers: dict[str, NbdServerUnderTest | PlainWrites] = {
            "towline": NbdServerUnderTest(primary.nbd_uri("db"), primary.pid, folder)
        }
        for cache, qemu in qemus.items():
            servers[f"qemu-nbd {cache}"] = NbdServerUnderTest(qemu.uri, qemu.process.pid, folder)
        servers["plain O_DIRECT|O_DSYNC"] = PlainWrites(plain)
        for number in range(rounds):
            console.print(f"round {number + 1} of {rounds}")
            for workload in WORKLOADS:
                for name, server in servers.items():
                    samples[workload][name].append(server.measure(workload))
                    memory = max(memory, primary.memory())
    finally:
        lab.kill_all()
        for qemu in qemus.values():
            qemu.process.kill()
            qemu.process.wait()
    return {"workloads": _medians(samples), "rss_anon_bytes_max": memory}


def _medians(samples: dict[str, dict[str, list[Sample]]]) -> dict[str, object]:
    workloads: dict[str, object] = {}
    for workload, by_server in samples.items():
        medians = {
            name: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
            for name, rounds in by_server.items()
        }
        spreads = {
            name: _spread([each["iops"] for each in rounds]) for name, rounds in by_server.items()
        }
        ratios = [
            ours["iops"] / theirs["iops"]
            for ours, theirs in zip(by_server["towline"], by_server["qemu-nbd none"], strict=True)
        ]
        ratio = medians["towline"]["iops"] / medians["qemu-nbd none"]["iops"]
        workloads[workload] = {
            "medians": medians,
            "spreads": spreads,
            "ratio_spread": _spread(ratios),
            "rounds": {name: [round(s["iops"]) for s in r] for name, r in by_server.items()},
            "ratio_of_medians": round(ratio, 3),
            "median_of_ratios": round(statistics.median(ratios), 3),
            "bar": BARS[workload],
            "met": ratio >= BARS[workload],
        }
    return workloads


def _spread(values: list[float]) -> list[float]:
    """Return the smallest and the largest of some rounds."""
    return [round(min(values), 3), round(max(values), 3)]


def measure_catch_up(folder: Path, rounds: int, console: Console) -> dict[str, object]:
    """Let b pull and restore what a has written without it, from a journal whose owner is dead."""
    plan = LabPlan(
        volumes={"db": f"{SIZE >> 20}MiB"},
        journal="1GiB",
        interval={"fixed": "10ms"},
        sites=("a", "b"),
    )
    lab = EmbeddedLab(folder / "lab", plan)
    lab.make()
    rates: dict[str, list[float]] = defaultdict(list)
    try:
        lab.primary.start()
        _write_everything(lab.primary.nbd_uri("db"))
        lab.primary.stop()
        for number in range(rounds):
            console.print(f"catch-up {number + 1} of {rounds}")
            rates["dd O_DIRECT"].append(_dd(lab.primary.journal_path))
            if number:
                lab.remake_journal("b")
            pulled, restored = _catch_up(lab, lab.sites["b"])
            rates["pull"].append(pulled)
            if restored is not None:
                rates["restore"].append(restored)
    finally:
        lab.kill_all()
    medians = {name: statistics.median(each) for name, each in rates.items()}
    ratios = [pull / dd for pull, dd in zip(rates["pull"], rates["dd O_DIRECT"], strict=True)]
    ratio = medians["pull"] / medians["dd O_DIRECT"]
    return {
        "bytes_per_second": medians,
        "rounds": {name: [round(rate) for rate in each] for name, each in rates.items()},
        "pull_over_dd": round(ratio, 3),
        "ratio_spread": _spread(ratios),
        "bar": CATCH_UP_BAR,
        "met": ratio >= CATCH_UP_BAR,
    }


def _write_everything(uri: str) -> None:
    subprocess.run(
        [
            "fio",
            "--name=fill",
            "--ioengine=nbd",
            f"--uri={uri}",
            "--rw=write",
            "--bs=128k",
            "--iodepth=8",
            f"--size={SIZE}",
            "--refill_buffers",
            "--output=/dev/null",
        ],
        check=True,
        capture_output=True,
    )


def _dd(path: Path) -> float:
    started = time.monotonic()
    command = ["dd", f"if={path}", "of=/dev/null", "bs=1M", "iflag=direct", f"count={SIZE >> 20}"]
    subprocess.run(command, check=True, capture_output=True)
    return SIZE / (time.monotonic() - started)


def _catch_up(lab: EmbeddedLab, site: EmbeddedSite) -> tuple[float, float | None]:
    """Return bytes/s of the pull, and of the restore of what the kill left unrestored."""
    site.start()
    path = naming.control_socket_path(read_topology(lab.topology_path).site("b"), GROUP)
    goal = SIZE
    while True:
        pulls = ask(path, "pulls", kind=PullHistory).pulls
        if sum(pull.bytes for pull in pulls) >= goal:
            break
        time.sleep(0.02)
    site.kill()
    moving = [pull for pull in pulls if pull.bytes]
    seconds = (moving[-1].at_ns - moving[0].at_ns) / 1e9
    rate = sum(pull.bytes for pull in moving[1:]) / seconds
    return rate, _restore_rate(lab)


def _restore_rate(lab: EmbeddedLab) -> float | None:
    topology = read_topology(lab.topology_path)
    devices = open_site(topology, GROUP, "b", boot_id())
    try:
        recover(devices.journal)
        restore = Restore(devices.journal, devices.volumes)
        start = restore.applied.position
        clock = SystemClock()
        began = clock.monotonic()
        while restore.step(clock.monotonic()):
            pass
        moved = restore.applied.position - start
        return moved / (clock.monotonic() - began) if moved > 8 << 20 else None
    finally:
        devices.close()


def print_table(result: dict[str, object], console: Console) -> None:
    """Print medians, ratios and bars."""
    table = Table(
        title="embedded: medians and (least-most); us: server's CPU for each write; "
        "ratio: to qemu-nbd none"
    )
    for heading in ("workload", "server", "writes/s", "", "MiB/s", "us", "ratio", "bar"):
        table.add_column(heading, no_wrap=True)
    workloads = result["workloads"]
    assert isinstance(workloads, dict)
    for workload, entry in workloads.items():
        base = entry["medians"]["qemu-nbd none"]["iops"]
        for name, median in entry["medians"].items():
            bar = ""
            if name == "towline":
                bar = f"{entry['bar']} {'met' if entry['met'] else 'MISSED'}"
            cpu = median.get("server_cpu_us_per_write")
            table.add_row(
                workload,
                name,
                f"{median['iops']:,.0f}",
                "({:,.0f}-{:,.0f})".format(*entry["spreads"][name]),
                f"{median['bytes_per_second'] / (1 << 20):,.0f}",
                f"{cpu:.0f}" if cpu is not None else "",
                f"{median['iops'] / base:.2f}",
                bar,
            )
    console.print(table)
    catch_up = result["catch_up"]
    assert isinstance(catch_up, dict)
    rates = {name: rate / (1 << 20) for name, rate in catch_up["bytes_per_second"].items()}
    least, most = catch_up["ratio_spread"]
    console.print(
        "catch-up, MiB/s: "
        + "   ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
        + f"   pull/dd {catch_up['pull_over_dd']:.2f} ({least:.2f}-{most:.2f}), "
        + f"bar {CATCH_UP_BAR} {'met' if catch_up['met'] else 'MISSED'}"
    )
    memory = result["rss_anon_bytes_max"]
    assert isinstance(memory, int)
    console.print(f"RssAnon of replicatord, largest: {memory >> 20} MiB (bar {MEMORY_BAR >> 20})")
    console.print(f"load average before and after: {result['load_average']}")


def main() -> int:
    """Run the embedded bench and put its result under ``embedded`` in the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--report", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    missing = [each for each in ("fio", "qemu-nbd", "dd") if shutil.which(each) is None]
    if missing:
        print(f"bench: missing {', '.join(missing)}: run tools/packages.sh", file=sys.stderr)
        return MissingPackage.exit_code
    console = Console(highlight=False, width=120)
    folder = arguments.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    before = os.getloadavg()[0]
    result = measure_writes(folder, arguments.rounds, console)
    shutil.rmtree(folder / "lab")
    result["catch_up"] = measure_catch_up(folder, arguments.rounds, console)
    result["load_average"] = [round(before, 1), round(os.getloadavg()[0], 1)]
    shutil.rmtree(folder)
    report = json.loads(arguments.report.read_text()) if arguments.report.exists() else {}
    report["embedded"] = result
    arguments.report.write_text(json.dumps(report, indent=2) + "\n")
    print_table(result, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
