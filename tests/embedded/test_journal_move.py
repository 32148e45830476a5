"""A journal is moved to another size at each site while the host writes, with kills after."""

from __future__ import annotations

from pathlib import Path

from replicator.cli.main import main
from replicator.embedded.lab import EmbeddedLab, LabPlan
from replicator.journal.pages import read_statement
from replicator.seams.filedevice import DirectDevice
from tests.embedded.conftest import MakeLab
from tests.embedded.test_live_volumes import finish, until
from tests.embedded.writer import SteadyWriter

MIB = 1 << 20
PLAN = LabPlan(volumes={"one": "4MiB", "two": "4MiB"}, journal="32MiB", interval={"fixed": "50ms"})


def move(lab: EmbeddedLab, site: str, size: int) -> None:
    """Move a site's journal to a new file of ``size`` bytes."""
    target = lab.sites[site].folder / "larger"
    target.write_bytes(bytes(size))
    words = ["journal", "move", "--to", str(target), "--site", site]
    assert main([*words, "--topology", str(lab.topology_path)]) == 0
    assert not target.exists(), "it has the journal's name"
    assert lab.sites[site].journal_path.stat().st_size == size


def ring_bytes(path: Path) -> int:
    device = DirectDevice(path, writable=False)
    try:
        return read_statement(device).newer.body.ring_size
    finally:
        device.close()


def test_journals_are_moved_at_every_site_while_the_host_writes(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    lab.start()
    writer = SteadyWriter(lab.primary.nbd_socket, {"one": 4 * MIB, "two": 4 * MIB}, seed=8)
    writer.start()
    writer.wait_for(100)
    for name in ("b", "c"):
        until(lambda name=name: lab.sites[name].status().own.state == "following", name)
    for site, size in (("a", 64 * MIB), ("b", 48 * MIB), ("c", 40 * MIB)):
        move(lab, site, size)
        writer.wait_for(100)
        assert ring_bytes(lab.sites[site].journal_path) == size - MIB
    lab.sites["b"].kill()
    lab.primary.kill()
    lab.primary.start()
    lab.sites["b"].start()
    writer.wait_for(100)
    move(lab, "a", 36 * MIB)
    writer.wait_for(100)
    lab.sites["c"].kill()
    lab.sites["c"].start()
    finish(lab, writer, ("one", "two"))
    for site in lab.sites:
        words = ["journal", "check", "--site", site, "--topology", str(lab.topology_path)]
        assert main(words) == 0


def test_journal_that_was_moved_and_not_renamed_is_found_by_the_next_start(
    make_lab: MakeLab,
) -> None:
    lab = make_lab(PLAN)
    lab.start()
    writer = SteadyWriter(lab.primary.nbd_socket, {"one": 4 * MIB, "two": 4 * MIB}, seed=9)
    writer.start()
    writer.wait_for(50)
    path = lab.primary.journal_path
    old = lab.primary.folder / "old"
    old.hardlink_to(path)
    move(lab, "a", 48 * MIB)
    lab.primary.kill()
    path.rename(lab.primary.folder / "larger")  # as if it had been killed before the renaming
    old.rename(path)
    lab.primary.start()
    assert ring_bytes(path) == 47 * MIB
    writer.wait_for(50)
    finish(lab, writer, ("one", "two"))
