"""Which programs the lab runs on this machine, and the Debian packages that bring them."""

from __future__ import annotations

import os
import shutil
import subprocess

from .errors import LabError

PACKAGE_OF_PROGRAM = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "tar": "tar",
}
SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")


def search_path() -> str:
    """Return PATH with the folders that a plain user's PATH lacks on Debian."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS])


def missing_packages(programs: dict[str, str] | None = None) -> list[str]:
    """Name the packages of the programs that are not here."""
    wanted = dict(programs or PACKAGE_OF_PROGRAM)
    if os.getuid() != 0:
        wanted["fakeroot"] = "fakeroot"
        wanted["newuidmap"] = "uidmap"
    path = search_path()
    return sorted(
        {package for name, package in wanted.items() if not shutil.which(name, path=path)}
    )


def require_programs() -> None:
    """Install what is missing when root; otherwise name the one command that does."""
    missing = missing_packages()
    if not missing:
        return
    command = "apt-get install -y --no-install-recommends " + " ".join(missing)
    if os.getuid() != 0:
        raise LabError(f"missing packages: {' '.join(missing)}", f"run: sudo {command}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    outcome = subprocess.run(command.split(), env=environment, capture_output=True, text=True)
    if outcome.returncode != 0:
        reason = (outcome.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LabError(f"could not install {' '.join(missing)}: {reason}", f"run: {command}")
