"""Clients that we did not write: fio, nbdcopy, qemu-img, mke2fs, e2fsck, as the demo calls them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from replicator.errors import MissingPackage, TowlineError

PACKAGES = {
    "fio": "fio",
    "nbdcopy": "libnbd-bin",
    "qemu-img": "qemu-utils",
    "mke2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
}
CLIENT_SECONDS = 120.0


class ClientFailed(TowlineError):
    """A client of the demo ended with an error."""


def require_programs() -> None:
    """Raise MissingPackage, naming the one command that installs what is missing."""
    packages = sorted({p for program, p in PACKAGES.items() if shutil.which(program) is None})
    if packages:
        raise MissingPackage(
            f"programs of these packages are missing: {' '.join(packages)}; as root: "
            f"apt-get install --yes --no-install-recommends {' '.join(packages)}"
        )


def run(command: Sequence[str | Path], folder: Path | None = None) -> str:
    """Run a program to its end and return its output; ClientFailed if it fails."""
    words = [str(word) for word in command]
    try:
        finished = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, timeout=CLIENT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ClientFailed(f"{words[0]}: no end after {CLIENT_SECONDS:g} s") from error
    if finished.returncode:
        lines = (finished.stderr or finished.stdout).strip().splitlines()
        said = lines[-1] if lines else "no output"
        raise ClientFailed(f"{words[0]}: exit code {finished.returncode}: {said}")
    return finished.stdout


def make_image(tree: Path, image: Path, size_bytes: int) -> None:
    """Make an ext4 image that holds ``tree``."""
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(size_bytes)
    run(["mke2fs", "-q", "-t", "ext4", "-L", "towline", "-d", tree, image])


def check_image(image: Path) -> str:
    """Run e2fsck without changing anything; return its summary line, ClientFailed if not clean."""
    return run(["e2fsck", "-fn", image]).strip().splitlines()[-1].removeprefix(f"{image}: ")


@dataclass(frozen=True, slots=True)
class FioJob:
    """Random writes with a checksum and their address in each block, to be verified later.

    The same job, run again to verify, draws the same offsets and sizes from its seed. ``folder``
    is where fio keeps its record of what was completed.
    """

    folder: Path
    seed: int
    size_bytes: int
    rate_bytes: int

    def _words(self, target: Sequence[str]) -> list[str]:
        return [
            "fio",
            "--name=db",
            *target,
            "--rw=randwrite",
            "--bsrange=4k-64k",
            f"--size={self.size_bytes}",
            f"--randseed={self.seed}",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--output-format=json",
            "--output=fio.json",
        ]

    def write_until_killed(self, uri: str, pid: int, seconds: float) -> int:
        """Write; after ``seconds`` fio itself kills ``pid`` with -9 and records what it saw
        completed. Returns how many writes that were.

        fio's exit code tells nothing here, because it lost its server.
        """
        words = [
            *self._words(["--ioengine=nbd", f"--uri={uri}"]),
            "--iodepth=16",
            "--verify_state_save=1",
            "--do_verify=0",
            f"--rate={self.rate_bytes}",
            f"--trigger-timeout={seconds:g}s",
            f"--trigger=kill -9 {pid}",
        ]
        subprocess.run(words, cwd=self.folder, capture_output=True, timeout=CLIENT_SECONDS)
        return self._count("write")

    def write_all(self, uri: str) -> int:
        """Write to the end; return how many writes were completed."""
        words = self._words(["--ioengine=nbd", f"--uri={uri}"])
        options = [
            "--iodepth=16",
            "--verify_state_save=1",
            "--do_verify=0",
            f"--rate={self.rate_bytes}",
        ]
        run([*words, *options], self.folder)
        return self._count("write")

    def verify(self, uri: str) -> int:
        """Read and check exactly what was completed; return how many blocks; ClientFailed."""
        return self._verify(["--ioengine=nbd", f"--uri={uri}"])

    def verify_file(self, path: Path) -> int:
        """Check the same on a site's own file."""
        return self._verify(["--ioengine=libaio", f"--filename={path}"])

    def _verify(self, target: Sequence[str]) -> int:
        # Saving is fio's default, and would replace the record by that of the reads. With more
        # than one read in flight fio also checks a few writes that it had not seen completed.
        options = ["--verify_only=1", "--verify_state_load=1", "--verify_state_save=0"]
        options.append("--iodepth=1")
        run([*self._words(target), *options], self.folder)
        return self._count("read")

    def _count(self, direction: str) -> int:
        text = (self.folder / "fio.json").read_text()
        job = json.loads(text[text.index("{") :])["jobs"][0]
        return int(job[direction]["total_ios"])
