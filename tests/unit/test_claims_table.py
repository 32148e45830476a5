"""docs/claims.md is true: all claims are there, and each test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_ROW = re.compile(r"\| (\d+) \| (.+?) \| (.*?) \| (.+?) \|")


def _rows() -> dict[int, tuple[str, str]]:
    """Return implemented-in and shown-by of each claim."""
    text = (ROOT / "docs/claims.md").read_text()
    matches = [_ROW.fullmatch(line) for line in text.splitlines() if line.startswith("| ")]
    return {int(match[1]): (match[3], match[4]) for match in matches if match}


def _tests_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_claims_table_has_each_claim_once() -> None:
    assert list(_rows()) == list(range(1, 40))


@pytest.mark.parametrize("claim", range(1, 40))
def test_claim_names_code_and_tests_or_says_not_yet(claim: int) -> None:
    implemented, shown = _rows()[claim]
    if re.fullmatch(r"not yet \([23] of 3\)", shown):
        return
    assert "`replicator/" in implemented or "as " in implemented
    assert _TEST.findall(shown)
    assert "not yet" not in shown


@pytest.mark.parametrize("claim", range(1, 40))
def test_claim_names_tests_and_code_that_exist(claim: int) -> None:
    implemented, shown = _rows()[claim]
    for name, test in _TEST.findall(shown):
        assert (ROOT / name).is_file(), name
        assert test in _tests_in(ROOT / name), f"{name} has no {test}"
    for name in re.findall(r"`(replicator/[\w./]+)`", implemented):
        assert (ROOT / name).exists(), name
