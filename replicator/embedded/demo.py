"""``make demo``: a workload of real clients, the primary killed under it, three equal sites.

Two volumes of one group are written at the same time: ``files`` gets an ext4 image made from real
files (qemu-img), ``db`` gets random writes with checksums (fio). The primary's replicatord is
killed with -9 in the middle, again and again; what each client had been answered is checked
against the restarted primary, and in the end against every site's volumes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.table import Table

from replicator.embedded.clients import (
    ClientFailed,
    FioJob,
    check_image,
    make_image,
    require_programs,
    run,
)
from replicator.embedded.lab import NEAR_SITES, EmbeddedLab, LabPlan, file_digest
from replicator.embedded.screen import Screen
from replicator.errors import TowlineError
from replicator.status import PositionStatus
from replicator.units import format_size

IMAGE_MIB = 96
TREE_BYTES = 48 << 20
DB_MIB = 64
KILLS = 3
KILL_AFTER_SECONDS = 2.0
COPY_RATE = "16M"
FIO_RATE = 12 << 20
_COPY_SECONDS = 90.0
_RETRY_SECONDS = 0.3
_T = TypeVar("_T")


_ROLE_OF_B = {
    "async": "b pulls from a, c pulls from b",
    "bunker": "answers when b's journal has it too, b has no volumes, c pulls from b",
    "sync": "answers when b's journal has it too, b restores that, c pulls from b",
}


class DemoFailed(TowlineError):
    """The sites are not what the clients had been answered."""


def collect_tree(tree: Path, sources: list[Path], limit_bytes: int) -> int:
    """Copy files from ``sources`` into ``tree`` up to a number of bytes; return how many files."""
    shutil.rmtree(tree, ignore_errors=True)
    left = limit_bytes
    count = 0
    for source, path in _files(sources):
        size = path.stat().st_size
        if size > left:
            continue
        target = tree / source.name / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        left -= size
        count += 1
        if left < limit_bytes // 50:
            break
    return count


def _files(sources: list[Path]) -> Iterator[tuple[Path, Path]]:
    for source in sources:
        for path in sorted(source.rglob("*")):
            if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
                yield source, path


class Demo:
    """One run in ``folder``; ``run`` returns the report."""

    def __init__(self, folder: Path, topology: str = "async") -> None:
        self.folder = folder.absolute()
        self.topology = topology
        plan = LabPlan(
            volumes={"files": f"{IMAGE_MIB}MiB", "db": f"{DB_MIB}MiB"},
            site_options={"b": NEAR_SITES[topology]},
        )
        self.lab = EmbeddedLab(self.folder / "lab", plan)
        self.screen = Screen(self.lab)
        self.image = self.folder / "files.img"
        self._copies = 0
        self._copy_error: TowlineError | None = None
        self._fio_writes = 0

    def run(self) -> dict[str, object]:
        """Set up, write under kills, wait, judge."""
        require_programs()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.screen:
            try:
                self._set_up()
                job = self._work()
                position = self._quiesce()
                report = self._judge(job, position)
            finally:
                self.lab.kill_all()
        (self.folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        self._print(report)
        return report

    def _set_up(self) -> None:
        tree = self.folder / "tree"
        package = Path(__file__).resolve().parent.parent
        sources = [package, Path("/usr/share/doc"), Path("/usr/share"), Path(sys.prefix) / "lib"]
        count = collect_tree(tree, sources, TREE_BYTES)
        make_image(tree, self.image, IMAGE_MIB << 20)
        self.screen.step(f"made an ext4 image of {count} files, {IMAGE_MIB} MiB (mke2fs -d)")
        self.lab.make()
        self.lab.start()
        self.screen.step(f"three sites run: a is primary, {_ROLE_OF_B[self.topology]}")

    def _work(self) -> FioJob:
        """Write both volumes, with kills; return the last fio job, whose writes all stand."""
        copy = threading.Thread(target=self._copy_image, daemon=True)
        copy.start()
        primary = self.lab.primary
        job = FioJob(self.folder, 0, DB_MIB << 20, FIO_RATE)
        for seed in range(1, KILLS + 1):
            job = FioJob(self.folder, seed, DB_MIB << 20, FIO_RATE)
            self.screen.client("fio", f"writing, round {seed}")
            uri = primary.nbd_uri("db")
            kill = partial(job.write_until_killed, uri, primary.pid, KILL_AFTER_SECONDS)
            writes = self._watched(kill)
            primary.note_killed()
            primary.start()
            self.lab.wait_serving()
            verified = self._watched(partial(job.verify, uri))
            self._fio_writes += writes
            self.screen.step(
                f"[red]kill -9[/] of a's replicatord after {writes} answered writes; restarted; "
                f"fio verified {verified} of them"
            )
        self.screen.client("fio", "writing, last round")
        job = FioJob(self.folder, KILLS + 1, DB_MIB << 20, 4 * FIO_RATE)
        self._fio_writes += self._watched(partial(job.write_all, primary.nbd_uri("db")))
        self._watched(copy.join)
        if self._copy_error is not None:
            raise self._copy_error
        self.screen.step(f"clients are done: fio {self._fio_writes} writes, image copied")
        return job

    def _copy_image(self) -> None:
        """Copy the image to volume files; when the server dies, start again, as a client would."""
        deadline = time.monotonic() + _COPY_SECONDS
        while True:
            self._copies += 1
            self.screen.client("qemu-img", f"copying the image, try {self._copies}")
            try:
                uri = self.lab.primary.nbd_uri("files")
                flags = ["-n", "-r", COPY_RATE, "-f", "raw", "-O", "raw"]
                run(["qemu-img", "convert", *flags, self.image, uri])
            except ClientFailed as error:
                if time.monotonic() < deadline:
                    time.sleep(_RETRY_SECONDS)
                    continue
                self._copy_error = error
            self.screen.client("qemu-img", "done")
            return

    def _watched(self, work: Callable[[], _T]) -> _T:
        """Do ``work`` in a thread while the screen goes on."""
        outcome: list[_T] = []
        errors: list[Exception] = []

        def call() -> None:
            try:
                outcome.append(work())
            except TowlineError as error:
                errors.append(error)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.1)
            self.screen.refresh()
        if errors:
            raise errors[0]
        return outcome[0]

    def _quiesce(self) -> PositionStatus:
        self.screen.client("fio", "done")
        position = self.lab.wait_converged(watch=self.screen.refresh)
        self.screen.step(
            f"b and c have restored everything: position {position.position}, "
            f"{position.sequence} records"
        )
        return position

    def _judge(self, job: FioJob, position: PositionStatus) -> dict[str, object]:
        """Compare the sites with each other and with what the clients had been answered."""
        back = self.folder / "files.back"
        run(["nbdcopy", self.lab.primary.nbd_uri("files"), back])
        self.lab.stop()
        digests = self.lab.digests()
        image = file_digest(self.image)
        third = self.lab.sites["c"]
        filesystem = check_image(third.volume_path("files"))
        verified = {
            name: job.verify_file(site.volume_path("db"))
            for name, site in self.lab.sites.items()
            if name in digests["db"]
        }
        same = all(len(set(by_site.values())) == 1 for by_site in digests.values())
        as_answered = file_digest(back) == image == digests["files"]["c"]
        return {
            "identical": same and as_answered,
            "sites_identical": same,
            "files_equal_to_image": as_answered,
            "position": position.position,
            "records": position.sequence,
            "pair_digest": position.digest,
            "digests": digests,
            "image_digest": image,
            "kills": self.lab.primary.kills,
            "image_copies_started": self._copies,
            "fio_answered_writes": self._fio_writes,
            "fio_verified_blocks": verified,
            "e2fsck_at_c": filesystem,
            "seconds": round(self.screen.seconds, 1),
        }

    def _print(self, report: dict[str, object]) -> None:
        table = Table(title="the same volumes at every site that has any")
        for heading in ("volume", "site", "size", "sha256", "checked by"):
            table.add_column(heading)
        for volume, by_site in self.lab.digests().items():
            judge = "e2fsck -fn, image digest" if volume == "files" else "fio crc32c"
            for site, digest in by_site.items():
                size = format_size(self.lab.sites[site].volume_path(volume).stat().st_size)
                table.add_row(volume, site, size, digest[:16], judge)
        self.screen.console.print(table)
        self.screen.console.print(
            f"identical: {report['identical']}   kills: {report['kills']}   position: "
            f"{report['position']}   {report['seconds']} s   {self.folder / 'report.json'}",
            soft_wrap=True,
        )


def main(argv: list[str] | None = None) -> int:
    """Run the demo; 0 if all sites are identical and equal to what clients were answered."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/demo"))
    parser.add_argument("--topology", choices=sorted(NEAR_SITES), default="async")
    arguments = parser.parse_args(argv)
    try:
        report = Demo(arguments.folder, arguments.topology).run()
        if not report["identical"]:
            raise DemoFailed(f"the sites differ; see {arguments.folder / 'report.json'}")
    except TowlineError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
