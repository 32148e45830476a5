"""What a replicator refuses to start on, and what it says: F32, F33, F45."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.embedded.daemon import DaemonEnded, EmbeddedSite
from replicator.embedded.lab import LabPlan
from replicator.errors import DeviceBusy, DeviceUnusable, NotAJournal, WrongJournal
from tests.embedded.conftest import MakeLab
from tests.embedded.stamped import StampedWriter
from tests.tally import count

PLAN = LabPlan(volumes={"one": "4MiB", "two": "4MiB"}, journal="32MiB", interval={"fixed": "50ms"})
SIZES = {"one": 4 << 20, "two": 4 << 20}


def _blank(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(b"")
    os.truncate(path, size)


def _refused(site: EmbeddedSite) -> DaemonEnded:
    with pytest.raises(DaemonEnded) as caught:
        site.start()
    said = site.log_path.read_text()
    assert "Traceback" not in said
    assert said.count("replicatord: ") == 1, "one line says why"
    return caught.value


def test_second_replicator_on_the_same_journal_exits_and_the_first_goes_on(
    make_lab: MakeLab,
) -> None:
    lab = make_lab(PLAN)
    lab.primary.start()
    second = subprocess.run(lab.primary.command(), capture_output=True, text=True, timeout=60)
    assert second.returncode == DeviceBusy.exit_code
    assert "locked by another replicator" in second.stderr
    stamped = StampedWriter(lab.primary.nbd_socket, SIZES, seed=45)
    assert stamped.write_until_cut(50) >= 50
    count("F45")


def test_blank_journal_refuses_to_be_primary_and_nothing_is_written(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    _blank(lab.primary.journal_path)
    ended = _refused(lab.primary)
    assert ended.code == NotAJournal.exit_code
    assert lab.primary.journal_path.read_bytes().count(0) == 32 << 20
    count("F33")


def test_blank_journal_at_a_secondary_is_refused(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    _blank(lab.sites["b"].journal_path)
    assert _refused(lab.sites["b"]).code == NotAJournal.exit_code
    count("F33")


def test_journal_of_another_site_is_refused(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    os.replace(lab.sites["b"].journal_path, lab.primary.journal_path)
    assert _refused(lab.primary).code == WrongJournal.exit_code
    count("F32")


def test_volume_too_small_is_refused(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    os.truncate(lab.primary.volume_path("two"), 1 << 20)
    ended = _refused(lab.primary)
    assert ended.code == DeviceUnusable.exit_code
    assert "1048576" in str(ended)
    count("F32")


def test_source_that_became_another_group_is_refused_and_nothing_of_it_applied(
    make_lab: MakeLab,
) -> None:
    lab, foreign = make_lab(PLAN), make_lab(PLAN)
    lab.start()
    StampedWriter(lab.primary.nbd_socket, SIZES, seed=32).write_until_cut(50)
    lab.wait_converged()
    lab.stop()
    before = lab.digests()
    foreign.primary.start()
    StampedWriter(foreign.primary.nbd_socket, SIZES, seed=33).write_until_cut(80)
    foreign.stop()
    os.replace(foreign.primary.journal_path, lab.primary.journal_path)
    b = lab.sites["b"]
    b.start()
    _wait_said(b, "another group")
    b.stop()
    assert lab.digests() == before
    count("F32")


def test_journal_made_anew_is_refused_by_its_readers(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    lab.start()
    StampedWriter(lab.primary.nbd_socket, SIZES, seed=34).write_until_cut(50)
    lab.wait_converged()
    lab.stop()
    before = lab.digests()
    lab.remake_journal("b")
    c = lab.sites["c"]
    c.start()
    _wait_said(c, "formatted anew")
    c.stop()
    assert lab.digests() == before
    count("F33")


def _wait_said(site: EmbeddedSite, text: str) -> None:
    _wait_until(lambda: text in site.log_path.read_text(), f"{site.name} to say {text!r}")


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"waited 30 s for {what}"
        time.sleep(0.02)
