"""replicatorctl itself: which node a command is about, exit codes, and no traceback."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from replicator.cli import main as cli
from replicator.errors import ConfigError, DaemonUnreachable, UsageError
from tests.unit.journals import TOPOLOGY
from tests.unit.topologies import GOOD, changed


@pytest.fixture
def topology(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "topology.yml"
    path.write_text(TOPOLOGY)
    monkeypatch.setenv("TOWLINE_TOPOLOGY", str(path))
    monkeypatch.setenv("TOWLINE_SITE", "a")
    return path


def test_config_check_good_file_is_ok(tmp_path, capsys) -> None:
    path = tmp_path / "good.yml"
    path.write_text(GOOD)
    assert cli.main(["config", "check", "--topology", str(path)]) == 0
    assert "OK (1 group, 2 volumes, 3 sites, 1 host)" in capsys.readouterr().out


def test_config_check_bad_file_prints_a_line_a_violation(tmp_path, capsys) -> None:
    path = tmp_path / "bad.yml"
    path.write_text(changed({"sites/a/address": "x", "groups/orders/journal/size": "1MiB"}))
    assert cli.main(["config", "check", "--topology", str(path)]) == ConfigError.exit_code
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "sites.a.address",
        "groups.orders.journal.size",
    ]
    assert cli.main(["--json", "config", "check", "--topology", str(path)]) == 3
    assert json.loads(capsys.readouterr().out)["ok"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["status", "--site", "z"], UsageError, "no site is called 'z'; the topology has: a, b"),
        (["status", "--group", "bills"], UsageError, "no group is called 'bills'"),
        (["config", "check", "--site", "z"], UsageError, "no site is called 'z'"),
        (["pulls"], DaemonUnreachable, "no replicatord answers here"),
        (["check", "--lag-warning", "soon"], UsageError, "--lag-warning: expected a duration"),
        (["status", "--topology", "/nonexistent"], ConfigError, "cannot be read"),
    ],
)
def test_command_that_cannot_run_says_why_in_one_line(
    topology, capsys, arguments, code, words
) -> None:
    assert cli.main(arguments) == code.exit_code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]


def test_command_several_groups_asks_for_one(topology, capsys) -> None:
    text = TOPOLOGY.replace("groups:\n", "groups:\n  bills:\n" + _body_of_orders())
    topology.write_text(text)
    assert cli.main(["status"]) == UsageError.exit_code
    assert "name a group with --group; the groups at site a: bills, orders" in (
        capsys.readouterr().err
    )
    assert cli.main(["status", "--group", "bills"]) == 0


def _body_of_orders() -> str:
    return TOPOLOGY.split("  orders:\n")[1].split("sites:\n  a: {address")[0]


@pytest.mark.parametrize("arguments", [[], ["dance"], ["journal"], ["status", "--nonsense"]])
def test_command_line_unknown_exits_2(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as ending:
        cli.main(arguments)
    assert ending.value.code == 2
    assert "usage: replicatorctl" in capsys.readouterr().err


def test_unexpected_error_is_one_line_and_keeps_its_traceback(monkeypatch, capsys) -> None:
    def _broken(arguments: argparse.Namespace) -> int:
        raise ZeroDivisionError

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=_broken)
    monkeypatch.setattr(cli, "build_parser", lambda: parser)
    assert cli.main([]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("replicatorctl: internal error: ZeroDivisionError")
    kept = Path(line.rsplit(" ", 1)[1])
    assert "Traceback" in kept.read_text()
    kept.unlink()


def test_output_into_a_closed_pipe_is_no_error(topology) -> None:
    program = "import sys; from replicator.cli.main import main; sys.exit(main(['status']))"
    command = f'"{sys.executable}" -c "{program}" | true; exit ${{PIPESTATUS[0]}}'
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
