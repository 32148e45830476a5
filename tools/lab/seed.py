"""What makes one machine different from another: keys, name, addresses, on a small seed disk.

The image's ``lab-seed`` service copies the seed disk's ``tree`` over the root file system at each
boot. Each lab has its own client key and each machine its own host key, known to the controller
before the first contact, so nothing is ever trusted on first use.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .description import Cable, Lab, Machine
from .places import Places
from .programs import search_path

MANAGEMENT_MAC = "52:54:00:54:00:{number:02x}"
SEED_SIZE = "1M"


def make_key(path: Path, comment: str) -> str:
    """Create an ed25519 key if there is none; return its public half."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
            check=True,
        )
    return path.with_name(path.name + ".pub").read_text().strip()


def write_seed(lab: Lab, machine: Machine, places: Places) -> Path:
    """Write the machine's seed disk; return its path."""
    folder = places.state / machine.name
    tree = folder / "seed" / "tree"
    shutil.rmtree(folder / "seed", ignore_errors=True)
    files = {
        "etc/hostname": machine.name + "\n",
        "etc/hosts": _hosts(lab),
        "root/.ssh/authorized_keys": make_key(places.state / "id_ed25519", "towline lab") + "\n",
        "etc/systemd/network/10-management.network": _management(machine),
        "etc/systemd/network/20-address.netdev": "[NetDev]\nName=site0\nKind=dummy\n",
        "etc/systemd/network/20-address.network": (
            f"[Match]\nName=site0\n\n[Network]\nAddress={machine.address}/32\n"
        ),
    }
    for cable in lab.cables_of(machine.name):
        files |= _link_files(lab, cable, machine)
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tree / "root").chmod(0o700)
    (tree / "root/.ssh").chmod(0o700)
    _copy_host_key(folder / "host_ed25519", tree / "etc/ssh", machine)
    (folder / "seed" / "links").write_text(_link_names(lab, machine))
    disk = folder / "seed.img"
    disk.unlink(missing_ok=True)
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext2", "-d", str(folder / "seed"), str(disk), SEED_SIZE],
        check=True,
        env={"PATH": search_path()},
        capture_output=True,
    )
    return disk


def _copy_host_key(key: Path, folder: Path, machine: Machine) -> None:
    make_key(key, machine.name)
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in ((key, "ssh_host_ed25519_key"), (key.with_suffix(".pub"), None)):
        target = folder / (name or "ssh_host_ed25519_key.pub")
        shutil.copyfile(source, target)
        target.chmod(0o600 if name else 0o644)


def _hosts(lab: Lab) -> str:
    lines = [f"{machine.address} {machine.name}" for machine in lab.machines]
    return "127.0.0.1 localhost\n" + "\n".join(lines) + "\n"


def _management(machine: Machine) -> str:
    """The controller's way in: no gateway, so nothing else can leave or enter by it."""
    mac = MANAGEMENT_MAC.format(number=machine.number)
    return (
        f"[Match]\nMACAddress={mac}\n\n[Network]\nAddress=10.0.2.15/24\n"
        "LinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    )


def _link_files(lab: Lab, cable: Cable, machine: Machine) -> dict[str, str]:
    """One interface a cable, with a host route to the machine at its other end and nothing more.

    The machine's own address sits on a dummy interface. No machine forwards and none has a default
    route, so when a cable is cut there is no other way round.
    """
    peer = lab.machine(cable.other_end(machine.name))
    mac = cable.mac(machine.name)
    name = f"to-{peer.name}"
    return {
        f"etc/systemd/network/30-{name}.network": (
            f"[Match]\nMACAddress={mac}\n\n"
            "[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
            "ConfigureWithoutCarrier=yes\nIgnoreCarrierLoss=yes\n\n"
            f"[Route]\nDestination={peer.address}/32\nScope=link\n"
            f"PreferredSource={machine.address}\n"
        ),
    }


def _link_names(lab: Lab, machine: Machine) -> str:
    """One line a link, MAC address and interface name, which ``lab-seed`` gives it."""
    return "".join(
        f"{cable.mac(machine.name)} to-{cable.other_end(machine.name)}\n"
        for cable in lab.cables_of(machine.name)
    )
