"""policy simulate: the real decisions on a small model; the documented run is reproduced."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from replicator.cli.main import main
from replicator.cli.policy_model import PAGES_BYTES, Surroundings, simulate
from replicator.cli.policy_picture import draw
from replicator.cli.workload import GENERATED, Sample, Workload, load_workload, parse_workload
from replicator.codec.topology import AdaptiveInterval, FixedInterval
from replicator.codec.topology_interval import INPUTS
from replicator.errors import ConfigError
from replicator.movers.interval import OWN_FULL, SOURCE_FULL
from replicator.status import MeasuredStatus, PullHistory, PullStatus

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/operating/choose-a-policy.md"
SLOW = Surroundings(link_bytes_per_second=2e6, source_ring_bytes=16 << 20)
BUSY = Workload(samples=(Sample(seconds=20.0, records=20_000, bytes=40_000_000, load=0.5),))


def _documented() -> list[tuple[list[str], str]]:
    """Return each simulation that the guide shows: its arguments and its output."""
    blocks = re.findall(r"```\n\$ (replicatorctl policy .*?)\n(.*?)```", GUIDE.read_text(), re.S)
    return [(shlex.split(command)[1:], output) for command, output in blocks]


@pytest.mark.parametrize("at", range(2))
def test_simulate_documented_runs_are_reproduced(
    at: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, output = _documented()[at]
    monkeypatch.chdir(ROOT)
    if "--svg" in arguments:
        place = arguments.index("--svg") + 1
        shown = (ROOT / arguments[place]).read_text()
        arguments[place] = str(tmp_path / "again.svg")
    assert main(arguments) == 0
    assert capsys.readouterr().out == output
    if "--svg" in arguments:
        assert (tmp_path / "again.svg").read_text() == shown


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_simulate_brings_everything_over_whatever_the_policy(name: str) -> None:
    workload = load_workload(name)
    written = sum(sample.bytes for sample in workload.samples)
    for policy in (
        FixedInterval(seconds=2.0),
        AdaptiveInterval(),
        AdaptiveInterval(inputs=(), max_seconds=5.0, rpo_seconds=5.0),
        AdaptiveInterval(inputs=INPUTS, max_seconds=10.0, traffic_limit=10e6),
    ):
        outcome = simulate(policy, workload, Surroundings())
        assert sum(moment.bytes for moment in outcome.moments) == pytest.approx(written, abs=2000)
        assert sum(moment.records for moment in outcome.moments) == pytest.approx(
            sum(sample.records for sample in workload.samples), abs=1
        )
        crossed = written + PAGES_BYTES * len(outcome.moments)
        assert outcome.link_bytes == pytest.approx(crossed, rel=1e-3)


def test_simulate_target_rpo_is_kept_where_the_link_can() -> None:
    policy = AdaptiveInterval(inputs=(), max_seconds=8.0, rpo_seconds=8.0)
    outcome = simulate(policy, load_workload("day"), Surroundings())
    assert 2.0 < outcome.worst_lag_seconds < 8.0


def test_simulate_traffic_limit_is_kept() -> None:
    policy = AdaptiveInterval(inputs=("records", "traffic"), max_seconds=5.0, traffic_limit=1e6)
    outcome = simulate(policy, BUSY, Surroundings())
    moved = sum(moment.bytes for moment in outcome.moments)
    assert moved <= 1e6 * (outcome.seconds + 1.0) + PAGES_BYTES
    assert outcome.seconds >= 38.0


def test_simulate_full_source_holds_hosts_and_wins_over_the_load() -> None:
    policy = AdaptiveInterval(inputs=("load", "source"), max_seconds=30.0, load_limit=0.5)
    outcome = simulate(policy, BUSY, SLOW)
    winners = [moment.decision.winner for moment in outcome.moments]
    assert SOURCE_FULL in winners
    assert outcome.held_seconds > 0
    slower = AdaptiveInterval(inputs=("load",), max_seconds=30.0, load_limit=0.5)
    assert simulate(slower, BUSY, SLOW).held_seconds > outcome.held_seconds


def test_simulate_own_full_journal_wins_over_everything() -> None:
    around = Surroundings(own_ring_bytes=4 << 20, restore_bytes_per_second=1e6)
    policy = AdaptiveInterval(inputs=INPUTS, max_seconds=30.0, traffic_limit=1e9)
    outcome = simulate(policy, BUSY, around)
    assert any(moment.decision.winner == OWN_FULL for moment in outcome.moments)
    assert all(moment.own <= 1.0 for moment in outcome.moments)


def test_simulate_recorded_pulls_are_a_workload() -> None:
    measured = MeasuredStatus(
        interval_seconds=1.0,
        elapsed_seconds=1.25,
        more_waiting=False,
        traffic=0.0,
        traffic_wait_seconds=0.0,
        used=0.0,
        full=False,
        load=0.25,
        source=0.0,
        lag_seconds=0.0,
    )
    pull = PullStatus(
        source="a",
        at_ns=0,
        records=3,
        bytes=8192,
        interval_seconds=1.0,
        reason="records",
        measured=measured,
    )
    history = PullHistory(group="orders", site="b", pulls=(pull, pull), limit=200)
    workload = parse_workload(msgspec.json.encode(history), "pulls.json")
    assert workload.samples == (Sample(seconds=1.25, records=3, bytes=8192, load=0.25),) * 2


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([], "samples: expected 1 to"),
        ([{"seconds": 0, "records": 1, "bytes": 1}], "samples.0.seconds: expected more than 0"),
        ([{"seconds": 1, "records": 0, "bytes": 1}], "samples.0: 0 records of 1 bytes"),
        ([{"seconds": 1, "records": -1, "bytes": 1}], "samples.0: -1 records"),
        ([{"seconds": 1, "records": 1, "bytes": 1, "load": 2}], "samples.0.load: expected 0 to 1"),
        ([{"seconds": 1e5, "records": 1, "bytes": 1}] * 7, "together longer than"),
        ("x", "not a workload"),
    ],
)
def test_simulate_bad_workload_is_refused(samples: object, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        parse_workload(json.dumps({"samples": samples}).encode(), "bad.json")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--workload", "nowhere.json"], 2, "expected a workload file or one of: steady"),
        (["--workload", "day", "--policy", "{interval: {fixed: 1}}"], 3, "interval.fixed"),
        (["--workload", "day", "--policy", "{rpo: 5s}", "--link", "5"], 2, "--link: expected a"),
    ],
)
def test_simulate_bad_arguments_are_refused(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "simulate", *arguments]) == code
    assert words in capsys.readouterr().err


def test_simulate_picture_is_well_formed_and_inside_its_frame() -> None:
    outcome = simulate(AdaptiveInterval(), load_workload("bursts"), Surroundings())
    picture = ElementTree.fromstring(draw(outcome, "a <b> & c"))
    width, height = map(float, picture.attrib["viewBox"].split()[2:])
    lines = [each.attrib["d"] for each in picture.iter() if each.tag.endswith("path")]
    assert len(lines) == 5 * 3 + 2 * 5
    for line in lines:
        for x in re.findall(r"[MH]([\d.]+)", line):
            assert 0 <= float(x) <= width
        for y in re.findall(r"V([\d.]+)", line):
            assert 0 <= float(y) <= height
