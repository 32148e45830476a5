"""The load seam on files that look like /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator.seams.load import LoadMeter


class Machine:
    """A /proc that tests write, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 0.0
        (folder / "pressure").mkdir()

    def cpu(self, user: int, idle: int, iowait: int = 0) -> None:
        line = f"cpu  {user} 0 0 {idle} {iowait} 0 0 0 7 0\ncpu0 1 2 3\n"
        (self.folder / "stat").write_text(line)

    def pressure(self, resource: str, avg10: float) -> None:
        text = f"some avg10={avg10:.2f} avg60=0.00 avg300=0.00 total=12\nfull avg10=99.00\n"
        (self.folder / "pressure" / resource).write_text(text)

    def meter(self) -> LoadMeter:
        return LoadMeter(self.folder, lambda: self.now)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_load_cpu_is_the_part_used_since_the_last_look(machine: Machine) -> None:
    machine.cpu(user=1000, idle=9000)
    meter = machine.meter()
    machine.now = 1.0
    machine.cpu(user=1060, idle=9030, iowait=10)
    assert meter.read().cpu == pytest.approx(0.6), "iowait is idle time"
    machine.now = 2.0
    machine.cpu(user=1060, idle=9130, iowait=10)
    assert meter.read().cpu == 0.0


def test_load_pressure_is_the_higher_of_cpu_and_memory(machine: Machine) -> None:
    machine.cpu(0, 0)
    meter = machine.meter()
    machine.now = 1.0
    machine.pressure("cpu", 12.5)
    machine.pressure("memory", 40)
    machine.pressure("io", 90)
    load = meter.read()
    assert load.pressure == pytest.approx(0.4)
    assert load.part == meter.part() == pytest.approx(0.4)


def test_load_asked_again_at_once_gives_the_last_answer(machine: Machine) -> None:
    machine.cpu(user=0, idle=0)
    meter = machine.meter()
    machine.now = 1.0
    machine.cpu(user=100, idle=0)
    assert meter.part() == 1.0
    machine.now = 1.1
    machine.cpu(user=100, idle=500)
    assert meter.part() == 1.0


def test_load_that_cannot_be_read_is_none(machine: Machine) -> None:
    meter = machine.meter()
    machine.now = 1.0
    (machine.folder / "stat").write_text("nonsense")
    (machine.folder / "pressure" / "cpu").write_text("some avg10\n")
    assert meter.part() == 0.0


def test_load_of_this_machine_is_a_part() -> None:
    assert 0.0 <= LoadMeter().part() <= 1.0
