"""Start and stop machines: overlay, disks, seed, QEMU; and only processes that are ours."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from . import qemu
from .description import Lab, Machine
from .errors import LabError
from .image import Image
from .places import GIBIBYTE, Places, require_space
from .programs import search_path
from .seed import write_seed

MACHINE_SPACE_BYTES = 2 * GIBIBYTE
STOP_SECONDS = 10.0
POLL_SECONDS = 0.1


def running_pid(places: Places, name: str) -> int | None:
    """Return the pid of the machine's QEMU, or None; a reused pid is not taken for it."""
    pid_file = qemu.pid_file(places, name)
    try:
        pid = int(pid_file.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if str(pid_file).encode() in arguments else None


def start(lab: Lab, machine: Machine, image: Image, places: Places) -> bool:
    """Start a machine that does not run; return whether it had to be started."""
    if running_pid(places, machine.name) is not None:
        return False
    folder = places.state / machine.name
    folder.mkdir(parents=True, exist_ok=True)
    _make_disks(machine, folder, image)
    write_seed(lab, machine, places)
    _require_free_port(machine)
    for cable in lab.cables_of(machine.name):
        qemu.cable_socket(places, cable, machine.name).unlink(missing_ok=True)
    outcome = subprocess.run(
        qemu.command(lab, machine, image, places),
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": search_path()},
    )
    if outcome.returncode != 0:
        reason = (outcome.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LabError(f"machine {machine.name} does not start: {reason}")
    return True


def _make_disks(machine: Machine, folder: Path, image: Image) -> None:
    root = folder / "root.qcow2"
    if not root.exists():
        require_space(folder, MACHINE_SPACE_BYTES, f"machine {machine.name}")
        backing = ["-b", str(image.disk), "-F", "raw"]
        command = ["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(root)]
        subprocess.run(command, check=True, capture_output=True)
        (folder / "image").write_text(str(image.folder))
    for disk in machine.disks:
        path = folder / f"{disk.name}.raw"
        if not path.exists():
            with path.open("wb") as file:
                file.truncate(disk.size_bytes)


def _require_free_port(machine: Machine) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", machine.ssh_port))
        except OSError as error:
            raise LabError(
                f"port {machine.ssh_port} for ssh to {machine.name} is in use",
                "stop what uses it, or choose another range with TOWLINE_LAB_PORT=23000",
            ) from error


def stop(places: Places, name: str) -> bool:
    """End the machine's QEMU as if its power failed; return whether one ran."""
    pid = running_pid(places, name)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while not _has_ended(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline += STOP_SECONDS
        time.sleep(POLL_SECONDS)
    return True


def _has_ended(pid: int) -> bool:
    """Whether nothing of a process is left: its memory goes first, its sockets and ports last."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in ("Z", "X")


def remove(lab: Lab, places: Places) -> bool:
    """Stop every machine and delete the lab's state and sockets; return whether there was any."""
    present = places.state.exists() or places.sockets.exists()
    for machine in lab.machines:
        stop(places, machine.name)
    shutil.rmtree(places.state, ignore_errors=True)
    shutil.rmtree(places.sockets, ignore_errors=True)
    return present
