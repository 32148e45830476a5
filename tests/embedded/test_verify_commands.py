"""``replicatorctl verify`` against real daemons: a pass under load with kills, a flipped bit."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.cli.main import main
from replicator.embedded.lab import EmbeddedLab, LabPlan
from replicator.errors import Refused, VolumesDiffer
from tests.embedded.conftest import MakeLab
from tests.embedded.stamped import StampedWriter
from tests.tally import count, wanted

DEADLINE = 60.0
PLAN = LabPlan(
    volumes={"db": "16MiB", "one": "8MiB", "two": "8MiB"},
    journal="48MiB",
    interval={"fixed": "50ms"},
)
VERIFYING = dataclasses.replace(PLAN, group_options={"verify": {"rate": "800Mbit"}})
SIZES = {"one": 8 << 20, "two": 8 << 20}
KILLS = 3
FLIPPED_AT = 5_000_000
PIECE = 256 << 10


class Ctl:
    """replicatorctl at one site of a lab, with --json."""

    def __init__(self, lab: EmbeddedLab, capsys: pytest.CaptureFixture[str]) -> None:
        self._topology = str(lab.topology_path)
        self._capsys = capsys

    def __call__(self, site: str, *words: str, code: int = 0) -> dict[str, object]:
        self._capsys.readouterr()
        found = main([*words, "--json", "--topology", self._topology, "--site", site])
        output = self._capsys.readouterr()
        assert found == code, output.err
        return json.loads(output.out) if output.out else {"error": output.err}


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.1)


def _own(status: dict[str, object], site: str) -> dict[str, object]:
    sites = status["sites"]
    assert isinstance(sites, list)
    return next(each for each in sites if each["site"] == site)


def _passes(status: dict[str, object]) -> int:
    run = status["run"]
    assert isinstance(run, dict)
    return int(run["number"])


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(FLIPPED_AT)
        byte = file.read(1)[0]
        file.seek(FLIPPED_AT)
        file.write(bytes([byte ^ 16]))


def test_verify_under_load_with_kills_gives_no_false_alarm(
    make_lab: MakeLab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = make_lab(VERIFYING)
    lab.start()
    ctl = Ctl(lab, capsys)
    ending = threading.Event()
    answered: list[int] = []

    def write() -> None:
        while not ending.is_set():  # a new writer each time: one remembers all that it wrote
            writer = StampedWriter(lab.primary.nbd_socket, SIZES, seed=len(answered))
            answered.append(writer.write_until_cut(500))

    load = threading.Thread(target=write, daemon=True)
    load.start()
    began = time.monotonic()
    kill = 0
    while kill < KILLS or time.monotonic() - began < wanted("TOWLINE_VERIFY_SECONDS", 0):
        passes = _passes(ctl("a", "verify", "status"))
        eventually(lambda n=passes: _passes(ctl("a", "verify", "status")) > n, "a pass ends")
        site = lab.sites["bac"[kill % 3]]
        kill += 1
        site.kill()
        site.start()
    ending.set()
    load.join(DEADLINE)
    assert sum(answered) > 0
    ctl("a", "verify", "stop")
    lab.wait_converged()
    for name in "bc":
        report = ctl(name, "verify", "report")
        found = _own(report, name)
        assert found["found"] == 0, found
        assert int(str(found["verified_bytes"])) > 0
    lab.primary.stop()
    lab.primary.start()
    ctl("a", "verify", "stop", code=Refused.exit_code)
    count("passes under load without a false alarm", _passes(ctl("a", "verify", "status")))


def test_verify_names_a_flipped_bit_also_after_a_kill_and_repairs_it(
    make_lab: MakeLab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = make_lab(PLAN)
    lab.start()
    ctl = Ctl(lab, capsys)
    lab.wait_converged()
    _flip(lab.sites["c"].volume_path("db"))
    ctl("a", "verify", "start", "--rate", "800Mbit")
    eventually(lambda: _own(ctl("c", "verify", "status"), "c")["found"] == 1, "c finds the bit")
    lab.sites["c"].kill()
    offline = ctl("c", "verify", "report", code=VolumesDiffer.exit_code)
    lab.sites["c"].start()
    for report in (offline, ctl("c", "verify", "report", code=VolumesDiffer.exit_code)):
        pieces = _own(report, "c")["differs"]
        assert isinstance(pieces, list)
        places = [(each["volume"], each["offset"], each["length"]) for each in pieces]
        assert places == [("db", FLIPPED_AT // PIECE * PIECE, PIECE)]
    ctl("b", "verify", "repair", code=Refused.exit_code)
    ctl("a", "verify", "repair", code=Refused.exit_code)
    ctl("c", "verify", "repair")
    eventually(lambda: not _own(ctl("c", "verify", "status"), "c")["differs"], "c is repaired")
    lab.wait_converged()
    digests = lab.digests()["db"]
    assert len(set(digests.values())) == 1, digests
