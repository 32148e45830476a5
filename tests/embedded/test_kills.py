"""kill -9 under load, again and again: what was answered is there, every site is a prefix (F19)."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from replicator.embedded.daemon import EmbeddedSite
from replicator.embedded.lab import EmbeddedLab, LabPlan
from tests.embedded.conftest import MakeLab
from tests.embedded.stamped import StampedWriter
from tests.tally import count, wanted

SMALL = 8 << 20
PLAN = LabPlan(
    volumes={"db": "32MiB", "one": "8MiB", "two": "8MiB"},
    journal="48MiB",
    interval={"fixed": "50ms"},
)


class FioWriter:
    """fio with verification on volume db: writes until its server is gone, verifies after."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seed = 0
        self.verified_total = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, uri: str, pid: int) -> None:
        """Begin to write; ``kill`` has fio kill ``pid`` and record what it saw completed."""
        self._seed += 1
        (self._folder / "local-db-0-verify.state").unlink(missing_ok=True)
        flags = [
            "--iodepth=16",
            "--verify_state_save=1",
            "--do_verify=0",
            "--rate=20m",
            f"--trigger-file={self._folder / 'trigger'}",
            f"--trigger=kill -9 {pid}",
        ]
        self._process = subprocess.Popen(
            [*self._words(["--ioengine=nbd", f"--uri={uri}"]), *flags],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> bool:
        """Let fio pull the trigger, and wait for its end; False if it did not pull it.

        fio 3.33 seldom stays there with the trigger in place; it is ended then, else it prints
        the same error until the disk is full.
        """
        assert self._process is not None
        (self._folder / "trigger").touch()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return True

    def verify(self, target: list[str]) -> int:
        """Check exactly what the last round saw completed; return how many blocks."""
        # Depth 1: with more, fio reads a few writes that it had not seen completed (it compares
        # the reads that have ended, not those it sends, with its record).
        flags = [
            "--iodepth=1",
            "--verify_only=1",
            "--verify_state_load=1",
            "--verify_state_save=0",
        ]
        finished = subprocess.run(
            [*self._words(target), *flags],
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert finished.returncode == 0, f"seed {self._seed}: {finished.stderr}"
        text = (self._folder / "fio.json").read_text()
        verified = int(json.loads(text[text.index("{") :])["jobs"][0]["read"]["total_ios"])
        self.verified_total += verified
        return verified

    def _words(self, target: list[str]) -> list[str]:
        return [
            "fio",
            "--name=db",
            *target,
            "--rw=randwrite",
            "--bsrange=4k-64k",
            "--size=32m",
            f"--randseed={self._seed}",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--output-format=json",
            "--output=fio.json",
        ]


def _images(site: EmbeddedSite) -> dict[str, Path]:
    return {name: site.volume_path(name) for name in ("one", "two")}


def _wait_answers(stamped: StampedWriter) -> None:
    """Wait until the stamped writer gets further answers; AssertionError if it does not."""
    before, deadline = stamped.answered_total, time.monotonic() + 20
    while stamped.answered_total == before:
        assert time.monotonic() < deadline, "the replicator answers nobody any more"
        time.sleep(0.05)


def _equal_everywhere(lab: EmbeddedLab) -> None:
    for volume, by_site in lab.digests().items():
        assert len(set(by_site.values())) == 1, f"volume {volume} differs: {by_site}"


@pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed: tools/packages.sh")
def test_primary_killed_under_verified_load_keeps_every_answer(
    make_lab: MakeLab, tmp_path: Path
) -> None:
    lab = make_lab(PLAN)
    lab.start()
    primary = lab.primary
    pauses = random.Random(19)
    stamped = StampedWriter(primary.nbd_socket, {"one": SMALL, "two": SMALL}, seed=19)
    fio = FioWriter(tmp_path)
    pulled, not_pulled = True, 0
    for _ in range(wanted("TOWLINE_KILLS", 5)):
        since = primary.volume_path("db").stat().st_mtime_ns
        fio.start(primary.nbd_uri("db"), primary.pid)
        writer = threading.Thread(target=stamped.write_until_cut)
        writer.start()
        _wait_written(primary.volume_path("db"), since)
        time.sleep(pauses.uniform(0.05, 0.5))  # the instant of the kill, not a wait for something
        pulled = fio.kill()
        if pulled:
            primary.note_killed()
        else:
            _wait_answers(stamped)  # the replicator still answers its other client
            primary.kill()
            count("kills that fio did not do")
            not_pulled += 1
        writer.join(60)
        primary.start()
        stamped.settle(stamped.judge(_images(primary), acknowledged=True))
        if pulled:
            fio.verify(["--ioengine=nbd", f"--uri={primary.nbd_uri('db')}"])
        count("kills of the primary under fio verify")
        count("F19")
    assert stamped.answered_total > 0
    assert fio.verified_total > 0
    assert not_pulled <= max(1, wanted("TOWLINE_KILLS", 5) // 20)
    lab.wait_converged()
    lab.stop()
    if pulled:
        fio.verify(["--ioengine=libaio", f"--filename={lab.sites['c'].volume_path('db')}"])
    for site in lab.sites.values():
        stamped.judge(_images(site), acknowledged=True)
    _equal_everywhere(lab)


@pytest.mark.parametrize("name", ["b", "c"])
def test_secondary_killed_under_load_goes_on_from_its_own_position(
    make_lab: MakeLab, name: str
) -> None:
    lab = make_lab(PLAN)
    lab.start()
    site = lab.sites[name]
    stamped = StampedWriter(lab.primary.nbd_socket, {"one": SMALL, "two": SMALL}, seed=2)
    pauses = random.Random(2)
    for _ in range(max(2, wanted("TOWLINE_KILLS", 5) // 10)):
        writer = threading.Thread(target=stamped.write_until_cut, args=(1500,))
        writer.start()
        time.sleep(pauses.uniform(0.1, 0.6))  # the instant of the kill
        said = site.status().own
        site.kill()
        site.start()
        now = site.status().own
        assert said.received is not None and now.received is not None
        assert now.received.position >= said.received.position, "acknowledges less than before"
        writer.join(60)
        count(f"kills of {name} under load")
        count("F19")
    lab.wait_converged()
    lab.stop()
    for each in lab.sites.values():
        stamped.judge(_images(each), acknowledged=True)
    _equal_everywhere(lab)


def test_all_sites_killed_each_recovers_a_prefix_alone(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    stamped = StampedWriter(Path(lab.sites["a"].nbd_socket), {"one": SMALL, "two": SMALL}, seed=3)
    lab.start()
    for round_number in range(max(2, wanted("TOWLINE_KILLS", 5) // 10)):
        writer = threading.Thread(target=stamped.write_until_cut)
        writer.start()
        time.sleep(0.3 + 0.1 * (round_number % 4))  # the instant of the kill
        lab.kill_all()
        writer.join(60)
        held = {}
        for name in ("c", "b"):  # c has its own journal and dead b's; then b likewise
            site = lab.sites[name]
            site.start()
            _wait_restored(site)
            site.stop()
            held[name] = stamped.judge(_images(site), acknowledged=False)
        lab.start()
        found = stamped.judge(_images(lab.primary), acknowledged=True)
        for volume in found:
            assert held["b"][volume] <= found[volume]
            assert held["c"][volume] <= found[volume]
        lab.wait_converged()
        stamped.settle(found)
        count("kills of all three sites at once")
        count("F3")
    lab.stop()
    _equal_everywhere(lab)


def test_primary_dead_b_and_c_still_drain_its_journal(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    lab.primary.start()
    stamped = StampedWriter(lab.primary.nbd_socket, {"one": SMALL, "two": SMALL}, seed=5)
    stamped.write_until_cut(400)
    lab.primary.kill()
    for name in ("b", "c"):
        lab.sites[name].start()
    for name in ("b", "c"):
        _wait_restored(lab.sites[name], at_least=1)
    lab.primary.start()
    found = stamped.judge(_images(lab.primary), acknowledged=True)
    lab.wait_converged()
    lab.stop()
    for site in lab.sites.values():
        assert stamped.judge(_images(site), acknowledged=True) == found
    _equal_everywhere(lab)


def _wait_restored(site: EmbeddedSite, at_least: int = 0) -> None:
    """Wait until a site has restored, durably, all that it has received."""
    deadline = time.monotonic() + 30
    while True:
        own = site.status().own
        received = own.received
        if received == own.restored and received is not None and received.sequence >= at_least:
            return
        assert time.monotonic() < deadline, f"{site.name}: {own}"
        time.sleep(0.05)


def _wait_written(path: Path, since_ns: int) -> None:
    """Wait until a volume's file is written."""
    deadline = time.monotonic() + 30
    while path.stat().st_mtime_ns == since_ns:
        assert time.monotonic() < deadline, f"{path}: no write in 30 s"
        time.sleep(0.01)
