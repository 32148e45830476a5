"""Memory, descriptors, threads, file system and disk giving out: no wrong answer, clean restart.

F10, F15, F46 with a real process; each time the stamped writes are judged after the restart.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicator.embedded.daemon import EmbeddedSite
from replicator.embedded.lab import EmbeddedLab, LabPlan
from replicator.errors import DaemonUnreachable
from tests.embedded.conftest import MakeLab
from tests.embedded.stamped import StampedWriter
from tests.fakes.nbd_client import NbdClient
from tests.tally import count

PLAN = LabPlan(volumes={"one": "4MiB", "two": "4MiB"}, journal="32MiB", interval={"fixed": "50ms"})
SIZES = {"one": 4 << 20, "two": 4 << 20}


class Load:
    """Stamped writes in a thread until the server hangs up."""

    def __init__(self, site: EmbeddedSite, seed: int) -> None:
        self.site = site
        self.stamped = StampedWriter(site.nbd_socket, SIZES, seed)
        self._thread = threading.Thread(target=self.stamped.write_until_cut, daemon=True)
        self._thread.start()
        _wait_until(lambda: self.stamped.answered_total > 100, "a hundred answered writes")

    def wait_more(self, answers: int = 100) -> None:
        """Wait until that many further writes are answered."""
        goal = self.stamped.answered_total + answers
        _wait_until(lambda: self.stamped.answered_total > goal, f"{answers} more answers")

    def wait_cut(self) -> None:
        self._thread.join(40)
        assert not self._thread.is_alive(), "the client still waits"

    def judge(self) -> None:
        """Judge the primary's images; nothing answered may be missing."""
        images = {name: self.site.volume_path(name) for name in SIZES}
        self.stamped.settle(self.stamped.judge(images, acknowledged=True))


def test_descriptors_exhausted_new_clients_wait_and_served_ones_go_on(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    lab.primary.start()
    load = Load(lab.primary, seed=46)
    pid = lab.primary.pid
    used = len(os.listdir(f"/proc/{pid}/fd"))
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as late:
        late.connect(str(lab.primary.nbd_socket))
        load.wait_more()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        late.settimeout(20)
        assert late.recv(8) == b"NBDMAGIC"
    load.wait_more()
    lab.primary.kill()
    load.wait_cut()
    lab.primary.start()
    load.judge()
    count("F46")


def test_memory_and_threads_exhausted_halts_or_refuses_and_restarts_clean(
    make_lab: MakeLab,
) -> None:
    lab = make_lab(PLAN)
    lab.primary.start()
    load = Load(lab.primary, seed=47)
    pid = lab.primary.pid
    resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
    for _ in range(5):  # each wants a thread and receive memory
        with contextlib.suppress(OSError), NbdClient(lab.primary.nbd_socket, None) as client:
            client.socket.settimeout(0.2)
    _wait_until(lambda: not load.site.running or _still_answers(load), "an end or an answer")
    lab.primary.kill()
    load.wait_cut()
    lab.primary.start()
    load.judge()
    load = Load(lab.primary, seed=48)
    count("F46")


def _still_answers(load: Load) -> bool:
    before = load.stamped.answered_total
    time.sleep(0.05)
    return load.stamped.answered_total > before


def _fail_flushes(pid: int, prefix: Path) -> None:
    command = "enable name=posix/io/sync/fdatasync"
    subprocess.run(["fiu-ctrl", "-f", str(prefix), "-c", command, str(pid)], check=True, timeout=20)


@pytest.mark.skipif(shutil.which("fiu-run") is None, reason="fiu-utils is not installed")
def test_failed_flush_halts_before_an_answer_and_restarts_clean(
    make_lab: MakeLab, tmp_path: Path
) -> None:
    lab = make_lab(PLAN)
    prefix = tmp_path / "fiu"
    lab.primary.start(["fiu-run", "-x", "-f", str(prefix)])
    load = Load(lab.primary, seed=10)
    _fail_flushes(lab.primary.pid, prefix)
    load.wait_cut()
    own = lab.primary.status().own
    assert own.state == "halted"
    assert "flush" in own.reason
    with pytest.raises(OSError):
        NbdClient(lab.primary.nbd_socket, "one").write(0, bytes(4096))
    lab.primary.kill()
    lab.primary.start()
    load.judge()
    assert lab.primary.status().own.state == "serving"
    load = Load(lab.primary, seed=11)  # after a repair, append again and read again
    lab.primary.kill()
    count("F10")


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 200 MiB; skips where that is not allowed."""
    image, place = tmp_path / "fs.img", tmp_path / "small"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(200 << 20)
    commands = [["mke2fs", "-q", "-t", "ext4", str(image)], ["mount", "-o", "loop", image, place]]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_file_system_full_data_path_goes_on(small_file_system: Path) -> None:
    lab = EmbeddedLab(small_file_system / "lab", PLAN)
    lab.make()
    try:
        lab.start()
        filler = small_file_system / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 20)) == 1 << 20:
                pass
        assert shutil.disk_usage(small_file_system).free < 1 << 20
        load = Load(lab.primary, seed=15)
        load.wait_more(500)
        lab.primary.kill()
        load.wait_cut()
        lab.primary.start()
        load.judge()
        lab.wait_converged()
        lab.stop()
        for by_site in lab.digests().values():
            assert len(set(by_site.values())) == 1
    finally:
        lab.kill_all()
    count("F15")


def test_no_room_for_a_site_is_refused_and_leaves_no_partial_file(small_file_system: Path) -> None:
    plan = LabPlan(volumes={"one": "4MiB", "two": "4MiB"}, journal="400MiB")
    lab = EmbeddedLab(small_file_system / "lab", plan)
    with pytest.raises(Exception, match="no room for 419430400 bytes"):
        lab.make()
    assert not (small_file_system / "lab" / "a" / "orders.journal").exists()
    count("F15")


def test_garbage_clients_under_load_harm_nobody(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    lab.primary.start()
    load = Load(lab.primary, seed=41)
    for number in range(50):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bad:
            bad.connect(str(lab.primary.nbd_socket))
            with contextlib.suppress(OSError):
                bad.sendall(bytes([number]) * 5000)
        count("F41")
    load.wait_more()
    assert "Traceback" not in lab.primary.log_path.read_text()
    lab.primary.kill()
    load.wait_cut()
    lab.primary.start()
    load.judge()


def test_status_of_a_dead_site_is_unreachable(make_lab: MakeLab) -> None:
    lab = make_lab(PLAN)
    with pytest.raises(DaemonUnreachable):
        lab.primary.status()


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"waited 30 s for {what}"
        time.sleep(0.02)
