"""replicatorctl target where there is no LIO: files export nothing, the journal decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replicator.cli.main import main
from replicator.cli.target import serves_hosts
from replicator.codec.topology_file import parse_topology
from replicator.seams.nodefiles import read_topology
from tests.unit.journals import damage, journal_file, make_lab
from tests.unit.topologies import GOOD


def test_target_plan_of_a_site_with_files_changes_nothing(tmp_path: Path, capsys) -> None:
    topology = make_lab(tmp_path)
    capsys.readouterr()
    flags = ["--topology", str(topology), "--site", "a", "--json"]
    assert main(["target", "plan", *flags]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"changed": False, "steps": []}
    assert "exports nothing" in said.err


def test_target_plan_without_secrets_is_refused_in_one_line(tmp_path: Path, capsys) -> None:
    path = tmp_path / "topology.yml"
    path.write_text(GOOD)
    flags = ["--topology", str(path), "--site", "a", "--secrets", str(tmp_path / "none")]
    assert main(["target", "plan", *flags]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(("site", "expected"), [("a", True), ("b", False)])
def test_serves_hosts_follows_the_journals_page(tmp_path: Path, site: str, expected: bool) -> None:
    topology = read_topology(make_lab(tmp_path))
    assert serves_hosts(topology.site(site), topology.group("orders")) is expected


def test_serves_hosts_page_unreadable_means_standby(tmp_path: Path, capsys) -> None:
    topology = read_topology(make_lab(tmp_path))
    for copy in (0, 4096):
        damage(journal_file(tmp_path, "a"), copy + 200)
    assert serves_hosts(topology.site("a"), topology.group("orders")) is False
    assert "in standby" in capsys.readouterr().err


def test_serves_hosts_journal_missing_means_standby(capsys) -> None:
    topology = parse_topology(GOOD, folder="/nonexistent")
    assert serves_hosts(topology.site("c"), topology.group("orders")) is False
    assert "in standby" in capsys.readouterr().err
