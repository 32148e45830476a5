"""Any-point recovery on files: from a kept image, or the own volumes, through the ring."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from replicator.cli.main import main
from replicator.embedded.lab import EmbeddedLab, LabPlan
from replicator.errors import NotBlank, Refused, UsageError
from replicator.group.image import Images
from replicator.journal.survey import Survey
from replicator.seams.filedevice import DirectDevice
from replicator.seams.nodefiles import read_topology
from replicator.status import RestoreStatus
from tests.embedded.conftest import MakeLab
from tests.embedded.test_live_volumes import change, listing, until
from tests.embedded.writer import SteadyWriter

MIB = 1 << 20
PLAN = LabPlan(volumes={"one": "4MiB", "two": "4MiB"}, journal="32MiB", interval={"fixed": "50ms"})


class Bench:
    """A running lab, replicatorctl at its sites, and a host that writes."""

    def __init__(self, lab: EmbeddedLab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder

    def ctl(self, *words: str, site: str = "a") -> int:
        return main([*words, "--topology", str(self.lab.topology_path), "--site", site])

    def write(self, how_many: int, seed: int, volumes: tuple[str, ...] = ("one", "two")) -> None:
        """Let a host write; on return everything it wrote is answered."""
        sizes = dict.fromkeys(volumes, 4 * MIB)
        writer = SteadyWriter(self.lab.primary.nbd_socket, sizes, seed)
        writer.start()
        writer.wait_for(how_many)
        writer.stop()

    def save(self, name: str) -> dict[str, Path]:
        """Copy what the primary's volumes hold now, for comparing."""
        saved = {}
        for volume in ("one", "two"):
            saved[volume] = self.folder / f"{name}.{volume}"
            shutil.copyfile(self.lab.primary.volume_path(volume), saved[volume])
        return saved

    def targets(self, name: str) -> dict[str, Path]:
        return {volume: self.folder / f"{name}.{volume}.img" for volume in ("one", "two")}


@pytest.fixture
def bench(make_lab: MakeLab, tmp_path: Path) -> Bench:
    made = Bench(make_lab(PLAN), tmp_path)
    made.lab.start()
    return made


def words(targets: dict[str, Path]) -> list[str]:
    return [word for name, path in targets.items() for word in ("--volume", f"{name}={path}")]


def expect_equal(targets: dict[str, Path], saved: dict[str, Path]) -> None:
    for volume, path in targets.items():
        assert path.read_bytes() == saved[volume].read_bytes(), volume
        assert not Path(f"{path}.unfinished").exists()


def test_restore_to_from_an_image_that_was_kept_under_load_reaches_every_point(
    bench: Bench,
) -> None:
    writer = SteadyWriter(bench.lab.primary.nbd_socket, {"one": 4 * MIB, "two": 4 * MIB}, seed=1)
    writer.start()
    writer.wait_for(200)
    assert bench.ctl("image", "keep", "monday") == 0
    writer.wait_for(50)
    writer.stop()
    at_first = bench.save("first")
    assert bench.ctl("bookmark", "first") == 0
    bench.write(300, seed=2)
    at_second = bench.save("second")
    assert bench.ctl("bookmark", "second") == 0
    bench.write(300, seed=3)
    for name, saved in (("first", at_first), ("second", at_second)):
        targets = bench.targets(name)
        assert bench.ctl("restore", "to", name, *words(targets), "--image", "monday") == 0
        expect_equal(targets, saved)


def test_restore_to_at_a_paused_secondary_begins_from_its_own_volumes(bench: Bench) -> None:
    bench.write(200, seed=4)
    bench.lab.wait_converged()
    bench.lab.sites["c"].ask("restore-pause", {}, RestoreStatus)
    bench.write(800, seed=5)
    saved = bench.save("then")
    assert bench.ctl("bookmark", "then") == 0
    bench.write(800, seed=6)
    head = bench.lab.primary.status().own.received
    assert head is not None
    c = bench.lab.sites["c"]

    def received() -> bool:
        own = c.status().own.received
        return own is not None and own.position >= head.position

    until(received, "c to receive")
    targets = bench.targets("c")
    assert bench.ctl("restore", "to", "then", *words(targets), site="c") == 0
    expect_equal(targets, saved)


def test_restore_to_follows_a_volume_that_came_after_the_image(bench: Bench) -> None:
    for name in ("b", "c"):
        until(lambda name=name: bench.lab.sites[name].status().own.state == "following", name)
    bench.write(50, seed=7)
    assert bench.ctl("image", "keep", "before") == 0
    bench.lab.set_volumes({"one": "8MiB", "two": "4MiB", "three": "4MiB"})
    change(bench.lab, "add", "three")
    change(bench.lab, "grow", "one")
    assert not listing(bench.lab).changes
    bench.write(100, seed=8, volumes=("one", "three"))
    assert bench.ctl("bookmark", "grown") == 0
    saved = {
        volume: bench.lab.primary.volume_path(volume).read_bytes() for volume in ("one", "three")
    }
    bench.write(50, seed=9, volumes=("one", "three"))
    targets = {volume: bench.folder / f"after.{volume}" for volume in saved}
    assert bench.ctl("restore", "to", "grown", *words(targets), "--image", "before") == 0
    for volume, content in saved.items():
        assert targets[volume].read_bytes() == content


def test_restore_to_refuses_clearly_and_leaves_nothing(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.write(100, seed=10)
    assert bench.ctl("bookmark", "early") == 0
    bench.write(20, seed=11)
    assert bench.ctl("image", "keep", "late") == 0
    targets = bench.targets("no")
    given = words(targets)

    def refused(code: int, pattern: str, *command: str) -> None:
        capsys.readouterr()
        assert bench.ctl("restore", "to", *command) == code
        assert re.search(pattern, capsys.readouterr().err), pattern
        assert not any(bench.folder.glob("no.*"))

    refused(Refused.exit_code, "may hold the log up to", "early", *given, "--image", "late")
    refused(Refused.exit_code, "is beyond the end", "99999999999", *given)
    refused(Refused.exit_code, "bookmark never is not in this journal", "never", *given)
    refused(UsageError.exit_code, "no image is called", "early", *given, "--image", "gone")
    refused(UsageError.exit_code, "expected NAME=TARGET", "early", "--volume", "one")
    own = f"one={bench.lab.primary.volume_path('one')}"
    refused(Refused.exit_code, "belongs to group", "early", "--volume", own)
    existing = bench.folder / "there"
    existing.write_bytes(b"kept")
    refused(NotBlank.exit_code, "exists", "early", "--volume", f"one={existing}")
    assert existing.read_bytes() == b"kept"
    bench.write(3000, seed=12)  # the ring is reclaimed beyond what the image needs
    until(lambda: _reclaimed_past(bench), "the ring to be reclaimed")
    assert bench.ctl("bookmark", "now") == 0
    refused(Refused.exit_code, "the ring begins at", "now", *given, "--image", "late")
    capsys.readouterr()
    assert bench.ctl("image", "list") == 0
    assert "nothing: the ring begins at" in capsys.readouterr().out
    assert bench.ctl("image", "drop", "late") == 0
    assert list(Path(bench.lab.primary.folder / "orders.images").iterdir()) == []


def _reclaimed_past(bench: Bench) -> bool:
    site = read_topology(bench.lab.topology_path).site("a")
    restart = Images(site, "orders").get("late").restart.position
    device = DirectDevice(bench.lab.primary.journal_path, writable=False)
    try:
        first = Survey(device).first()
        if first is not None and first.position > restart:
            return True
    finally:
        device.close()
    bench.write(500, seed=restart)
    return False
