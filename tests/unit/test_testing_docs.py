"""docs/testing.md is true: every test, variant and fault row that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.sim.pace_variants import PACE_VARIANTS
from tests.sim.variants import VARIANTS

EVERY_VARIANT = (*VARIANTS, *PACE_VARIANTS)
ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/testing.md").read_text()
ROWS = [
    *("F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F10", "F11", "F13", "F15", "F17", "F19"),
    *("F21", "F22", "F24", "F30", "F32", "F33", "F34", "F38", "F39", "F40", "F41", "F42"),
    *("F44", "F45", "F46"),
]


def test_testing_page_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
    assert len(named) > 30
    for path, test in named:
        tree = ast.parse((ROOT / path).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert test in functions, f"{path} has no {test}"


def test_testing_page_names_variants_that_exist() -> None:
    pages = TEXT + (ROOT / "docs/formats/journal.md").read_text()
    known = {variant.name for variant in EVERY_VARIANT}
    for cell in re.findall(r"variants? ((?:`[\w-]+`(?:, )?)+)", pages):
        assert set(re.findall(r"`([\w-]+)`", cell)) <= known, cell
    assert f"{len(EVERY_VARIANT)} broken variants" in TEXT


def test_testing_page_has_every_fault_row_of_this_release() -> None:
    found = set(re.findall(r"\bF\d+\b", TEXT))
    assert set(ROWS) <= found
