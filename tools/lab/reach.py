"""How the controller reaches the machines: ssh configuration, known hosts, waiting for sshd."""

from __future__ import annotations

import socket
import subprocess
import time

from .description import Lab, Machine
from .errors import LabError
from .places import Places
from .seed import make_key

BANNER_SECONDS = 5.0
POLL_SECONDS = 1.0


def write_ssh_files(lab: Lab, places: Places) -> bool:
    """Write ssh_config and known_hosts; return whether they changed."""
    make_key(places.state / "id_ed25519", "towline lab")
    known, blocks = [], []
    for machine in lab.machines:
        public = make_key(places.state / machine.name / "host_ed25519", machine.name)
        known.append(f"[127.0.0.1]:{machine.ssh_port} {' '.join(public.split()[:2])}")
        blocks.append(
            f"Host {machine.name}\n  HostName 127.0.0.1\n  Port {machine.ssh_port}\n  User root\n"
        )
    common = (
        f"Host *\n  IdentityFile {places.state / 'id_ed25519'}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {places.state / 'known_hosts'}\n  StrictHostKeyChecking yes\n"
        "  GlobalKnownHostsFile /dev/null\n  ServerAliveInterval 15\n  ServerAliveCountMax 8\n"
        "  LogLevel ERROR\n"
    )
    changed = False
    for path, text in (
        (places.state / "known_hosts", "\n".join(known) + "\n"),
        (places.ssh_config, "\n".join([*blocks, common])),
    ):
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            changed = True
    return changed


def wait_for_ssh(places: Places, machine: Machine, limit_seconds: float) -> float:
    """Wait until the machine's sshd greets and a login works; return the seconds it took."""
    begin = time.monotonic()
    while True:
        if _greets(machine) and _logs_in(places, machine):
            return time.monotonic() - begin
        if time.monotonic() - begin > limit_seconds:
            raise LabError(
                f"{machine.name} does not answer ssh after {limit_seconds:.0f} s",
                f"see {places.state / machine.name / 'console.log'}",
            )
        time.sleep(POLL_SECONDS)


def _greets(machine: Machine) -> bool:
    """User-mode networking accepts before the guest does, so only a banner counts."""
    try:
        address = ("127.0.0.1", machine.ssh_port)
        with socket.create_connection(address, timeout=BANNER_SECONDS) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _logs_in(places: Places, machine: Machine) -> bool:
    command = ["ssh", "-F", str(places.ssh_config), "-o", "ConnectTimeout=30", machine.name, "true"]
    return subprocess.run(command, capture_output=True).returncode == 0
