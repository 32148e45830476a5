"""Collect what a failed test left in the lab: logs, journals' headers, states, serial consoles.

One folder a failure, beside the lab's state so that it outlives ``make lab-down``:
``build/lab-evidence/TIME/MACHINE/...``. Works on a lab that is half up; never raises.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from . import description, power
from .places import Places

LIMIT_SECONDS = 60
LOG_LINES = 2000

COMMANDS = {
    "journalctl.txt": f"journalctl --no-pager -o short-precise -n {LOG_LINES}",
    "units.txt": "systemctl --no-pager --full status 'replicatord@*' 'towline-*' iscsid",
    "dmesg.txt": "dmesg",
    "sessions.txt": "iscsiadm -m session -P 1",
    "block.txt": "lsblk -o NAME,TYPE,SIZE,RO,MOUNTPOINTS; dmsetup table; ls -l /dev/disk/by-path",
    "links.txt": "ip -br address; ip route; ss -tn",
    "pressure.txt": "uptime; free -m; ps aux --sort -rss | head -20",
}
SITE_COMMANDS = {
    "status.json": "replicatorctl status --json",
    "check.txt": "replicatorctl check",
    "pulls.json": "replicatorctl pulls --json",
    "journal.json": "replicatorctl journal info --json",
    "journal-check.txt": "replicatorctl journal check",
    "target-plan.json": "replicatorctl target plan --json",
}


def collect(project: Path, reason: str) -> Path:
    """Write everything into one new folder and return it; what cannot be had is said there."""
    places = Places(project)
    lab = description.load(project)
    folder = new_folder(places)
    (folder / "reason.txt").write_text(reason + "\n")
    for machine in lab.machines:
        place = folder / machine.name
        place.mkdir()
        console = places.state / machine.name / "console.log"
        if console.exists():
            shutil.copyfile(console, place / "console.log")
        if power.running_pid(places, machine.name) is None:
            (place / "not-running").touch()
            continue
        commands = COMMANDS | (SITE_COMMANDS if machine.disks else {})
        for name, command in commands.items():
            (place / name).write_text(_ask(places, machine.name, command))
    return folder


def new_folder(places: Places) -> Path:
    """Make the folder of this moment; two in one second get different names."""
    base = places.state.with_name(places.state.name + "-evidence")
    stem = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(1000):
        folder = base / (f"{stem}-{number}" if number else stem)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{base}/{stem} and 999 more are there")


def _ask(places: Places, machine: str, command: str) -> str:
    words = ["ssh", "-F", str(places.ssh_config), "-o", "ConnectTimeout=20", machine]
    bounded = f"timeout {LIMIT_SECONDS} sh -c '{command.replace(chr(39), chr(34))}'"
    try:
        outcome = subprocess.run(
            [*words, bounded], capture_output=True, text=True, timeout=LIMIT_SECONDS + 30
        )
    except subprocess.TimeoutExpired:
        return f"$ {command}\nno answer in {LIMIT_SECONDS + 30} s\n"
    if outcome.returncode == 0:
        return outcome.stdout
    return f"{outcome.stdout}{outcome.stderr}$ {command}\nended with {outcome.returncode}\n"


def main() -> int:
    """``python3 -m tools.lab.evidence --reason TEXT``: collect now and print the folder."""
    parser = argparse.ArgumentParser(prog="evidence", description=__doc__)
    parser.add_argument("--reason", default="asked for")
    options = parser.parse_args()
    print(collect(Path(__file__).resolve().parents[2], options.reason))
    return 0


if __name__ == "__main__":
    sys.exit(main())
