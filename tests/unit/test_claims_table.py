"""docs/claims.md is true: all claims are there, each named test exists; and its judge can fail."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tools.claims import CLAIMS, Claim, Outcome, judge, outcomes_of, read_claims

ROOT = Path(__file__).parents[2]
TABLE = {claim.number: claim for claim in read_claims((ROOT / "docs/claims.md").read_text())}
FINE = [Claim(n, "`replicator/x.py`", "", (f"tests/t.py::test_{n}",)) for n in range(1, 40)]
PASSED: dict[str, Outcome] = {f"tests/t.py::test_{n}": "passed" for n in range(1, 40)}


def _tests_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_claims_table_has_each_claim_once() -> None:
    rows = read_claims((ROOT / "docs/claims.md").read_text())
    assert [claim.number for claim in rows] == list(range(1, CLAIMS + 1))


@pytest.mark.parametrize("number", range(1, CLAIMS + 1))
def test_claim_names_code_and_tests_or_says_not_yet(number: int) -> None:
    claim = TABLE[number]
    if re.fullmatch(r"not yet \([23] of 3\)", claim.shown):
        return
    assert "`replicator/" in claim.implemented or "as " in claim.implemented
    assert claim.tests
    assert "not yet" not in claim.shown


@pytest.mark.parametrize("number", range(1, CLAIMS + 1))
def test_claim_names_tests_and_code_that_exist(number: int) -> None:
    claim = TABLE[number]
    for name, _, test in (each.partition("::") for each in claim.tests):
        assert (ROOT / name).is_file(), name
        assert test in _tests_in(ROOT / name), f"{name} has no {test}"
    for name in re.findall(r"`(replicator/[\w./]+)`", claim.implemented):
        assert (ROOT / name).exists(), name


def test_judge_all_claims_with_a_passed_test_are_shown() -> None:
    assert judge(FINE, PASSED) == []


@pytest.mark.parametrize("outcome", ["failed", "skipped", "missing"])
def test_judge_a_named_test_that_did_not_pass_is_a_reason(outcome: Outcome) -> None:
    reasons = judge(FINE, PASSED | {"tests/t.py::test_7": outcome})
    assert f"claim 7: tests/t.py::test_7 {outcome}" in reasons


def test_judge_a_missing_row_a_row_without_a_test_and_one_only_collected_are_reasons() -> None:
    rows = [*FINE[:3], Claim(4, "", "not yet (2 of 3)"), *FINE[5:]]
    reasons = judge(rows, PASSED | {"tests/t.py::test_9": "collected"})
    assert reasons == [
        "claim 5: no row",
        "claim 4: names no test (not yet (2 of 3))",
        "claim 9: no test of it has passed",
    ]


def test_outcomes_take_the_worst_of_a_tests_parameters() -> None:
    report = """<testsuites><testsuite>
      <testcase classname="tests.unit.test_a" name="test_one[1]"/>
      <testcase classname="tests.unit.test_a" name="test_one[2]"><failure/></testcase>
      <testcase classname="tests.unit.test_a" name="test_one[3]"/>
      <testcase classname="tests.unit.test_a" name="test_two"/>
      <testcase classname="tests.unit.test_a" name="test_three"><skipped/></testcase>
    </testsuite></testsuites>"""
    assert outcomes_of(report) == {
        "tests/unit/test_a.py::test_one": "failed",
        "tests/unit/test_a.py::test_two": "passed",
        "tests/unit/test_a.py::test_three": "skipped",
    }
