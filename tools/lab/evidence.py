"""Collect what a failed test left in the lab: logs, journals' headers, states, serial consoles.

One folder a failure, beside the lab's state so that it outlives ``make lab-down``:
``build/lab-evidence/TIME/MACHINE/...``. One login a machine, because a login is dear under
emulation. Works on a lab that is half up: what cannot be had is said in its file.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from . import description, power
from .places import Places

COMMAND_SECONDS = 20
MACHINE_SECONDS = 120
LOG_LINES = 500
BOUNDARY = "----- towline evidence: "

COMMANDS = {
    "journalctl.txt": f"journalctl --no-pager -o short-precise -n {LOG_LINES}",
    "units.txt": "systemctl --no-pager --full status 'replicatord@*' 'towline-*' iscsid",
    "dmesg.txt": "dmesg",
    "sessions.txt": "iscsiadm -m session -P 1",
    "block.txt": "lsblk -o NAME,TYPE,SIZE,RO,MOUNTPOINTS; dmsetup table; ls -l /dev/disk/by-path",
    "links.txt": "ip -br address; ip route; uptime; free -m",
}
SITE_COMMANDS = {
    "status.json": "replicatorctl status --json",
    "journal.json": "replicatorctl journal info --json",
    "target-plan.json": "replicatorctl target plan --json",
}


def collect(project: Path, reason: str) -> Path:
    """Write everything into one new folder and return it."""
    places = Places(project)
    lab = description.load(project)
    folder = new_folder(places)
    (folder / "reason.txt").write_text(reason + "\n")
    with ThreadPoolExecutor(len(lab.machines)) as pool:
        list(pool.map(lambda machine: _save(places, machine, folder), lab.machines))
    return folder


def _save(places: Places, machine: description.Machine, folder: Path) -> None:
    place = folder / machine.name
    place.mkdir()
    console = places.state / machine.name / "console.log"
    if console.exists():
        shutil.copyfile(console, place / "console.log")
    if power.running_pid(places, machine.name) is None:
        (place / "not-running").touch()
        return
    commands = COMMANDS | (SITE_COMMANDS if machine.disks else {})
    for name, text in split(_ask(places, machine.name, commands)).items():
        (place / name).write_text(text)


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


def script(commands: dict[str, str]) -> str:
    """Return a shell script that runs every command, each after a line with its file's name."""
    return "\n".join(
        f"echo {shlex.quote(BOUNDARY + name)}\n"
        f"timeout {COMMAND_SECONDS} sh -c {shlex.quote(command)} 2>&1 || echo ended with $?"
        for name, command in commands.items()
    )


def split(output: str) -> dict[str, str]:
    """Return file names to texts; what came before the first name is ``ssh.txt``."""
    first, *rest = ("\n" + output).split("\n" + BOUNDARY)
    files = {"ssh.txt": first.strip() + "\n"} if first.strip() else {}
    for piece in rest:
        name, _, text = piece.partition("\n")
        files[name] = text + "\n"
    return files


def _ask(places: Places, machine: str, commands: dict[str, str]) -> str:
    words = ["ssh", "-F", str(places.ssh_config), "-o", "ConnectTimeout=20", machine, "sh -s"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as ssh:
        try:
            output, _ = ssh.communicate(script(commands).encode(), timeout=MACHINE_SECONDS)
        except subprocess.TimeoutExpired:
            ssh.kill()
            output, _ = ssh.communicate()
            output += f"\nno end after {MACHINE_SECONDS} s\n".encode()
    return output.decode(errors="replace")


def main() -> int:
    """``python3 -m tools.lab.evidence --reason TEXT``: collect now and print the folder."""
    parser = argparse.ArgumentParser(prog="evidence", description=__doc__)
    parser.add_argument("--reason", default="asked for")
    options = parser.parse_args()
    print(collect(Path(__file__).resolve().parents[2], options.reason))
    return 0


if __name__ == "__main__":
    sys.exit(main())
