"""Build the lab's one disk image, or take it from the cache.

A cached image is a folder named by the digest of its recipe and holds ``root.img`` (ext4, sparse),
``vmlinuz``, ``initrd.img`` and ``kernel.txt`` (the kernel's package version). The folder appears
by one rename, so a build that was interrupted leaves nothing that could be taken for an image.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import recipe
from .errors import LabError
from .places import GIBIBYTE, require_space
from .programs import require_programs, search_path

BUILD_SPACE_BYTES = 4 * GIBIBYTE
# Debian fixed a heap overflow in LIO's login path in this version.
OLDEST_KERNEL = (6, 1, 176)


@dataclass(frozen=True)
class Image:
    """A finished image: the disk, what boots it, and the version of its kernel."""

    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "root.img"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.img"

    @property
    def kernel_version(self) -> str:
        return (self.folder / "kernel.txt").read_text().strip()


def cached(cache: Path) -> Image | None:
    """Return the image of the present recipe, if it was built before."""
    folder = cache / "image" / recipe.digest()
    return Image(folder) if folder.is_dir() else None


def build(cache: Path) -> Image:
    """Build the image of the present recipe (about two minutes and 300 MB of packages)."""
    require_programs()
    shelf = cache / "image"
    shelf.mkdir(parents=True, exist_ok=True)
    require_space(shelf, BUILD_SPACE_BYTES, "building the image")
    workshop = Path(tempfile.mkdtemp(prefix="building-", dir=shelf))
    workshop.chmod(0o755)
    try:
        _debootstrap(workshop)
        _make_disk(workshop)
        _check_kernel(Image(workshop))
        finished = shelf / recipe.digest()
        workshop.rename(finished)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return Image(finished)


def _debootstrap(workshop: Path) -> None:
    sources = recipe.archive_lines()
    command = [
        "mmdebstrap",
        "--variant=minbase",
        "--include=" + ",".join(recipe.packages()),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.EXCLUDED),
        "--dpkgopt=force-confold",
        '--aptopt=APT::Install-Recommends "false"',
        *recipe.apt_options(),
        f"--essential-hook={recipe.INPUTS}/prepare.sh",
        f"--customize-hook={recipe.INPUTS}/finish.sh",
        "--customize-hook=copy-out /boot .",
        recipe.SUITE,
        str(workshop / "root.tar"),
        *(["-"] if sources else []),
    ]
    _run(command, workshop, stdin="\n".join(sources))


def _make_disk(workshop: Path) -> None:
    """Unpack the tar file and make an ext4 image of it, with the owners that the tar file names."""
    steps = (
        "mkdir root && tar -x --numeric-owner -p -f root.tar -C root && "
        "mke2fs -q -t ext4 -L root -E lazy_itable_init=1,lazy_journal_init=1 "
        f"-O ^metadata_csum -d root root.img {recipe.IMAGE_SIZE} && rm -r root root.tar"
    )
    shell = ["sh", "-c", steps]
    _run(shell if os.getuid() == 0 else ["fakeroot", *shell], workshop)
    boot = workshop / "boot"
    (kernel,) = boot.glob("vmlinuz-*")
    (initrd,) = boot.glob("initrd.img-*")
    kernel.rename(workshop / "vmlinuz")
    initrd.rename(workshop / "initrd.img")
    shutil.rmtree(boot)


def _check_kernel(image: Image) -> None:
    """Read the kernel's version out of the image's package list, and refuse an old one."""
    status = subprocess.run(
        ["debugfs", "-R", "cat /var/lib/dpkg/status", str(image.disk)],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": search_path()},
    ).stdout
    version = next(
        (
            line.removeprefix("Version: ")
            for paragraph in status.split("\n\n")
            if paragraph.startswith("Package: linux-image-amd64\n")
            for line in paragraph.splitlines()
            if line.startswith("Version: ")
        ),
        "",
    )
    numbers = tuple(int(part) for part in version.split("-")[0].split(".") if part.isdigit())
    if numbers < OLDEST_KERNEL:
        oldest = ".".join(map(str, OLDEST_KERNEL))
        raise LabError(
            f"the archive offers kernel {version or 'unknown'}, {oldest} or later is needed",
            "add the security archive to this machine's apt sources",
        )
    (image.folder / "kernel.txt").write_text(version + "\n")


def _run(command: list[str], folder: Path, stdin: str = "") -> None:
    environment = os.environ | {"PATH": search_path(), "LC_ALL": "C.UTF-8"}
    outcome = subprocess.run(
        command, cwd=folder, input=stdin, capture_output=True, text=True, env=environment
    )
    if outcome.returncode != 0:
        log = folder.parent / "build.log"
        log.write_text(outcome.stdout + outcome.stderr)
        complaints = [line for line in outcome.stderr.splitlines() if line.startswith("E:")]
        reason = (complaints or outcome.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LabError(f"{command[0]} failed: {reason}", f"see {log}")
