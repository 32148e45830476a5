"""The bench's report: sections are merged, a bar that is missed is said to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.report import merge_into_report, print_rows

ROW: dict[str, object] = {
    "what": "depth 1",
    "unit": "writes/s",
    "towline": 40.0,
    "reference": "other",
    "reference_value": 100.0,
    "ratio": 0.4,
    "bar": 0.5,
    "met": False,
}


def test_report_second_section_keeps_the_first(tmp_path: Path) -> None:
    path = tmp_path / "build" / "bench.json"
    merge_into_report(path, "embedded", [ROW])
    merge_into_report(path, "vms", [])
    assert json.loads(path.read_text()) == {"embedded": [ROW], "vms": []}


def test_report_missed_bar_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([ROW, {**ROW, "what": "no bar", "bar": None}])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("NOT MET")
    assert "NOT MET" not in lines[2]
