"""replicatorctl status, check and pulls: from a daemon's answers and from pages alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from replicator.cli.checks import Bounds, Verdict, check_group, worst
from replicator.cli.main import main
from replicator.codec.batch import Point
from replicator.codec.page import OwnerBody, PeerNote
from replicator.daemon.control import ControlServer
from replicator.status import (
    DaemonStatus,
    GroupStatus,
    Lag,
    PositionStatus,
    PullHistory,
    PullStatus,
    RestoreStatus,
    SiteStatus,
    VolumeStatus,
    lag_between,
    used_bytes,
)
from tests.unit.journals import append_batches, make_lab
from tests.unit.topologies import GOOD

NOW = 1_700_000_000 * 10**9
HEAD = PositionStatus(position=8192, digest="ab" * 16, sequence=2, time_ns=NOW - 10**9)
PULL = PullStatus(
    source="a", at_ns=NOW - 10**9, records=2, bytes=8192, interval_seconds=0.5, reason="fixed"
)
NONE = Lag(records=0, bytes=0, seconds=0.0)


def _restore(state: str, reason: str = "") -> RestoreStatus:
    return RestoreStatus(state=state, reason=reason, applied=4096, behind_bytes=0)


def _status(**changes: object) -> GroupStatus:
    a = SiteStatus(
        site="a",
        view="page",
        role="primary",
        state="serving",
        received=HEAD,
        restored=HEAD,
        restore_lag=NONE,
        ring_bytes=1 << 20,
    )
    fields: dict[str, object] = {
        "site": "b",
        "view": "daemon",
        "role": "secondary",
        "state": "following",
        "upstream": "a",
        "received": HEAD,
        "restored": HEAD,
        "lag": NONE,
        "restore_lag": NONE,
        "ring_bytes": 1 << 20,
        "used_bytes": 1 << 18,
        "pull": PULL,
    }
    b = SiteStatus(**(fields | changes))  # type: ignore[arg-type]
    return GroupStatus(
        group="orders",
        site="b",
        at_ns=NOW,
        sites=(a, b),
        volumes=(VolumeStatus(id=1, name="db", size_bytes=1 << 20, state="ok"),),
        group_id="cd" * 16,
        epoch=1,
        daemon=DaemonStatus(pid=7, version="0.1.0", uptime_seconds=61.0),
    )


def _verdicts(status: GroupStatus, unreachable: str = "") -> dict[str, Verdict]:
    return {c.name: c.verdict for c in check_group(status, unreachable, Bounds())}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOWLINE_TOPOLOGY", str(make_lab(tmp_path)))
    monkeypatch.setenv("TOWLINE_SITE", "b")
    return tmp_path


@pytest.fixture
def daemon(lab: Path) -> Iterator[None]:
    pulls = PullHistory(group="orders", site="b", pulls=(PULL,), limit=100)
    handlers = {"status": lambda arguments: _status(), "pulls": lambda arguments: pulls}
    server = ControlServer(str(lab / "b/orders.sock"), handlers)
    server.start()
    yield
    server.close()


def test_status_from_a_daemon_is_one_table(daemon: None, capsys) -> None:
    capsys.readouterr()
    assert main(["status"]) == 0
    head, _, titles, a, b = capsys.readouterr().out.splitlines()
    assert head.endswith("by replicatord 0.1.0 (pid 7, up 1 min 1 s)")
    assert titles.split()[:4] == ["SITE", "ROLE", "STATE", "POSITION"]
    assert a.split()[:4] == ["a", "primary", "serving", "8192:abababab"]
    assert "25 %" in b
    assert "500 ms (fixed)" in b


def test_status_json_is_what_the_daemon_said(daemon: None, capsys) -> None:
    capsys.readouterr()
    assert main(["status", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == 1
    assert said["sites"][1]["lag"] == {"records": 0, "bytes": 0, "seconds": 0.0}


def test_status_without_a_daemon_reads_the_pages_and_says_so(lab: Path, capsys) -> None:
    end = append_batches(lab, 3)[-1]
    capsys.readouterr()
    assert main(["status"]) == 0
    text = capsys.readouterr().out
    assert "no replicatord answers here: this is what the journals' pages say" in text
    assert f"{end.position}:{end.digest.hex()[:8]}" in text
    assert "3 records" in text
    assert "b: unattached: its journal has not met its source yet" in text


def test_status_peer_that_cannot_be_read_is_unreachable(lab: Path, capsys) -> None:
    (lab / "a/orders.journal").unlink()
    capsys.readouterr()
    assert main(["status"]) == 0
    text = capsys.readouterr().out
    assert "a: unreachable: " in text
    assert "No such file" in text


def test_status_peer_of_another_site_is_not_believed(lab: Path, capsys) -> None:
    theirs, own = lab / "a/orders.journal", lab / "b/orders.journal"
    theirs.write_bytes(own.read_bytes())
    assert main(["status"]) == 0
    assert "expected group orders at site a" in capsys.readouterr().out


def test_pulls_lists_what_the_daemon_remembers(daemon: None, capsys) -> None:
    capsys.readouterr()
    assert main(["pulls"]) == 0
    titles, row = capsys.readouterr().out.splitlines()
    assert titles.split()[:3] == ["AT", "FROM", "RECORDS"]
    assert row.endswith("8.0 KiB  500 ms      fixed")


def test_check_all_well_is_0(daemon: None, capsys) -> None:
    capsys.readouterr()
    assert main(["check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "OK"


def test_check_without_a_daemon_is_2(lab: Path, capsys) -> None:
    capsys.readouterr()
    assert main(["check"]) == 2
    assert capsys.readouterr().out.startswith("daemon: FAILED: ")


def test_checks_of_a_good_status_are_all_ok() -> None:
    verdicts = _verdicts(_status())
    assert set(verdicts.values()) == {Verdict.OK}
    assert list(verdicts) == [
        "daemon",
        "state",
        "peer a",
        "lag b",
        "restore lag b",
        "journal",
        "pull",
        "volume db",
        "verified b",
        "clock",
    ]


@pytest.mark.parametrize(
    ("changes", "name", "verdict"),
    [
        ({"state": "halted", "reason": "rot at 8192"}, "state", Verdict.FAILED),
        ({"state": "starting"}, "state", Verdict.WARNING),
        ({"used_bytes": (1 << 20) * 79 // 100}, "journal", Verdict.OK),
        ({"used_bytes": (1 << 20) * 81 // 100}, "journal", Verdict.WARNING),
        ({"used_bytes": (1 << 20) * 96 // 100}, "journal", Verdict.FAILED),
        ({"hosts_held": True}, "journal", Verdict.FAILED),
        ({"lag": Lag(records=1, bytes=1, seconds=59.0)}, "lag b", Verdict.OK),
        ({"lag": Lag(records=1, bytes=1, seconds=61.0)}, "lag b", Verdict.WARNING),
        ({"restore_lag": Lag(records=1, bytes=1, seconds=601.0)}, "restore lag b", Verdict.FAILED),
        ({"lag": None}, "lag b", Verdict.WARNING),
        (
            {"lag": Lag(records=1, bytes=1, seconds=5.1), "rpo_seconds": 5.0},
            "lag b",
            Verdict.FAILED,
        ),
        ({"lag": Lag(records=1, bytes=1, seconds=4.9), "rpo_seconds": 5.0}, "lag b", Verdict.OK),
        ({"pull": None}, "pull", Verdict.WARNING),
        ({"differing_bytes": 4096}, "verified b", Verdict.FAILED),
        ({"restore": _restore("running")}, "restore", Verdict.OK),
        ({"restore": _restore("delayed", "by 15 min")}, "restore", Verdict.OK),
        ({"restore": _restore("paused", "by an operator")}, "restore", Verdict.WARNING),
        ({"restore": _restore("stopped", "at position 1")}, "restore", Verdict.WARNING),
        ({"restore": _restore("running", "journal nearly full")}, "restore", Verdict.WARNING),
    ],
)
def test_check_of_one_thing_wrong_finds_it(
    changes: dict[str, object], name: str, verdict: Verdict
) -> None:
    verdicts = _verdicts(_status(**changes))
    assert verdicts.pop(name) == verdict
    assert set(verdicts.values()) == {Verdict.OK}


def test_check_pull_long_ago_is_late() -> None:
    late = msgspec.structs.replace(PULL, at_ns=NOW - 11 * 10**9)
    assert _verdicts(_status(pull=late))["pull"] == Verdict.WARNING


def test_check_batch_from_the_future_warns_about_the_clock() -> None:
    ahead = msgspec.structs.replace(HEAD, time_ns=NOW + 6 * 10**9)
    assert _verdicts(_status(received=ahead))["clock"] == Verdict.WARNING


def test_check_worst_of_nothing_is_ok() -> None:
    assert worst([]) == Verdict.OK


def test_lag_between_counts_records_bytes_and_the_primarys_seconds() -> None:
    ahead, behind = Point(8192, b"x", 9, 5 * 10**9), Point(4096, b"y", 4, 2 * 10**9)
    assert lag_between(ahead, behind) == Lag(records=5, bytes=4096, seconds=3.0)
    assert lag_between(behind, ahead) == NONE


def test_used_bytes_counts_a_site_never_seen_from_the_start() -> None:
    body = OwnerBody(
        group="orders",
        site="a",
        role="primary",
        upstream=None,
        ring_offset=0,
        ring_size=1 << 20,
        batch_bound=4096,
        catalog=None,
        head=Point(50_000, b"", 9, 0),
        restored=Point(45_000, b"", 9, 0),
        reclaim=0,
        peers={"b": PeerNote(b"", 1, (40_000, b""), (0, b""))},
    )
    assert used_bytes(body, ["b"]) == 10_000
    assert used_bytes(body, []) == 5_000
    assert used_bytes(body, ["b", "c"]) == 50_000


def test_check_peer_that_lags_and_publishes_nothing_is_silent() -> None:
    status = _status()
    lag = Lag(records=1, bytes=4096, seconds=1.0)
    a = msgspec.structs.replace(status.sites[0], lag=lag, unchanged_seconds=11.0)
    silent = msgspec.structs.replace(status, sites=(a, status.sites[1]))
    assert _verdicts(silent)["peer a"] == Verdict.WARNING
    idle = msgspec.structs.replace(a, lag=NONE)
    quiet = msgspec.structs.replace(status, sites=(idle, status.sites[1]))
    assert _verdicts(quiet)["peer a"] == Verdict.OK


def test_check_target_that_cannot_be_compared_is_a_warning(tmp_path: Path, capsys) -> None:
    path = tmp_path / "topology.yml"
    path.write_text(GOOD)
    flags = ["--topology", str(path), "--site", "a", "--secrets", str(tmp_path / "none")]
    assert main(["check", *flags]) == 2
    text = capsys.readouterr().out
    if os.geteuid() == 0:
        assert "target: WARNING: cannot be compared: " in text
    else:
        assert "target:" not in text


@pytest.mark.parametrize(("rpo", "missed"), [(5.0, True), (8.0, False)])
def test_status_names_a_site_that_misses_its_rpo(
    lab: Path, capsys: pytest.CaptureFixture[str], rpo: float, missed: bool
) -> None:
    late = _status(lag=Lag(records=1, bytes=4096, seconds=7.0), rpo_seconds=rpo)
    server = ControlServer(str(lab / "b/orders.sock"), {"status": lambda arguments: late})
    server.start()
    capsys.readouterr()
    try:
        assert main(["status"]) == 0
    finally:
        server.close()
    remark = (
        "b: lags 7.0 s, more than its rpo of 5.0 s; why: replicatorctl pulls --explain --site b"
    )
    assert (remark in capsys.readouterr().out) == missed
